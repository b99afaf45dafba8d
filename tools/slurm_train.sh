#!/usr/bin/env bash
# [GPUS=8] tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [GPUS] [flags of tools/train.py]
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS come from the environment. Resumes when run again.
set -euo pipefail
usage="[GPUS=8] $0 PARTITION JOB_NAME CONFIG WORK_DIR [GPUS] [flags of tools/train.py]"
if [ $# -lt 4 ]; then
    echo "expected four arguments, got $#: $usage" >&2
    exit 2
fi
gpus=${GPUS:-8} flags=("${@:5}")
if [[ ${5:-} =~ ^[0-9]+$ ]]; then
    gpus=$5 flags=("${@:6}")
fi
if [[ $gpus != [1-9]* || $gpus == *[!0-9]* || ( -n ${flags[0]:-} && ${flags[0]} != -* ) ]]; then
    echo "expected a number of GPUs and flags after WORK_DIR, got $gpus and ${flags[*]:-none}: $usage" >&2
    exit 2
fi
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
exec srun --partition "$1" --job-name "$2" --gres "gpu:$per_node" --ntasks "$gpus" --ntasks-per-node "$per_node" \
    --cpus-per-task "${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u tools/train.py "$3" --work-dir "$4" --launcher slurm --resume auto ${flags[@]+"${flags[@]}"}
