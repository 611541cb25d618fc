#!/usr/bin/env bash
# Several processes on this machine, as if they were hosts; flags go on to main:
#   bash launch/local_multiprocess.sh 2 --config=configs/tiny.py --workdir=runs/tiny
# SIGTERM or Ctrl-C goes to all of them: they save, stop, and the same command goes on. A second
# Ctrl-C ends them at once.
set -euo pipefail
cd "$(dirname "$0")/.."

count=${1:?expected the number of processes}
shift
port=$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export JAX_COORDINATOR_ADDRESS=127.0.0.1:$port JAX_NUM_PROCESSES=$count

children=()
for ((i = 0; i < count; i++)); do
  JAX_PROCESS_ID=$i .venv/bin/python -m ssldiff_jax.main "$@" --config.runtime.distributed=given &
  children+=($!)
done
trap 'kill -TERM "${children[@]}" 2>/dev/null || true; trap "kill -KILL ${children[*]}" INT' TERM INT

status=0
for i in "${!children[@]}"; do
  child=${children[i]}
  # A signal to this script ends `wait` before the child.
  while kill -0 "$child" 2>/dev/null; do
    wait "$child" || true
  done
  last=0
  wait "$child" || last=$?
  if ((last > 128 && last != 130 && last != 143)); then
    echo "process $i of $count was ended by signal $((last - 128)); the same command resumes" >&2
  fi
  ((last > status)) && status=$last
done
exit "$status"
