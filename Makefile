# Thin on purpose: every line is a command that can be typed by hand.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed

.PHONY: help install test demo bench clean

help:
	@echo 'make install | test | demo | bench | clean   (PYTHON=python3.12 picks the interpreter of a new $(VENV))'

install: $(STAMP)

# The stamp is written last, so an install that stopped half-way is done again.
$(STAMP): setup.py requirements/constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pit_downstream needs Python 3.10 or newer, this is %d.%d; call make with PYTHON=/path/to/python3.10" % sys.version_info[:2])'
	@echo 'installing into $(VENV) (some gigabytes the first time)'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --constraint requirements/constraints.txt --editable '.[lite,report,test]'
	@touch $@

test: $(STAMP)
	$(PY) -m pytest

demo: $(STAMP)
	$(PY) -m pit_downstream.datasets.shapes data/shapes
	$(PY) tools/train.py configs/retinanet_pit_ti.py --bundled --work-dir work_dirs/demo
	$(PY) tools/test.py configs/retinanet_pit_ti.py work_dirs/demo/... --bundled --show-dir work_dirs/demo/show
	$(PY) tools/train.py configs/detr_pit_s.py --bundled --cfg-options ...

bench: $(STAMP)
	@set -e; for script in benchmarks/*.py; do echo "$(PY) $$script"; $(PY) "$$script"; done

clean:
	rm -rf build dist .pytest_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
