#!/usr/bin/env bash
# A workload on a GKE cluster by xpk; flags go on to main:
#   CLUSTER=c TPU_TYPE=v5litepod-256 bash launch/gke_xpk.sh --config=configs/tcga.py --workdir=/mnt/run …
# with the slides and with batches that the devices divide, as in launch/README.md.
# IMAGE is a container with this checkout at /app and its .venv. The workdir is a folder that all
# pods share: a storage attached to the cluster (xpk storage attach … --auto-mount=true).
# SIGTERM gets 60 s: the run saves, stops, and is started again.
set -euo pipefail

cluster=${CLUSTER:?expected CLUSTER, the name of the xpk cluster}
type=${TPU_TYPE:?expected TPU_TYPE, such as v5litepod-256}
image=${IMAGE:?expected IMAGE, a container with this checkout at /app}
flags=$(printf '%q ' "$@" --config.runtime.distributed=auto)

exec xpk workload create \
  --cluster="$cluster" \
  --workload="${WORKLOAD:-ssldiff-$(date +%s)}" \
  --tpu-type="$type" \
  --num-slices="${SLICES:-1}" \
  --docker-image="$image" \
  --max-restarts="${RESTARTS:-100}" \
  --termination-grace-period-seconds=60 \
  --command="cd /app && exec .venv/bin/python -m ssldiff_jax.main $flags"
