# The commands of Tributary. `make` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin

# Parameters of `make run`; empty means the settings file's.
SOURCE ?=
DATA ?=
FROM ?=
TO ?=
VAR ?= var

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true
STATE := TRIBUTARY_VAR="$(VAR)" $(if $(SOURCE),TRIBUTARY_SOURCE__PRESET="$(SOURCE)") \
	$(if $(DATA),TRIBUTARY_SOURCE__DATA="$(DATA)")

.PHONY: help run summary publish rollback approve test lint clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

.venv/run: pyproject.toml
	@echo "Installing the environment into .venv: a few minutes, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --editable .
	@touch $@

.venv/dev: .venv/run
	@echo "Installing the tools for tests into .venv"
	@$(BIN)/pip install -qq --editable ".[dev]"
	@touch $@

run: .venv/run  ## Days of logs through the real DAG: SOURCE= DATA= FROM= TO= VAR=
	@$(STATE) TRIBUTARY_PROMOTION=auto $(BIN)/python -m tasks.run \
		$(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)")

summary: .venv/run  ## The last run's table again, or all figures at one K with intervals: VAR= [K=]
	@$(STATE) $(BIN)/python -m tasks.summary $(if $(K),--k "$(K)")

publish: .venv/run  ## Serve the champion now: VAR=
	@$(STATE) $(BIN)/python -m tasks.serve publish

rollback: .venv/run  ## Serve the release before the served one: VAR= [VERSION=]
	@$(STATE) $(BIN)/python -m tasks.serve rollback $(if $(VERSION),--version "$(VERSION)")

approve: .venv/run  ## Make the challenger the champion and serve it: VAR= [VERSION=]
	@$(STATE) $(BIN)/python -m tasks.serve approve $(if $(VERSION),--version "$(VERSION)")

lint: .venv/dev  ## Lint, format and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

test: lint  ## Lint, import rules and the whole test suite
	$(BIN)/pytest -n 2

clean:  ## Remove the environment and caches; the state folder stays
	rm -rf .venv build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
