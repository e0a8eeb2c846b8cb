#!/usr/bin/env bash
# A run on several GPU hosts under Slurm: sbatch docs/jobs/slurm.sh, from the repository's root.
# One process a host drives all of its GPUs; the processes find each other by Slurm's environment variables.
#SBATCH --job-name=rn50_imagenet
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
# Ten minutes before the time is up the steps, not this script, get SIGTERM: the run saves and ends.
#SBATCH --signal=TERM@600
# After a preemption or a lost host Slurm starts the job again, and the same command goes on.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source .venv/bin/activate
# The workdir must be on a filesystem that all hosts see; the cache of decoded images is each host's own.
export FLAX_RESNETS_CACHE="${TMPDIR:-/tmp}/flax_resnets"
status=0
srun --kill-on-bad-exit=1 python train.py --config configs/rn50_imagenet.py --workdir runs/rn50_imagenet || status=$?
# Stopped and saved, or ended by another process's end, it is queued again. With exit code 2, a mistake, or 3, a run that
# diverged, it would only end so once more.
if [[ $status != 2 && $status != 3 ]] && ! grep -q '"event": "done"' runs/rn50_imagenet/metrics.jsonl; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
