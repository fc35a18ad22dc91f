# Each target sets up .venv by itself; a second call reuses it. PYTHON=python3.12 chooses the interpreter.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install ray demo test test-all test-slow lint clean
export PYTHON ?=
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --dist worksteal --numprocesses
QUICK_WORKERS := auto --maxprocesses 4
# Slow tests wait for engines that start, for timeouts and for the disk: two more at once than there are cores.
SLOW_WORKERS := $$($(BIN)/python -c "from builders.index import n_cores; print(min(n_cores(), 4) + 2)")

help:
	@echo "make demo      photographs -> descriptions -> dataset -> classifier, in ./demo, on a CPU"
	@echo "make test      the tests that are quick"
	@echo "make test-slow the others that need no GPU and no network"
	@echo "make test-all  all tests that need no GPU and no network"
	@echo "make lint      formatter, linter, type checker, import rules"
	@echo "make install   .venv alone"
	@echo "make clean     remove .venv, demo and caches"

install:
	@.ci/install

demo: install
	$(BIN)/vl-dermnet demo --out demo

test: install
	$(PYTEST) $(QUICK_WORKERS)

test-all: install ray
	$(PYTEST) $(SLOW_WORKERS) -m "not gpu and not network"

test-slow: install ray
	$(PYTEST) $(SLOW_WORKERS) -m "slow and not gpu and not network"

lint: install ray
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

# Large, and wanted only by its runner's types and tests; where pip cannot get it for this Python those are left out.
ray: install
	@$(BIN)/python -c "import ray" 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	    --editable '.[ray]' || echo "no ray for this Python"

clean:
	rm -rf .venv demo dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
