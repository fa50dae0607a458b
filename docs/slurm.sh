#!/bin/bash
# Pre-training on 4 machines of 8 GPUs. Change partition, time, cores and folders, then: sbatch docs/slurm.sh
# Or say so to sbatch, and more options of the command behind it: sbatch --nodes=2 docs/slurm.sh --epochs 800
#SBATCH --job-name=cnv2-pretrain
#SBATCH --partition=gpu
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --output=cnv2-pretrain-%j.log
# The log goes on where it was, and the job may start again, by itself after the loss of a node.
#SBATCH --open-mode=append
#SBATCH --requeue
# SIGTERM 120 s before the time is over, or up to 60 s earlier. Without "B:" it goes to the workers that srun started,
# not to this shell, which waits for them.
#SBATCH --signal=TERM@120

set -u
cd "$SLURM_SUBMIT_DIR" # on a disk that all nodes see, as is the environment with keras-cnv2

# Read by all workers. Prepare it once, before the first job: tfds build imagenet2012
export TFDS_DATA_DIR="${TFDS_DATA_DIR:-$HOME/tensorflow_datasets}"
# Written and read by worker 0 alone. On a shared disk a job goes on from its checkpoint wherever it starts again; on a
# disk of the first node, only there.
RUNS="${RUNS:-$SLURM_SUBMIT_DIR/runs}"

# Not --kill-on-bad-exit=1: the first worker to end would take worker 0 with it, perhaps in the middle of a checkpoint.
# When one dies, the others end by themselves within 30 s; --wait ends what is left after 300 s.
code=0
srun --kill-on-bad-exit=0 --wait=300 --distribution=block --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    keras-cnv2 pretrain --recipe imagenet --model base --name base --runs "$RUNS" \
    --strategy multiworker --cluster slurm "$@" || code=$?

# srun's code is the highest of all workers. 75: a checkpoint is saved, there was no more time. 143: SIGTERM came while
# they were starting. The same job goes on. After scancel it does not: that ends this shell as well.
if [ "$code" -eq 75 ] || [ "$code" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
