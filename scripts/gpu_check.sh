#!/usr/bin/env bash
# Run everything that needs a CUDA device: the GPU tests, then all kernel benchmarks.
#
# usage: scripts/gpu_check.sh OUTDIR [smoke]
#
# Writes to OUTDIR: environment.txt, tests.txt, log.txt, results.jsonl, table.txt, results.svg and tiles.jsonl.
# Needs a Python with torch, triton, geoopt and matplotlib as PYTHON (default: python3); nothing is installed.
set -uo pipefail
if [ $# -lt 1 ]; then
    sed -n '2,7p' "$0"
    exit 2
fi
cd "$(dirname "$0")/.."
out=$(mkdir -p "$1" && cd "$1" && pwd)
sizes=${2:-default}
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD${PYTHONPATH:+:$PYTHONPATH}"
# the configurations that autotuning finds belong to the results, and not to the home directory
export LAPHA_CACHE_DIR="$out/.cache"
status=0

"$python" - > "$out/environment.txt" 2>&1 <<'PY' || { cat "$out/environment.txt"; exit 1; }
import sys
import torch
if not torch.cuda.is_available():
    sys.exit("no CUDA device")
import triton
properties = torch.cuda.get_device_properties(0)
print(f"python {sys.version.split()[0]}, torch {torch.__version__}, triton {triton.__version__}")
print(f"{properties.name}, {properties.multi_processor_count} multiprocessors, {properties.total_memory / 2**30:.0f} GiB")
PY
cat "$out/environment.txt"

"$python" -m pytest -q -m gpu tests/gpu > "$out/tests.txt" 2>&1 || status=1
tail -n 3 "$out/tests.txt"

: > "$out/log.txt"
for suite in distance nearest knn pooling; do
    "$python" -m benchmarks "$suite" --device cuda --sizes "$sizes" --seconds 5 --repeats 50 \
        --output "$out/results.jsonl" 2>&1 | tee -a "$out/log.txt" | grep -v '^  ' || status=1
done
"$python" -m benchmarks tiles --device cuda --sizes "$sizes" --seconds 2 --repeats 20 \
    --output "$out/tiles.jsonl" >> "$out/log.txt" 2>&1 || status=1
"$python" -m benchmarks plot "$out/results.jsonl" --output "$out/results.svg" >> "$out/log.txt" 2>&1 || status=1
"$python" -m benchmarks table "$out/results.jsonl" "$out/tiles.jsonl" > "$out/table.txt" 2>> "$out/log.txt" || status=1
rm -rf "$out/.cache"
echo "results in $out"
exit $status
