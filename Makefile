# make serve | test | check | bench | accept | demo
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?= configs/demo.toml

.PHONY: serve test check bench accept install docs demo-hybrid
.DEFAULT_GOAL := serve

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt deploy/install.sh
	PYTHON=$(PYTHON) bash deploy/install.sh $(VENV)
	touch $@

serve: install
	$(BIN)/reasond serve $(CONFIG) --host $(HOST) --port $(PORT)

test: install
	$(BIN)/python -m pytest tests/controllers --cov --cov-report=term:skip-covered --cov-fail-under=100
	$(BIN)/python -m pytest -m "not gpu and not accept" --ignore=tests/controllers

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

docs: install
	$(BIN)/python -m tests.docs.files

# Trains demo/hybrid anew, in at most 20 minutes. One thread: on a shared machine more are slower, and the sums differ.
TRAIN := OMP_NUM_THREADS=1 $(BIN)/reasond-train
demo-hybrid: install
	$(TRAIN) hft configs/train/hybrid_hft.toml
	$(TRAIN) evaluate configs/train/hybrid_evaluate.toml --set model.path=runs/hybrid_hft --set out=demo/hybrid/hft
	cp runs/hybrid_hft/recipe.json runs/hybrid_hft/metrics.jsonl demo/hybrid/hft/
	$(TRAIN) hgpo configs/train/hybrid_hgpo.toml
	$(TRAIN) evaluate configs/train/hybrid_evaluate.toml
