# make serve | test | check | bench | accept | demo
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?= configs/demo.toml

.PHONY: serve test check bench accept install docs
.DEFAULT_GOAL := serve

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt deploy/install.sh
	PYTHON=$(PYTHON) bash deploy/install.sh $(VENV)
	touch $@

serve: install
	$(BIN)/reasond serve $(CONFIG) --host $(HOST) --port $(PORT)

test: install
	$(BIN)/python -m pytest -m "not gpu and not accept"

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
