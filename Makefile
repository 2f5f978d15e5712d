# The commands of Tributary. `make` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin

VAR ?= var

# What a person gives reaches the recipes as variables of the environment, letter by letter: neither make nor
# a shell reads into it.
GIVEN := SOURCE DATA FROM TO VAR K REPROCESS VERSION REASON FORCE DAY T KUAIRAND SHAPES METHODS BACKBONES SEEDS \
	LAST EVALUATED ITEMS VARIANTS TOWERS NAME RATE CLICKS CANDIDATES REDIS PEERS
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
override VAR := $(or $(value VAR),var)
export $(GIVEN)
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MLFLOW_DISABLE_TELEMETRY := true

FOLDER := export TRIBUTARY_VAR="$$VAR"; \
	[ -z "$$SOURCE" ] || export TRIBUTARY_SOURCE__PRESET="$$SOURCE"; \
	[ -z "$$DATA" ] || export TRIBUTARY_SOURCE__DATA="$$DATA";
# Once `make up` has run on a state folder, every command on it talks to its services.
SERVICES := [ ! -f "$$VAR/services/environment.sh" ] || . "$$VAR/services/environment.sh" || exit 1;
STATE := $(SERVICES) $(FOLDER)

.PHONY: help run summary truncation-study pi2i-study compare mnr-study up down status backfill nearline replay-clicks \
	flink-env mnr mnr-status mnr-savepoint mnr-stop publish rollback approve audit bench bench-env bench-training \
	bench-evaluation bench-retrieval bench-nearline bench-mnr test test-faults lint clean

help:  ## List the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

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
	@$(STATE) TRIBUTARY_PROMOTION=auto $(BIN)/python -m tasks.run $${FROM:+--from="$$FROM"} $${TO:+--to="$$TO"}

summary: .venv/run  ## The last run's table again, or all figures at one K with intervals: VAR= [K=]
	@$(STATE) $(BIN)/python -m tasks.summary $${K:+--k="$$K"}

truncation-study: .venv/run  ## Hit rate and candidates against T, on days that were run: DAY= | FROM= TO= [T=50,100] VAR=
	@$(STATE) $(BIN)/python -m tasks.truncation $${DAY:+--day="$$DAY"} $${FROM:+--from="$$FROM"} \
		$${TO:+--to="$$TO"} $${T:+--truncations="$$T"}

pi2i-study: .venv/run  ## PI2I's ablations, truncations and triggers on days that were run: DAY= | FROM= TO= [SEEDS= VARIANTS= T= TOWERS=] VAR=
	@$(STATE) $(BIN)/python -m tasks.pi2i_study_command $${DAY:+--day="$$DAY"} $${FROM:+--from="$$FROM"} $${TO:+--to="$$TO"} \
		$${SEEDS:+--seeds="$$SEEDS"} $${VARIANTS:+--variants="$$VARIANTS"} $${T:+--truncations="$$T"} \
		$${TOWERS:+--towers="$$TOWERS"}

compare: .venv/run  ## IncRec's tables on days that were run: [FROM= TO= | LAST=] [METHODS= BACKBONES= SEEDS= K= EVALUATED=] VAR=
	@$(STATE) $(BIN)/python -m tasks.compare_command $${FROM:+--from="$$FROM"} $${TO:+--to="$$TO"} \
		$${LAST:+--last="$$LAST"} $${EVALUATED:+--evaluated="$$EVALUATED"} $${METHODS:+--methods="$$METHODS"} \
		$${BACKBONES:+--backbones="$$BACKBONES"} $${SEEDS:+--seeds="$$SEEDS"} $${K:+--k="$$K"}

mnr-study: .venv/run  ## What other scenarios' rankings are worth, on days that were run: DAY= | FROM= TO= [K=] VAR=
	@$(STATE) $(BIN)/python -m tasks.mnr_study $${DAY:+--day="$$DAY"} $${FROM:+--from="$$FROM"} \
		$${TO:+--to="$$TO"} $${K:+--k="$$K"}

up: .venv/deploy  ## Start PostgreSQL, Redis, MLflow and Airflow as local processes: VAR= [SOURCE= DATA=]
	@$(STATE) $(BIN)/python -m services.up

down: .venv/deploy  ## Stop them; state stays: VAR=
	@$(FOLDER) $(BIN)/python -m services.down

status: .venv/run  ## How it stands, on one screen; fails where something needs a person: VAR=
	@$(STATE) $(BIN)/python -m services.status

backfill: .venv/run  ## Days through the running scheduler, oldest first: FROM= TO= [REPROCESS=failed|completed] VAR=
	@$(STATE) $(BIN)/python -m services.backfill $${FROM:+--from="$$FROM"} $${TO:+--to="$$TO"} \
		$${REPROCESS:+--reprocess="$$REPROCESS"}

nearline: .venv/run  ## Answer clicks with fresh PI2I candidates, until stopped: VAR= [NAME=]
	@$(STATE) exec $(BIN)/python -m services.click_worker $${NAME:+--name="$$NAME"}

replay-clicks: .venv/run  ## Send a day's clicks to the click worker: VAR= [DAY=] [RATE=20] [CLICKS=]
	@$(STATE) $(BIN)/python -m services.replay_clicks $${DAY:+--day="$$DAY"} $${RATE:+--rate="$$RATE"} \
		$${CLICKS:+--clicks="$$CLICKS"}

publish: .venv/run  ## Serve the champion now: VAR=
	@$(STATE) $(BIN)/python -m tasks.serve publish

