#!/usr/bin/env bash
# Lint, format check and the whole test suite; arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/setup.sh test
.venv/bin/ruff check --quiet .
.venv/bin/ruff format --check --quiet .
# Two processes, each with the memory of a small run; -n 0 for one.
# Files come in the order of tests/conftest.py, the long ones first.
exec .venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder "$@"
