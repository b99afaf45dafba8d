#!/usr/bin/env bash
# tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT in the environment, the same command on each.
set -euo pipefail
if [[ ! ${3:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "expected a number of processes, got '${3:-}': $0 CONFIG CHECKPOINT PROCESSES [flags of tools/test.py]" >&2
    exit 2
fi
exec python -m torch.distributed.run --nnodes "${NNODES:-1}" --node-rank "${NODE_RANK:-0}" --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "${PORT:-29500}" --nproc-per-node "$3" "$(dirname "$0")/test.py" "$1" "$2" --launcher pytorch "${@:4}"