rollback: .venv/run  ## Serve the release before the served one: VAR= [VERSION=] [REASON=]
	@$(STATE) $(BIN)/python -m tasks.serve rollback $${VERSION:+--version="$$VERSION"} $${REASON:+--reason="$$REASON"}

approve: .venv/run  ## Make the challenger the champion and serve it: VAR= [VERSION=] [REASON=] [FORCE=reason]
	@$(STATE) $(BIN)/python -m tasks.serve approve $${VERSION:+--version="$$VERSION"} \
		$${REASON:+--reason="$$REASON"} $${FORCE:+--force="$$FORCE"}

.venv-flink/flink: nearline/requirements-flink.txt
	@echo "Installing Flink into .venv-flink: half a minute, once"
	@$(PYTHON) -m venv .venv-flink
	@.venv-flink/bin/pip install -qq -r nearline/requirements-flink.txt
	@touch $@

flink-env: .venv-flink/flink  ## The environment of the streaming MNR job (842 MB; needs Java 17)

mnr: .venv/deploy .venv-flink/flink  ## Start Flink and the streaming MNR job, or go on: VAR=
	@$(STATE) $(BIN)/python -m services.mnr start

mnr-status: .venv/deploy  ## How the streaming job stands: VAR=
	@$(STATE) $(BIN)/python -m services.mnr status

mnr-savepoint: .venv/deploy  ## Take a savepoint of the running job: VAR=
	@$(STATE) $(BIN)/python -m services.mnr savepoint

mnr-stop: .venv/deploy  ## Stop it with a savepoint, from which `make mnr` goes on; FORCE=1 without one: VAR=
	@$(STATE) $(BIN)/python -m services.mnr stop $${FORCE:+--force="$$FORCE"}

.venv-bench/peers: Makefile
	@echo "Installing the peers of the benchmarks into .venv-bench"
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -qq implicit==0.7.3 recfarm==0.2.1 scipy==1.17.1 torch==2.13.0 torch-rechub==0.9.0
	@touch $@

# RecBole uses names that newer releases of numpy, pandas and scipy have dropped.
.venv-bench/recbole/peers: .venv-bench/peers
	@echo "Installing RecBole into .venv-bench/recbole"
	@$(PYTHON) -m venv .venv-bench/recbole
	@.venv-bench/recbole/bin/pip install -qq recbole==1.2.1 torch==2.13.0 numpy==1.26.4 pandas==1.5.3 \
		scipy==1.10.1 "setuptools<80"
	@touch $@

bench-env: .venv-bench/recbole/peers  ## The environments of the benchmarks' peers

bench: .venv/run bench-env  ## Swing beside its peers: [KUAIRAND=folder] [SHAPES=134k,1M,taobao_small]
	@$(BIN)/python -m benchmarks.swing $${KUAIRAND:+--kuairand="$$KUAIRAND"} $${SHAPES:+--shapes="$$SHAPES"}

bench-training: .venv/run bench-env  ## Training beside torch-rechub and RecBole: [KUAIRAND=folder] [BACKBONES=youtubednn,dssm]
	@$(BIN)/python -m benchmarks.training $${KUAIRAND:+--kuairand="$$KUAIRAND"} \
		$${BACKBONES:+--models="$$BACKBONES"}

bench-evaluation: .venv/run bench-env  ## Exact Hit@K beside RecBole's full sort: [ITEMS=7500,1000000]
	@$(BIN)/python -m benchmarks.evaluation $${ITEMS:+--items="$$ITEMS"}

bench-retrieval: .venv/run bench-env  ## PI2I's HR@K beside RecBole's SASRec, LightGCN and CORE, on days that were run: DAY= [TO= PEERS=core SEEDS=0,1] VAR=
	@$(STATE) $(BIN)/python -m benchmarks.retrieval --var="$$VAR" $${DAY:+--day="$$DAY"} $${TO:+--to="$$TO"} \
		$${PEERS:+--models="$$PEERS"} $${SEEDS:+--seeds="$$SEEDS"}

bench-nearline: .venv/run  ## Click to cache and reads under load, Redis and SQLite: [CANDIDATES=20000] [RATE=20] [REDIS=url]
	@$(BIN)/python -m benchmarks.nearline $${CANDIDATES:+--candidates="$$CANDIDATES"} $${RATE:+--rate="$$RATE"} \
		$${REDIS:+--redis="$$REDIS"}

audit: .venv/dev  ## Known vulnerabilities of the installed packages
	@timeout 120 $(BIN)/pip-audit --progress-spinner off --skip-editable > .pip-audit.log 2>&1; status=$$?; \
		grep -c "could not be audited" .pip-audit.log | sed 's/^/audit: packages that could not be looked up: /'; \
		grep -v "could not be audited" .pip-audit.log; \
		echo "audit: pip-audit ended with $$status; findings do not fail the build"

lint: .venv/dev  ## Lint, format and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

bench-mnr: .venv/deploy .venv-flink/flink  ## The streaming MNR job: events per second, latency, recovery
	@$(BIN)/python -m benchmarks.mnr

test: lint .venv-flink/flink  ## Lint, import rules and all tests but the slow ones on real services
	$(BIN)/pytest -n 2 -m "not slow"

test-faults: .venv/dev .venv-flink/flink  ## Inject every fault, with a table of counts; the slow tests on real services: an hour
	$(BIN)/pytest tests/faults
	$(BIN)/pytest --ignore tests/faults -m slow

clean:  ## Remove the environment and caches; the state folder stays
	rm -rf .venv .venv-bench .venv-flink .pip-audit.log build *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
