#!/bin/bash

# Parameters
#SBATCH --array=0-19%8
#SBATCH --cpus-per-task=4
#SBATCH --gpus-per-node=2
#SBATCH --job-name=grid-1a2b3c4d-0
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/home/me/vwm/runs/grid/jobs/%A_%a_0_log.out
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=720

# setup
export WANDB_MODE=disabled
export PYTHONPATH=/home/me/vwm/runs/grid/code/0123456789abcdef"${PYTHONPATH:+:$PYTHONPATH}"
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
srun --unbuffered --output /home/me/vwm/runs/grid/jobs/%A_%a_%t_log.out --cpus-per-task=4 sh -c 'trap "" USR2; rm -f "$VWM_NOT_BEGUN"; exec "$@"' sh /home/me/vwm/.venv/bin/python -u -m submitit.core._submit /home/me/vwm/runs/grid/jobs
