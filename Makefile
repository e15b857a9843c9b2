# `make` says what there is. Variables:
#   PYTHON=python3.12      the Python that makes the virtual environment, 3.11 or 3.12; gpu-check runs on it
#   VENV=.venv             where the virtual environment lies
#   TORCH_INDEX=URL        an index to take another build of PyTorch from, for instance for CUDA
#   FOLD=3 ARM=transfer    the cell that `make replicate` trains again, of PLAN=results/biped; SEED=0 for a
#                          stored run with its own seed instead of fresh ones
#   ARGS="-k biped"        further arguments of `make test`, `make bench`, `make soak`, `make gpu-check` and
#                          `make replicate`

PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
FOLD ?=
ARM ?= transfer
SEED ?=
PLAN ?= results/biped
ARGS ?=

BIN := $(VENV)/bin
# one stamp for each source of PyTorch, so that asking for another build installs it
STAMP := $(VENV)/.installed$(if $(TORCH_INDEX),-$(subst /,_,$(subst :,_,$(TORCH_INDEX))))

.DEFAULT_GOAL := help
.PHONY: help install quickstart test check bench soak gpu-check results replicate export docs clean

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## */\1\t/' | expand -t 14

install: $(STAMP)  ## make the virtual environment and install everything into it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || { \
	  echo "Python 3.11 or 3.12 is needed (dm_control has no later one), and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." \
	    "Name another: make install PYTHON=python3.12" >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { \
	  echo "no virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
# editable by path: the default finder loses to any folder of the name mtenvs, such as a clone, in the working directory
ifneq ($(TORCH_INDEX),)
	$(BIN)/pip install -c constraints.txt --force-reinstall --no-deps --index-url $(TORCH_INDEX) torch
endif
	$(BIN)/pip install -c constraints.txt --config-settings editable_mode=compat -e '.[train,sb3,bench,dm-control,offline,ray,video,docs,dev]'
	@touch $(STAMP) $(VENV)/.installed

quickstart: install  ## run a small leave-one-out on the bipeds and write its report
	$(BIN)/mtenvs loo Biped --preset quick --out runs/quickstart

test: install  ## run the tests
	$(BIN)/python -m pytest -n logical --dist loadfile --no-loadscope-reorder $(ARGS)

check: install  ## lint, formatting, types, directions of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -qq tests/test_imports.py

bench: install  ## measure speed beside the peers
	$(BIN)/python -m benchmarks $(ARGS)

soak: install  ## inject faults by the hundred, for an hour or two, and count what is lost
	$(BIN)/python -m benchmarks.soak $(ARGS)

# needs neither the virtual environment nor a network: PyTorch and the rest are found on the path
gpu-check:  ## measure and check all of it on a CUDA card, within nine minutes
	$(PYTHON) -m benchmarks.gpu $(ARGS)

results: install  ## rebuild every report, figure and table under results/ from the stored rows
	$(BIN)/mtenvs rebuild results

replicate: install  ## train a cell again and say whether it agrees: FOLD=3 [ARM=... SEED=... PLAN=results/...]
	@test -n "$(FOLD)$(filter joint%,$(ARM))" || { \
	  echo "which fold? For instance: make replicate FOLD=3 PLAN=$(PLAN)" >&2; exit 2; }
	$(BIN)/mtenvs replicate $(PLAN) $(if $(FOLD),--fold $(FOLD)) --arm $(ARM) $(if $(SEED),--same-seed $(SEED)) $(ARGS)

# the pictures last: they need OpenGL, as a display, EGL, or OSMesa (Debian: libosmesa6)
export: install  ## write what is made from the registry: assets/xml, docs/ and the README's table of families
	$(BIN)/mtenvs export
	$(BIN)/mtenvs tasks --markdown > docs/tasks.md
	$(BIN)/mtenvs table --columns > docs/rows.md
	$(BIN)/python -m benchmarks.performance
	$(BIN)/mtenvs tasks --readme README.md
	$(BIN)/mtenvs sheet --all docs

docs: install  ## build the pages of docs/ as a site into site/, with every link checked
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## remove caches and build outputs; the virtual environment and runs/ stay
	rm -rf build dist site *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mtenvs baselines harness benchmarks tests -name __pycache__ -type d -prune -exec rm -rf {} +
