#!/bin/bash
# sbatch jobs/cluster/slurm.sh /shared/clips --out /shared/out [any option of vqa score]
#
# A Ray on all nodes of the allocation, and `vqa score` on the first. Submit the same line again after the time limit, or
# a lost node: only what has no row yet is scored. The environment in which sbatch is called must be on all nodes.
#SBATCH --job-name=vqa
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=1
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@120
set -euo pipefail

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*} # no pipe into `head`, which ends before scontrol has written all of them
address="$head:$((20000 + SLURM_JOB_ID % 20000))"
cpus=${SLURM_CPUS_PER_TASK:-1}

srun --overlap --nodes=1 --ntasks=1 --nodelist="$head" \
  ray start --head --node-ip-address="$head" --port="${address##*:}" --num-cpus="$cpus" --block &
ray=$!
until ray health-check --address "$address" >/dev/null 2>&1; do
  if ! kill -0 "$ray" 2>/dev/null; then
    echo "Ray did not start on $head at $address: see its lines above." >&2
    exit 2
  fi
  sleep 1
done
if ((SLURM_JOB_NUM_NODES > 1)); then
  srun --overlap --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" \
    ray start --address="$address" --num-cpus="$cpus" --block &
fi

run="" told=0 # Slurm's warning before the limit, or scancel, is passed on: the run saves what is finished
trap 'told=1; [[ -z $run ]] || kill -USR1 "$run" 2>/dev/null || true' USR1 TERM
vqa score "$@" --ray-address "$address" &
run=$!
((told == 0)) || kill -USR1 "$run"
told=1
while ((told)); do # a signal ends a wait before the run has ended
  told=0 code=0
  wait "$run" || code=$?
done
exit "$code"
