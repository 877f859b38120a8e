# Nothing but Python 3.11+ and make is needed: the rest comes into .venv by itself.

BIN := .venv/bin
TORCH ?=
UPGRADE ?=
# A worker a core; tests that share a stack of servers share a worker.
PYTEST := $(BIN)/pytest -n auto --maxprocesses 4 --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lock contract clean

help: ## what there is
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: ## install everything into .venv; TORCH=cpu takes PyTorch's CPU build
	@sh deploy/setup.sh $(TORCH)

demo: setup ## start the whole stack and a Mem0, follow it, ask questions, stop
	@$(BIN)/hybrid-memory demo

test: setup ## the tests, real servers included
	$(PYTEST)

check: setup ## what CI runs: format, lint, types, imports, tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(PYTEST)

contract: setup ## write the JSON Schemas and the AsyncAPI page
	@$(BIN)/python -m pipeline.contract

# Hashes and no registry's address: whoever installs brings their own.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command 'make lock' $(UPGRADE)

lock: setup ## pin all packages anew; UPGRADE=--upgrade takes the newest
	$(COMPILE) --all-extras --group dev pyproject.toml --output-file requirements.lock
	grep '^uv==' requirements-uv.txt | sed 's/ .*//' | $(COMPILE) - --output-file requirements-uv.txt

clean: ## remove .venv and what tools leave behind
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
