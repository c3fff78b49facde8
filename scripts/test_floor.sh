#!/usr/bin/env bash
# Install lapha's core at the oldest versions that its metadata allows, and run the core's tests: scripts/test_floor.sh VENV
set -euo pipefail
venv=$1
cd "$(dirname "$0")/.."
[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
floor=$(sed -n 's/^torch==//p' constraints-floor.txt)
"${pip[@]}" install -q "torch==$floor+cpu" 2>/dev/null || "${pip[@]}" install -q "torch==$floor"
"${pip[@]}" install -q -c constraints-floor.txt . pytest pytest-timeout hypothesis
"${pip[@]}" check
rm -rf build
"$venv/bin/python" -m pytest -q -p no:cacheprovider tests/geometry tests/shaping tests/pruning tests/tree tests/cli/test_core_install.py
