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

# Once `make up` has run on a state folder, every command on it talks to its services.
SERVICES := $(VAR)/services/environment.sh
STATE := $(if $(wildcard $(SERVICES)),. "$(SERVICES)" && )env $(STATE)

.PHONY: help run summary truncation-study up down status backfill publish rollback approve audit bench bench-env \
	test test-faults lint clean

help:  ## List the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

.venv/run: pyproject.toml
	@echo "Installing the environment into .venv: a few minutes, once"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -qq --editable .
	@touch $@

.venv/deploy: .venv/run
	@echo "Installing the services into .venv"
	@$(BIN)/pip install -qq --editable ".[deploy]"
	@touch $@

.venv/dev: .venv/deploy
	@echo "Installing the tools for tests into .venv"
	@$(BIN)/pip install -qq --editable ".[dev]"
	@touch $@

run: .venv/run  ## Days of logs through the real DAG: SOURCE= DATA= FROM= TO= VAR=
	@$(STATE) TRIBUTARY_PROMOTION=auto $(BIN)/python -m tasks.run \
		$(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)")

summary: .venv/run  ## The last run's table again, or all figures at one K with intervals: VAR= [K=]
	@$(STATE) $(BIN)/python -m tasks.summary $(if $(K),--k "$(K)")

truncation-study: .venv/run  ## Hit rate and candidates against T, on days that `make run` has filled: DAY= | FROM= TO= [T=50,100] VAR=
	@$(STATE) $(BIN)/python -m tasks.truncation $(if $(DAY),--day "$(DAY)") $(if $(FROM),--from "$(FROM)") \
		$(if $(TO),--to "$(TO)") $(if $(T),--truncations "$(T)")

up: .venv/deploy  ## Start PostgreSQL, Redis, MLflow and Airflow as local processes: VAR= [SOURCE= DATA=]
	@$(STATE) $(BIN)/python -m services.up

down: .venv/deploy  ## Stop them; state stays: VAR=
	@$(STATE) $(BIN)/python -m services.down

status: .venv/run  ## Days, champion, served release, stale partitions, quarantine on one screen: VAR=
	@$(STATE) $(BIN)/python -m services.status

backfill: .venv/run  ## Days through the running scheduler, oldest first: FROM= TO= [REPROCESS=failed|completed] VAR=
	@$(STATE) $(BIN)/python -m services.backfill $(if $(FROM),--from "$(FROM)") $(if $(TO),--to "$(TO)") \
		$(if $(REPROCESS),--reprocess "$(REPROCESS)")

publish: .venv/run  ## Serve the champion now: VAR=
	@$(STATE) $(BIN)/python -m tasks.serve publish

rollback: .venv/run  ## Serve the release before the served one: VAR= [VERSION=] [REASON=]
	@$(STATE) $(BIN)/python -m tasks.serve rollback $(if $(VERSION),--version "$(VERSION)") \
		$(if $(REASON),--reason "$(REASON)")

approve: .venv/run  ## Make the challenger the champion and serve it: VAR= [VERSION=] [REASON=] [FORCE=reason]
	@$(STATE) $(BIN)/python -m tasks.serve approve $(if $(VERSION),--version "$(VERSION)") \
		$(if $(REASON),--reason "$(REASON)") $(if $(FORCE),--force "$(FORCE)")

.venv-bench/peers: Makefile
	@echo "Installing the peers of the benchmarks into .venv-bench"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -qq implicit==0.7.3 recfarm==0.2.1 scipy==1.17.1
	@touch $@

bench-env: .venv-bench/peers  ## The environment of the benchmarks' peers

bench: .venv/run bench-env  ## Swing beside its peers: [KUAIRAND=folder] [SHAPES=134k,1M,taobao_small]
	@$(BIN)/python -m benchmarks.swing $(if $(KUAIRAND),--kuairand "$(KUAIRAND)") \
		$(if $(SHAPES),--shapes "$(SHAPES)")

audit: .venv/dev  ## Known vulnerabilities of the installed packages
	@timeout 120 $(BIN)/pip-audit --progress-spinner off --skip-editable > .pip-audit.log 2>&1; status=$$?; \
		grep -c "could not be audited" .pip-audit.log | sed 's/^/audit: packages that could not be looked up: /'; \
		grep -v "could not be audited" .pip-audit.log; \
		echo "audit: pip-audit ended with $$status; findings do not fail the build"

lint: .venv/dev  ## Lint, format and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

test: lint  ## Lint, import rules and the whole test suite
	$(BIN)/pytest -n 2 -m "not slow"

test-faults: .venv/dev  ## Inject every fault, with a table of counts; the slow tests on real services: an hour
	$(BIN)/pytest tests/faults
	$(BIN)/pytest --ignore tests/faults -m slow

clean:  ## Remove the environment and caches; the state folder stays
	rm -rf .venv .venv-bench .pip-audit.log build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
