#!/usr/bin/env bash
# A run on several GPU hosts under Slurm. From the repository's root: sbatch docs/jobs/slurm.sh
# One process on each host drives all its GPUs; the processes find each other by Slurm's environment variables.
#SBATCH --job-name=rn50_imagenet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
# Ten minutes before the time is up, Slurm sends SIGTERM to the job's steps (not to this script). The run then saves
# and ends.
#SBATCH --signal=TERM@600
# After a preemption or a lost host Slurm starts the job again, and the same command resumes the run.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source .venv/bin/activate
# The workdir must be on a filesystem that all hosts see. Each host has its own cache of decoded images and of compiled
# programs. JAX loads these, so the cache must be a directory of yours alone.
export FLAX_RESNETS_CACHE="${TMPDIR:-/tmp}/flax_resnets-$(id -un)"
status=0
srun --kill-on-bad-exit=1 bash -c '
    mkdir -p -m 700 "$FLAX_RESNETS_CACHE" && test -O "$FLAX_RESNETS_CACHE" || exit 2
    exec python train.py --config configs/rn50_imagenet.py --workdir runs/rn50_imagenet
' || status=$?
# If the run was stopped and saved, or ended because another process ended, queue the job again. Not after exit code 2
# (a mistake of the user) or 3 (the run diverged), because it would end in the same way again.
if [[ $status != 2 && $status != 3 ]] && ! grep -q '"event": "done"' runs/rn50_imagenet/metrics.jsonl; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
