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
# After a preemption Slurm starts the job again, and the same command goes on.
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail

source .venv/bin/activate
# The workdir must be on a filesystem that all hosts see; the cache of decoded images is each host's own.
export FLAX_RESNETS_CACHE="${TMPDIR:-/tmp}/flax_resnets"
srun --kill-on-bad-exit=1 python train.py --config configs/rn50_imagenet.py --workdir runs/rn50_imagenet
