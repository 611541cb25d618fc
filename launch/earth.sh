#!/usr/bin/env bash
# From a fresh clone to a model of the Earth that reads texts: runs/earth/report/index.html
# Flags go on to main: bash launch/earth.sh --config.seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh earth
exec .venv/bin/python -m ssldiff_jax.main --config=configs/earth.py --workdir=runs/earth "$@"
