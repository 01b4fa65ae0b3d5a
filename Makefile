# One command sets up, one checks everything; `make` lists them.
PYTHON ?= python3
PIP_ARGS ?=
BIN := .venv/bin
# A stamp a set of extras, newer than pyproject.toml once that set is installed.
RUN_STAMP := .venv/.installed-run
TEST_STAMP := .venv/.installed-test

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("trainlet needs Python 3.11 or newer") if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv .venv

$(RUN_STAMP): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[onnx,tflite,demo,mcu]'
	@touch $@

$(TEST_STAMP): pyproject.toml | .venv/bin/python
	$(BIN)/python -m pip install --quiet $(PIP_ARGS) -e '.[test]'
	@touch $@ $(RUN_STAMP)

setup: $(RUN_STAMP) ## make .venv and install trainlet with what the demo needs

demo: $(RUN_STAMP) ## adapt a network to a new person, in a program for a microcontroller
	$(BIN)/python -m examples.watch_activity

test: $(TEST_STAMP) ## all tests
	$(BIN)/python -m pytest -n 2

check: $(TEST_STAMP) ## style, types, fast tests, C warnings as errors
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 -m 'not slow'

bench: $(TEST_STAMP) ## the benchmarks, as tables; make bench WHAT=list names more
	$(BIN)/python -m benchmarks $(WHAT)

clean: ## remove what was built and cached, keep .venv and runs
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
