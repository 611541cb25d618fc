#!/usr/bin/env bash
# Puts what a finished run measured into the page that shows it: bash launch/readme.sh demo runs/demo
set -euo pipefail
cd "$(dirname "$0")/.."
exec .venv/bin/python -m launch.pages.readme "$@"
