# Everything a newcomer needs: `make demo` and `make test` install what they lack into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   ?= full
# The CPU build; on a GPU machine set TORCH to the build for its CUDA version.
TORCH  ?= torch==2.13.0
STAMP  := $(VENV)/.installed
DEV    := $(VENV)/.installed-dev
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help install demo test test-long check bench bench-canary bench-contracts bench-curation bench-drift bench-evaluation bench-forgetting bench-gate bench-loop bench-neardup bench-poisoning bench-privacy bench-scales bench-snapshots bench-training bench-training-plan up down clean

help:
	@echo "make demo              the whole loop on a real model (DEMO=short: acts 1 and 3)"
	@echo "make test              the tests; make test-long the longest of them"
	@echo "make check             format, lint, types"
	@echo "make up / make down    the stack on this machine"
	@echo "make bench             every benchmark, some hours; make bench-NAME for one"

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(DEV): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(STAMP)

demo: $(STAMP)
ifeq ($(DEMO),short)
	$(BIN)/tidemill demo --short
else
	$(BIN)/tidemill demo
endif

test: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not long"

test-long: $(DEV)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: bench-canary bench-gate bench-drift bench-contracts bench-neardup bench-curation bench-poisoning bench-snapshots \
  bench-loop bench-training bench-evaluation bench-forgetting bench-scales bench-privacy

bench-loop: $(STAMP)
	$(BIN)/python benchmarks/loop_banking77.py

bench-canary: $(STAMP)
	$(BIN)/python benchmarks/canary_sim.py

bench-drift: $(STAMP)
	$(BIN)/python benchmarks/drift.py

bench-curation: $(STAMP)
	$(BIN)/python benchmarks/curation.py

bench-neardup: $(STAMP)
	$(BIN)/python benchmarks/curation_neardup.py

bench-training: $(DEV)
	$(BIN)/python benchmarks/training_speed.py

bench-forgetting: $(STAMP)
	$(BIN)/python benchmarks/forgetting.py

bench-evaluation: $(STAMP)
	$(BIN)/python benchmarks/evaluation_speed.py

bench-training-plan: $(STAMP)
	$(BIN)/python benchmarks/training_plan.py

bench-gate: $(STAMP)
	$(BIN)/python benchmarks/gate.py
bench-scales: $(STAMP)
	$(BIN)/python benchmarks/scales.py
bench-privacy: $(DEV)
	$(BIN)/python benchmarks/privacy.py

bench-snapshots: $(STAMP)
	$(BIN)/python benchmarks/snapshot_stream.py

bench-contracts: $(STAMP)
	$(BIN)/python benchmarks/contracts.py

bench-poisoning: $(STAMP)
	$(BIN)/python benchmarks/poisoning.py

up: $(STAMP)
	$(BIN)/tidemill up

down: $(STAMP)
	$(BIN)/tidemill down

clean:
	rm -rf $(VENV) .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
