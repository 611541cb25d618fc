#!/usr/bin/env bash
# From a fresh clone to a large synthetic image and a report: runs/demo/report/index.html
# Flags go on to main: bash launch/demo.sh --config.seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh
exec .venv/bin/python -m ssldiff_jax.main --config=configs/demo.py --workdir=runs/demo "$@"
