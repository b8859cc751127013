# Everything a newcomer needs: `make demo` and `make test` set up what they need on first use.
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo test check lint types floors docs bench constraints clean

BIN := .venv/bin
# Two workers with one thread each: two cores are what we promise for, and torch's threads would fight the workers.
WORKERS ?= 2
ARGS ?=

help: ## show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

# One stamp per extra. It is newer than both files, or the set-up runs again.
.venv/.ready-%: pyproject.toml constraints.txt scripts/setup
	@scripts/setup $(filter-out base,$*)
	@touch $@

setup: .venv/.ready-test .venv/.ready-check .venv/.ready-docs ## everything for working on the project, into .venv

demo: .venv/.ready-base ## align the embedded model to the embedded people; the report is in runs/demo
	$(BIN)/accord demo $(ARGS)

test: .venv/.ready-test ## all tests and proofs (ARGS="-k dpo" for some)
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 \
		$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: lint types floors docs ## style, types, the floors of the house, documentation

lint: .venv/.ready-check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# With the test extras: types of optional libraries are checked too.
types: .venv/.ready-check .venv/.ready-test
	$(BIN)/pyright --warnings

floors: .venv/.ready-check
	$(BIN)/lint-imports

docs: .venv/.ready-docs ## this documentation, into docs/_build/html
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

bench: .venv/.ready-bench ## speed and memory, beside the peers where they do the same
	@set -e; for script in benchmarks/*.py; do \
		grep -q '__main__' $$script || continue; \
		echo "== $$script"; $(BIN)/python $$script $(ARGS); done

constraints: ## write constraints.txt anew from what is installed in .venv
	scripts/freeze

clean: ## remove what was built, but not .venv and runs
	rm -rf docs/_build docs/_generated .pytest_cache .ruff_cache .import_linter_cache
