#!/usr/bin/env bash
# tools/dist_train.sh CONFIG PROCESSES [flags of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment, the same command on each.
set -euo pipefail
if [[ ! ${2:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "expected a number of processes, got '${2:-}': $0 CONFIG PROCESSES [flags of tools/train.py]" >&2
    exit 2
fi
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "${PORT:-29500}" --nproc-per-node "$2" "$(dirname "$0")/train.py" "$1" --launcher pytorch "${@:3}"
