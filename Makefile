# The commands a newcomer needs; `make` alone lists them. The virtual environment is created at first use.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV   ?= .venv
CORES  ?= all
EXTRAS ?=
# Given by users on the command line; they reach the recipes through the environment, so that blanks and quotes survive.
export CONFIG ?= workflows/config/demo.yaml
export SET ?=

# None of our packages is installed: Python imports them from this checkout.
export PYTHONPATH := $(CURDIR)
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# pip compiles nothing here (--no-compile, below): whoever imports a module first must be allowed to keep the result.
unexport PYTHONDONTWRITEBYTECODE

# The name of a stamp carries a checksum of the files that decide an installation, so that nothing is installed twice.
HASH := $(shell cat constraints.txt pyproject.toml | cksum | tr ' ' '-')
BASE_READY := $(VENV)/.base-$(HASH)
DEMO_READY := $(VENV)/.demo-$(HASH)
TEST_READY := $(VENV)/.test-$(HASH)
LIST = import sys, tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	print(*p["dependencies"], *(r for e in sys.argv[1:] for r in p["optional-dependencies"][e]), sep="\n")
INSTALL = python -c '$(LIST)' $(1) | $(or $(2),cat) | python -m pip install --no-compile --disable-pip-version-check \
	-c constraints.txt -r /dev/stdin | { grep -v '^Requirement already satisfied' || true; }
# Needed by the model and the report only: the first stage of a fresh clone runs while they are installed.
# torch needs a newer setuptools than that of a new environment: nothing may be replaced beside a running stage.
WITHOUT_LATER = { grep -vE '^(cartopy|matplotlib|safetensors|torch)'; echo setuptools; }
STAGES = import importlib, os; from pipeline.config import load, split_settings; \
	stages = load(os.environ["CONFIG"], split_settings(os.environ["SET"])).stages
FIRST = $(STAGES); print(stages[0].name)
# Imports once what the stages import, so that it is compiled before they need it.
COMPILE = $(STAGES); [importlib.import_module(stage.module) for stage in stages]
# In a JSON list: Snakemake reads options as YAML after it has stripped quotes, which would take a text with a colon apart.
LISTED = import json, os; print(json.dumps([os.environ["SET"]]))
# One core more is given away than there are, so that a stage of one thread runs on what the stage beside it leaves idle.
NUM_CORES = $(if $(filter all,$(CORES)),$(shell nproc 2>/dev/null || getconf _NPROCESSORS_ONLN),$(CORES))
SNAKEMAKE = snakemake -s workflows/Snakefile --workflow-profile workflows/profiles/default \
	--cores $$(($(NUM_CORES) + ($(NUM_CORES) > 1))) --max-threads $(NUM_CORES) \
	--configfile "$$CONFIG" --config set="$$(python -c '$(LISTED)')"

.PHONY: help demo run begun rest test check lint types imports quick ranks bench paper setup clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile
	@echo '  with SET="training.steps=200 model.width=64" to override settings, CORES=2, ARGS="--dry-run" for Snakemake'

demo: export CONFIG := workflows/config/demo.yaml
demo: run ## the full pipeline on the embedded simulated atmosphere -> results/demo/report.html

run: $(if $(wildcard $(DEMO_READY)),,$(BASE_READY)) ## the same for another experiment: make run CONFIG=workflows/config/gfs_wind.yaml
	@python -m pipeline settings --config "$$CONFIG" --set "$$SET" > /dev/null
	@$(if $(wildcard $(DEMO_READY)),true,$(MAKE) -j2 $(if $(ARGS),,begun) rest)
	@$(SNAKEMAKE) $(ARGS)

rest: $(DEMO_READY)
	@python -c '$(COMPILE)'

begun:
	@$(SNAKEMAKE) --until "$$(python -c '$(FIRST)')"

test: $(TEST_READY) ## the full test suite
	@python -m pytest -n auto --maxprocesses 4 --dist loadgroup $(ARGS)

check: lint types imports quick ## style, types, import rules and the fast tests; under a minute

lint: $(TEST_READY)
	@ruff check . && ruff format --check . && hadolint Dockerfile

types: $(TEST_READY)
	@mypy

imports: $(TEST_READY)
	@lint-imports

# Without the tests marked `slow`; pyproject.toml says which those are.
quick: $(TEST_READY)
	@python -m pytest -q -n 2 -m "not slow" $(ARGS)

ranks: $(TEST_READY) ## only the tests that start several ranks
	@python -m pytest tests/model/parallel $(ARGS)

bench: $(TEST_READY) ## run every benchmark; results go to benchmarks/results
	@for script in $(filter-out %/digests.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; python "$$script" $(ARGS); done
	@python benchmarks/support/scaling_page.py

paper: $(TEST_READY) ## recompute the D-CHAG paper's figures with our cost model and write docs/paper.md; takes minutes
	@for name in gains memory sizes cluster pays; do echo "== $$name"; python -W ignore "benchmarks/paper/$$name.py" $(ARGS); done
	@python benchmarks/support/paper_page.py

setup: $(DEMO_READY) ## only install; EXTRAS="cloud cluster" adds these extras from pyproject.toml
	@$(if $(EXTRAS),$(call INSTALL,$(EXTRAS)),true)

clean: ## remove caches and results/demo; keep other results and the environment
	rm -rf results/demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BASE_READY): | $(VENV)/bin/pip
	@echo "installing what the first stage needs into $(VENV) (once; about a minute)"
	@$(call INSTALL,,$(WITHOUT_LATER))
	@rm -f $(VENV)/.base-* && touch $@

$(DEMO_READY): | $(VENV)/bin/pip
	@echo "installing what the demo needs into $(VENV) (once; one to three minutes)"
	@$(call INSTALL,)
	@rm -f $(VENV)/.demo-* && touch $@

$(TEST_READY): | $(VENV)/bin/pip
	@echo "installing what the tests need into $(VENV) (once; one to three minutes)"
	@$(call INSTALL,dev baselines cloud cluster)
	@rm -f $(VENV)/.demo-* $(VENV)/.test-* && touch $@ $(DEMO_READY)

# Uses the first interpreter that is new enough. venv installs pip last, so a killed attempt is repeated.
$(VENV)/bin/pip:
	@for candidate in "$(PYTHON)" python3 python3.13 python3.12 python3.11; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			"$$candidate" -m venv $(VENV) || { echo "error: $$candidate -m venv $(VENV) must work (Debian and Ubuntu: install python3-venv)" >&2; exit 2; }; \
			exit 0; \
		fi; \
	done; echo "error: Python must be 3.11 or newer, got $$("$(PYTHON)" --version 2>&1); name one: make PYTHON=/path/to/python3.12" >&2; exit 2
