# Each target installs what it needs into .venv. Needed beforehand: git, make and Python 3.11 (or later).
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
STAMP := $(VENV)/.installed
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Real images and public weights that some tests want; where they are missing these tests are skipped and say so.
ifneq ($(wildcard ../shared/data),)
export SEMIML_DATA ?= $(abspath ../shared/data)
endif
ifneq ($(wildcard ../shared/weights),)
export SEMIML_WEIGHTS ?= $(abspath ../shared/weights)
endif

.DEFAULT_GOAL := help
.PHONY: help demo test docs lab export bench bounds reliability clean

help:  ## what can be made (this list)
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

$(STAMP): settings.ini setup.py pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed: install it, or run make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): PyTorch is large, so the first time takes some minutes"
	$(PY) -m pip install --quiet --no-compile --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(STAMP)  ## a lot of simulated images to demo/report.html; real ones to a diffusion model, demo/synthetic.html
	$(PY) tools/demo.py --out demo

test: $(STAMP)  ## run every notebook and tests/, make the site, print the counts
	$(PY) tools/test.py

docs: $(STAMP)  ## the site, into _docs/
	$(PY) tools/docs.py site

lab: $(STAMP)  ## JupyterLab on the notebooks, with the kernel semiml
	$(PY) -m ipykernel install --prefix $(VENV) --name semiml --display-name semiml
	$(BIN)/jupyter lab --notebook-dir=nbs

export: $(STAMP)  ## notebooks -> semiml/ and README.md, and clean the notebooks
	$(BIN)/nbdev_export
	$(BIN)/nbdev_clean
	$(PY) tools/docs.py readme

bench: $(STAMP)  ## speed of the simulators and of the methods, into nbs/results/speed/
	$(PY) tools/bench.py --out nbs/results/speed
	$(PY) tools/bench.py --out nbs/results/speed --semisup
	$(PY) tools/bench_steps.py --out nbs/results/speed
	$(PY) tools/bench_shards.py --out nbs/results/scaleout
	$(PY) tools/bench_ddpm.py --minutes 2 --out nbs/results/speed
	@if $(PY) -c 'import lightly' 2>/dev/null; then $(PY) tools/bench.py --out nbs/results/speed --semssl; else echo "no lightly: pretraining is not timed"; fi
	@if [ -n "$$SEMIML_WEIGHTS" ]; then $(PY) tools/bench.py --out nbs/results/speed --sesami; else echo "no SEMIML_WEIGHTS: SeSAMI is not timed"; fi

bounds: $(STAMP)  ## do the lowest versions that settings.ini allows work? (installs them elsewhere)
	$(PY) tools/lower_bounds.py

reliability: $(STAMP)  ## kills, faults and broken files, into nbs/results/reliability/
	$(PY) tools/reliability.py --out nbs/results/reliability

clean:  ## remove what was built (.venv stays)
	rm -rf _docs _proc build dist demo .pytest_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
