#!/bin/bash

# Parameters
#SBATCH --account=lab
#SBATCH --array=0-6%3
#SBATCH --constraint='a100|h100'
#SBATCH --cpus-per-task=4
#SBATCH --dependency=afterany:11:12
#SBATCH --exclusive
#SBATCH --gpus-per-node=2
#SBATCH --job-name=grid-1a2b3c4d-1
#SBATCH --mail-type=FAIL
#SBATCH --mem=12800M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output='/TMP/it'"'"'s a "sweep" $HOME;/runs/grid/jobs/%A_%a_0_log.out'
#SBATCH --partition=gpu,long
#SBATCH --requeue
#SBATCH --reservation='a course'
#SBATCH --signal=USR2@120
#SBATCH --time=240

# setup
export WANDB_MODE=disabled
export NCCL_DEBUG=INFO
export QUOTED='it'"'"'s $HOME'
module load cuda/12.4
export PYTHONPATH='/TMP/it'"'"'s a "sweep" $HOME;/runs/grid/code/0123456789abcdef'"${PYTHONPATH:+:$PYTHONPATH}"
export PYTHONSAFEPATH=1
export SLURM_EXPORT_ENV=ALL
export VWM_NOT_BEGUN="$(mktemp)"
srun() {
  local code=0
  command srun "$@" || code=$?
  if [ "$code" != 0 ] && [ -e "$VWM_NOT_BEGUN" ]; then
    echo "[job] SLURM has not started the step. In case that it is about to end the job, this waits for two minutes."
    rm -f "$VWM_NOT_BEGUN"
    sleep 120 & wait "$!"
  fi
  return "$code"
}

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/TMP/it'"'"'s a "sweep" $HOME;/runs/grid/jobs/%A_%a_%t_log.out' --cpus-per-task=4 sh -c 'trap "" USR2; rm -f "$VWM_NOT_BEGUN"; exec "$@"' sh apptainer exec --nv /shared/torch.sif sh -c 'trap "" USR2; exec "$@"' sh '/home/me/my env/bin/python' -u -m submitit.core._submit '/TMP/it'"'"'s a "sweep" $HOME;/runs/grid/jobs'
