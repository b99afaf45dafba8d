# Thin on purpose: every line is a command that can be typed by hand.
PYTHON ?= python3
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
DEMO := work_dirs/demo
DETECTOR := --model retinanet_pit_ti --weights $(DEMO)/retinanet
SMALL := 'pit_ti(img_size=64,num_classes=4)'
CLASSIFIER := --model $(SMALL) --weights $(DEMO)/classifier/weights.pth --data data/shapes/classification/val
KEPT := --output-dir $(DEMO)/records
WORKERS ?= 2

.PHONY: help install lint test test-slow test-numeric demo bench clean

help:
	@echo 'make install | lint | test | test-slow | test-numeric | demo | bench | clean   (PYTHON=python3.12 picks the interpreter of a new $(VENV))'

install: $(STAMP)

# The stamp is written last, so an install that stopped half-way is done again.
$(STAMP): setup.py requirements/constraints.txt
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pit_downstream needs Python 3.10 or newer, this is %d.%d; call make with PYTHON=/path/to/python3.10" % sys.version_info[:2])'
	@echo 'installing into $(VENV) (some gigabytes the first time)'
	@$(PY) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --constraint requirements/constraints.txt --editable '.[test]'
	@$(PY) -m pip install --quiet --no-deps torchattacks==3.5.1  # an oracle of tests; its requests~=2.25 is not ours
	@touch $@

# ruff's rules are in ruff.toml, mypy's in setup.cfg.
lint: $(STAMP)
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --no-cache

# A process per core; each test file stays in one of them. More of them need more memory: some 3 GiB each.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile

# At most 30 minutes on two cores: the wheel, the commands of the documentation, full fixtures, and two cells of the
# matrix of test-numeric: no vector instructions, and those of an old CPU with two threads.
test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest -m slow -n $(WORKERS) --dist loadfile
	$(MAKE) test-numeric NUMERIC=ATEN_CPU_CAPABILITY=default THREADS=1
	$(MAKE) test-numeric NUMERIC=MKL_CBWR=COMPATIBLE THREADS=2

# The tests marked `numeric` as other CPUs would run them, with one thread and with two; tests/tolerances.py has the reasons.
# PyTorch, oneDNN and MKL choose instructions by themselves; MKL_ENABLE_INSTRUCTIONS has an effect on Intel's CPUs alone,
# MKL_CBWR=COMPATIBLE gives the sums of an old one on every CPU.
NUMERIC := ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 ATEN_CPU_CAPABILITY=avx512 ONEDNN_MAX_CPU_ISA=AVX2 \
           MKL_ENABLE_INSTRUCTIONS=AVX2 MKL_CBWR=COMPATIBLE

THREADS := 1 2

test-numeric: $(STAMP)
	@set -e; for setting in $(NUMERIC); do for threads in $(THREADS); do \
	    echo "$$setting OMP_NUM_THREADS=$$threads"; \
	    env $$setting OMP_NUM_THREADS=$$threads $(PY) -m pytest -q -m 'numeric and not slow' -n $$(($(WORKERS) / $$threads)) \
	        --dist loadfile; \
	done; done

# Trains a detector and a classifier on drawn images, measures both, and writes a page about them.
demo: $(STAMP)
	$(PY) -m pit_downstream.datasets.shapes data/shapes
	$(PY) -m pit_downstream.datasets.shapes data/shapes_faint --contrast 0.3
	$(PY) tools/train.py retinanet_pit_ti --bundled --work-dir $(DEMO)/retinanet --resume \
	    --cfg-options train_cfg.max_epochs=12
	$(PY) tools/test.py retinanet_pit_ti $(DEMO)/retinanet --bundled --work-dir $(DEMO)/test --show-dir $(DEMO)/pictures
	$(PY) tools/eval_coco_c.py $(DETECTOR) --bundled --limit 30 --corruptions gaussian_noise fog --severities 1 3 5 $(KEPT)
	$(PY) tools/eval_adversarial.py $(DETECTOR) --bundled --limit 10 --attacks noise 'pgd(steps=10)' \
	    --epsilons 4/255 8/255 16/255 $(KEPT)
	$(PY) tools/show_detections.py $(DETECTOR) --bundled --image 4 --output $(DEMO)/pictures/robust_detections.png
	$(PY) tools/train_classifier.py cifar10_pit_ti --bundled --work-dir $(DEMO)/classifier --resume
	$(PY) tools/eval_imagenet_c.py $(CLASSIFIER) --corruptions gaussian_noise fog contrast $(KEPT)
	$(PY) tools/eval_shifts.py $(CLASSIFIER) --shifts shift_faint=data/shapes_faint/classification/val $(KEPT)
	$(PY) tools/eval_adversarial.py $(CLASSIFIER) --limit 40 --attacks noise fgsm 'pgd(steps=20)' apgd $(KEPT)
	$(PY) tools/analyze_attention.py --model $(SMALL) --weights $(DEMO)/classifier/weights.pth --bundled --limit 32 \
	    --output-dir $(DEMO)/attention
	$(PY) tools/make_report.py $(DEMO) --title 'Two PiTs trained on drawn images' --output $(DEMO)/report.html

# Every speed claim against its peer, and speed/README.md. QUICK=1: minutes, to see that it runs; nothing is written
# beside the scripts. BENCH='--imagenet DIR --coco-c CONFIG CHECKPOINT DIR': on real images and trained weights.
bench: $(STAMP)
	$(PY) -m speed.run $(if $(QUICK),--quick) $(BENCH)

clean:
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +
