# Everything a user types; `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where things go, and which Python builds the environment.
VENV ?= .venv
WORKDIR ?= runs/quickstart
DATA_DIR ?= data
# `make photos`: a folder of pictures, or several with `:` between them, and
# what to search them for.
PICTURES ?=
QUERY ?=
PY ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
        $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
        2>/dev/null && echo $$p && break; done)
# A CPU build of PyTorch for the tests that read its files. Where the package
# index serves CUDA builds only, this is several GB: give a wheel or another
# version, or nothing (TORCH=) to skip those tests.
TORCH ?= torch==2.13.0
# More flags for the program that a target runs, as a shell reads them.
ARGS ?=

# The others reach their program through the environment, letter by letter: no
# shell and no make looks for quotes, spaces or `$` in a folder's name.
HAS_WORKDIR := $(filter-out file,$(origin WORKDIR))
override WORKDIR := $(value WORKDIR)
override DATA_DIR := $(value DATA_DIR)
override PICTURES := $(value PICTURES)
override QUERY := $(value QUERY)
export WORKDIR DATA_DIR PICTURES QUERY

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install \
       $(if $(V),,--quiet) --constraint=constraints.txt

.PHONY: help setup photos quickstart rerank ablation serve test fuzz bench \
        lint docs clean

help:  ## List the targets.
	@echo 'Targets:'
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' \
	  $(firstword $(MAKEFILE_LIST))
	@echo "Variables: WORKDIR=$$WORKDIR DATA_DIR=$$DATA_DIR" 'VENV=$(VENV)' \
	  'PY=$(PY) TORCH=$(TORCH) ARGS=flags V=1 (show every step of pip)'

setup: $(VENV)/.run  ## Make the environment with what the project needs.

photos: setup  ## Search your own pictures in minutes: PICTURES=FOLDER.
	@$(BIN)/python -m m3p_jax.recipes.photos --pictures="$$PICTURES" \
	  --data_dir="$$DATA_DIR" $(if $(HAS_WORKDIR),--workdir="$$WORKDIR") \
	  $${QUERY:+--query="$$QUERY"} $(ARGS)

quickstart: setup  ## Data, pre-training, fine-tuning, evaluation, report.
	@$(BIN)/python -m m3p_jax.recipes.quickstart --workdir="$$WORKDIR" \
	  --data_dir="$$DATA_DIR" $(ARGS)

rerank: setup  ## Re-rank the quickstart's other settings as well.
	@$(BIN)/python -m m3p_jax.recipes.quickstart --workdir="$$WORKDIR" \
	  --data_dir="$$DATA_DIR" --rerank_all $(ARGS)

ablation: setup  ## Code-switching on, off and shuffled, over several seeds.
	@$(BIN)/python -m m3p_jax.recipes.ablation --workdir="$$WORKDIR" \
	  --data_dir="$$DATA_DIR" $(ARGS)

serve: setup $(VENV)/.demo  ## Search the quickstart's pictures in the browser.
	@$(BIN)/python main.py --mode=serve --workdir="$$WORKDIR" $(ARGS)

test: $(VENV)/.demo $(VENV)/.dev $(VENV)/.torch  ## Run the whole test suite.
	@$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile \
	  --no-loadscope-reorder $(ARGS)

fuzz: $(VENV)/.dev  ## Read 10,000 damaged files of every format (an hour).
	@M3P_JAX_FUZZ=10000 $(BIN)/python -m pytest -n auto --maxprocesses=4 \
	  tests/test_fuzz.py $(ARGS)

bench: $(VENV)/.bench  ## Measure against PyTorch: one table, under an hour.
	@$(BIN)/python -m benchmarks.run $(ARGS)

lint: $(VENV)/.dev  ## Check the style and the types.
	@$(BIN)/ruff check .
	@$(BIN)/mypy

docs: $(VENV)/.dev  ## Build the documentation into build/docs.
	@$(BIN)/python -m docs.build

clean:  ## Delete the environment and the tools' caches; data and runs stay.
	rm -rf '$(VENV)' .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@'$(PY)' -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
	  2>/dev/null || { echo 'error: no Python 3.11, 3.12 or 3.13 found' \
	    '(PY=$(PY)); name one: make setup PY=/path/to/python3.11' >&2; exit 2; }
	@'$(PY)' -c 'import ensurepip' 2>/dev/null || { \
	  echo 'error: $(PY) cannot make virtual environments; on Debian or' \
	    'Ubuntu: apt-get install python3-venv' >&2; exit 2; }
	@echo 'Making the environment $(VENV) with $(PY)' >&2
	@'$(PY)' -m venv --clear '$(VENV)'

$(VENV)/.run: requirements.txt constraints.txt | $(BIN)/python
	@echo 'Installing requirements.txt (about 550 MB to download, once)' >&2
	@$(PIP) --requirement=requirements.txt
	@touch $@

$(VENV)/.demo: requirements-demo.txt constraints.txt $(VENV)/.run
	@echo 'Installing requirements-demo.txt' >&2
	@$(PIP) --requirement=requirements-demo.txt
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-docs.txt constraints.txt \
  $(VENV)/.run
	@echo 'Installing requirements-dev.txt and requirements-docs.txt' >&2
	@$(PIP) --requirement=requirements-dev.txt \
	  --requirement=requirements-docs.txt
	@touch $@

$(VENV)/.bench: requirements-bench.txt constraints.txt $(VENV)/.torch
	@echo 'Installing requirements-bench.txt' >&2
	@$(PIP) --requirement=requirements-bench.txt
	@touch $@

$(VENV)/.torch: $(VENV)/.run
	@if [ -n '$(TORCH)' ] && ! $(BIN)/python -c 'import torch' 2>/dev/null; \
	then echo 'Installing $(TORCH) for the tests' >&2; $(PIP) '$(TORCH)'; fi
	@touch $@
