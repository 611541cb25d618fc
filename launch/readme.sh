#!/usr/bin/env bash
# Puts the figures of a finished run into the README: bash launch/readme.sh runs/demo
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m ssldiff_jax.evaluation.report.figures "$@"
