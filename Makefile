# Every target runs in .venv, which is made when missing and brought up to date when pyproject.toml or
# constraints.txt changed. Needs Python 3.11+ with venv and pip; another interpreter: make PYTHON=python3.12 demo
PYTHON ?= python3

# What of pyproject.toml's optional parts is installed; .ci/run takes more of them.
EXTRAS ?= dev

BIN := .venv/bin
READY := .venv/.ready
READY_BENCH := .venv/.ready-bench
PIP_INSTALL := $(BIN)/pip install -qq --no-input --disable-pip-version-check --log .venv/pip.log -c constraints.txt
# Two workers with one thread each: more threads than cores makes every one of them slower.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2

# Image archives and reference numbers for the tests and the demo; set these to use others, or to nothing for none.
ifeq ($(origin FEATSCALE_DATA),undefined)
  FOUND := $(shell cd ../shared/data 2>/dev/null && pwd)
  ifneq ($(FOUND),)
    export FEATSCALE_DATA := $(FOUND)
  endif
endif
ifeq ($(origin FEATSCALE_REFERENCE),undefined)
  FOUND := $(shell cd ../shared/reference 2>/dev/null && pwd)
  ifneq ($(FOUND),)
    export FEATSCALE_REFERENCE := $(FOUND)
  endif
endif

.DEFAULT_GOAL := help
.PHONY: help demo test slow check bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile
	@echo "Each sets .venv up first if need be: a minute or two, about 6 GB."

demo: $(READY)  ## set-up and the main job, from nothing
	@$(BIN)/featscale demo

test: $(READY)  ## the tests, without the slow ones
	@$(PYTEST) -m 'not slow'

slow: $(READY)  ## the slow tests
	@$(PYTEST) -m slow

check: $(READY)  ## lint, format and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

# One after the other, so that nothing else runs beside what is timed.
bench: $(READY_BENCH)  ## the benchmarks
	@for file in tests/benchmarks/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

clean:  ## remove .venv, caches and builds; never runs/ or other results
	@rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks
	@rm -rf __pycache__; find featscale datamodules tests -type d -name __pycache__ -prune -exec rm -rf {} +
	@if [ -d runs ]; then echo "Kept: runs/ (your results)."; fi

# An interrupted first install has no stamp and starts again from an empty .venv; an interrupted update keeps its old
# stamp and is done again.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "error: PYTHON: $(PYTHON) ($$($(PYTHON) --version 2>&1)): Python 3.11 or newer, e.g. make PYTHON=python3.12" >&2; \
	  exit 2; }
	@if [ -e $@ ]; then \
	  echo "Updating .venv (log: .venv/pip.log)."; \
	else \
	  echo "Setting up .venv: a minute or two, about 6 GB, most of it PyTorch (log: .venv/pip.log)."; \
	  $(PYTHON) -m venv --clear .venv; \
	fi
	@$(PIP_INSTALL) -e '.[$(EXTRAS)]'
	@touch $@
	@echo "Ready: .venv"

$(READY_BENCH): $(READY)
	@echo "Adding the benchmarks' own dependencies to .venv."
	@$(PIP_INSTALL) -e '.[$(EXTRAS),bench]'
	@touch $@
