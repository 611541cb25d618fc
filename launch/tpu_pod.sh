#!/usr/bin/env bash
# The same command on every host of a TPU slice that exists; flags go on to main:
#   TPU_NAME=pod ZONE=us-central2-b bash launch/tpu_pod.sh --config=configs/tcga.py --workdir=/mnt/run …
# with the slides and with batches that the devices divide, as in launch/README.md.
# The workdir is a folder that all hosts share (Filestore, or a bucket by gcsfuse). SETUP=1 copies
# this checkout there first and installs it.
set -euo pipefail
cd "$(dirname "$0")/.."

name=${TPU_NAME:?expected TPU_NAME, the name of the slice}
zone=${ZONE:?expected ZONE, where it is}
on_all() { gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="$1"; }

if [[ -n ${SETUP:-} ]]; then
  git archive --prefix=ssldiff_jax/ --output=/tmp/ssldiff_jax.tar HEAD
  gcloud compute tpus tpu-vm scp /tmp/ssldiff_jax.tar "$name": --zone="$zone" --worker=all
  on_all 'tar xf ssldiff_jax.tar && cd ssldiff_jax && bash launch/setup.sh &&
    .venv/bin/python -m pip install --quiet "jax[tpu]"'
fi

flags=$(printf '%q ' "$@" --config.runtime.distributed=auto)
on_all "cd ssldiff_jax && exec .venv/bin/python -m ssldiff_jax.main $flags"
