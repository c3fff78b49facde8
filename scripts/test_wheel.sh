#!/usr/bin/env bash
# Build a wheel, install it into an empty environment and use it away from the checkout: scripts/test_wheel.sh VENV
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(realpath -m "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
[ -d "$venv" ] || "${PYTHON:-python3}" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check)
version=$(sed -n 's/^torch==//p' constraints.txt)
"$venv/bin/python" -c 'import torch' 2>/dev/null ||
    "${pip[@]}" install -q "torch==$version+cpu" 2>/dev/null || "${pip[@]}" install -q "torch==$version"
"${pip[@]}" wheel -q --no-deps -w "$work" .
rm -rf build
"${pip[@]}" install -q --force-reinstall --no-deps "$work"/lapha-*.whl
"${pip[@]}" install -q "$work"/lapha-*.whl
cd "$work"
lapha=("$venv/bin/lapha")
"${lapha[@]}" --help
"${lapha[@]}" --version
"${lapha[@]}" env
"${lapha[@]}" bench --rows 64 --columns 64 --width 32 --seconds 0.1
if "${lapha[@]}" demo; then
    echo "the demo ran without its extras" >&2
    exit 1
fi
"$venv/bin/python" -c 'import lapha; assert lapha.Search and lapha.PolarPoints'
