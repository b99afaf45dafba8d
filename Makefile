# Thin on purpose: every line is a command that can be typed by hand.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := work_dirs/demo
WORKERS ?= 2

.PHONY: help install lint test demo bench clean

help:
	@echo 'make install | lint | test | demo | bench | clean   (PYTHON=python3.12 picks the interpreter of a new $(VENV))'

install: $(STAMP)

# The stamp is written last, so an install that stopped half-way is done again.
$(STAMP): setup.py requirements/constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pit_downstream needs Python 3.10 or newer, this is %d.%d; call make with PYTHON=/path/to/python3.10" % sys.version_info[:2])'
	@echo 'installing into $(VENV) (some gigabytes the first time)'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --constraint requirements/constraints.txt --editable '.[lite,report,test]'
	@$(PY) -m pip install --quiet --no-deps torchattacks==3.5.1  # an oracle of tests; its requests~=2.25 is not ours
	@touch $@

# ruff's rules are in ruff.toml, mypy's in setup.cfg.
lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m mypy

# A process per core; each test file stays in one of them. More of them need more memory: some 3 GiB each.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist loadfile

# Trains the PiT detector of the bundled data set, tests it, paints what it found; then some steps of DETR.
demo: $(STAMP)
	$(PY) -m pit_downstream.datasets.shapes data/shapes
	$(PY) tools/train.py configs/retinanet_pit_ti.py --bundled --work-dir $(DEMO)/retinanet
	$(PY) tools/train.py configs/detr_pit_s.py --bundled --work-dir $(DEMO)/detr --cfg-options \
	    train_cfg.max_epochs=1 train_cfg.val_interval=2 train_dataloader.dataset.indices=480
	$(PY) tools/test.py configs/retinanet_pit_ti.py $(DEMO)/retinanet --bundled --work-dir $(DEMO)/test \
	    --show-dir $(DEMO)/pictures
	@echo 'pictures: $(DEMO)/pictures (true boxes left, found ones right)'

# Every speed claim against its peer, and benchmarks/README.md. QUICK=1: minutes, to see that it runs; nothing is written
# beside the scripts. BENCH='--imagenet DIR --coco-c CONFIG CHECKPOINT DIR': on real pictures and trained weights.
bench: $(STAMP)
	$(PY) -m benchmarks.run $(if $(QUICK),--quick) $(BENCH)

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
