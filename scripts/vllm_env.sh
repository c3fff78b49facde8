#!/usr/bin/env bash
# Builds the environment of `make test-vllm`: see vllm_env.py.
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/vllm_env.py" "${1:-.venv-vllm}"
