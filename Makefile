# The two commands of the README: `make demo` and `make test`. Both install what they need into .venv.
VENV ?= .venv
PY := $(VENV)/bin/python

.PHONY: help demo demo-llm test lint types derived test-floor test-wheel test-vllm test-gpu install viewer clean

help:
	@echo "make demo       train and search with the embedded policy; report in runs/demo/report.html"
	@echo "make demo-llm   value-guided search with SmolLM2-135M-Instruct on three word problems"
	@echo "make test       install and run the tests"
	@echo "make test-vllm  search against real vLLM servers on this machine (own environment)"
	@echo "make lint types ruff; mypy"

demo:
	scripts/install.sh $(VENV) trl,viz
	$(PY) -m lapha demo --out runs/demo

demo-llm:
	scripts/install.sh $(VENV) llm,viz
	scripts/demo_llm.sh $(VENV)

install:
	scripts/install.sh $(VENV) dev,train

# Two processes of one thread each: the tests are many and small.
test: install
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadfile

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: install
	$(VENV)/bin/mypy
	$(PY) scripts/strict_types.py

# What is written from the code: docs/options.md and the record of public signatures.
derived:
	$(PY) scripts/write_options.py
	$(PY) scripts/public_api.py

# The oldest versions that the metadata allows, core alone, in an environment of its own.
test-floor:
	scripts/test_floor.sh .venv-floor

# A built wheel in an empty environment, away from the checkout.
test-wheel:
	scripts/test_wheel.sh .venv-wheel

test-vllm: install
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" scripts/vllm_env.sh .venv-vllm
	$(PY) -m pytest -q -m vllm tests/integration/vllm

test-gpu:
	$(PY) -m pytest -q -m gpu tests/gpu

# The page's script, from viewer/ into src/lapha/viz/assets/ (needs npm; what it builds is committed).
viewer:
	cd viewer && npm ci --no-audit --no-fund && npm run check && npm test && npm run build

clean:
	rm -rf .venv .venv-vllm .venv-floor .venv-wheel runs build dist
