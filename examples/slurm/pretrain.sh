#!/usr/bin/env bash
# What pretrain-1x8.sbatch and pretrain-8x8.sbatch run: a launcher on every node, and a run that outlives its job.
#
# Two minutes before the time is up Slurm warns this shell (--signal=B:TERM@120). The run then ends its step, writes a
# checkpoint and exits; the job goes back to the queue, and --resume goes on where it stopped. A node that fails, or a
# job that must make way, is requeued by Slurm itself (--requeue). ACCELERATE_CONFIG names another configuration.
set -euo pipefail
config=${ACCELERATE_CONFIG:-$(dirname "$0")/accelerate-ddp.yaml}
nodes=$SLURM_JOB_NUM_NODES
gpus=${SLURM_GPUS_ON_NODE:-8}
read -r head < <(scontrol show hostnames "$SLURM_JOB_NODELIST")

# The launcher kills what has not ended so many seconds after the signal; by default 30, too few for a large checkpoint.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-110}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((${SLURM_CPUS_PER_TASK:-$gpus} / gpus))}

# To the steps of the job, not to srun: that would kill them at once.
warned=
trap 'warned=yes; scancel --quiet --signal=TERM "$SLURM_JOB_ID"' TERM

# shellcheck disable=SC2016 # the rank of a machine is known on the machine
srun --kill-on-bad-exit=1 bash -c 'exec accelerate launch --machine_rank "$SLURM_NODEID" "$@"' launch \
  --config_file "$config" --num_machines "$nodes" --num_processes "$((nodes * gpus))" \
  --main_process_ip "$head" --main_process_port "$((20000 + SLURM_JOB_ID % 20000))" \
  -m vlcli pretrain "$@" --resume &
step=$!
code=0
wait "$step" || code=$?
while kill -0 "$step" 2> /dev/null; do # the signal ended the wait, not the step
  code=0
  wait "$step" || code=$?
done
if [[ -n $warned ]] && ((code)); then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
