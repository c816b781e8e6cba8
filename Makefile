# Every target sets up what it needs; `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
.DEFAULT_GOAL := help
.PHONY: help setup run demo test lint types cover fuzz bench chaos services stop openapi clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(READY) ## the virtual environment, with Rebound and the tools in it

$(RUNS): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[all]'
	@touch $@

$(READY): $(RUNS) requirements-dev.txt
	$(PIP) -r requirements-dev.txt
	@touch $@

run: $(RUNS) ## the demo: retries, a success and a dead letter, live; then the service on :8080
	@$(BIN)/rebound demo

demo: run

test: $(READY) ## all tests; Redis, Kafka where redis-server, Java, Maven are (root: they are installed)
	@sh tests/servers.sh
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY) ## ruff, formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY) ## mypy, strict
	$(BIN)/mypy

cover: $(READY) ## tests with coverage of lines and branches, at least 90 %; writes the figure to the docs
	@sh tests/servers.sh
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --fail-under=90 --skip-covered
	$(BIN)/python docs/coverage.py

fuzz: $(READY) ## bad input by the ten thousand; SHORT=1: the same in a minute; SEED=n: the same again
	$(BIN)/python -m tests.fuzz $(if $(SHORT),--short)

bench: $(READY) ## the figures, each beside its target
	@sh tests/servers.sh redis-server=redis-server nginx=nginx-light wrk=wrk java=default-jre-headless mvn=maven
	$(BIN)/python -m bench

chaos: $(READY) ## faults under load, every task accounted for; writes its table (FORM=--short: not)
	@sh tests/servers.sh redis-server=redis-server faketime=faketime
	$(BIN)/python -m chaos $(FORM)

services: $(READY) ## a Kafka to try things with, on :9092 (needs Java >= 17 and Maven)
	@sh tests/servers.sh java=default-jre-headless mvn=maven
	@$(BIN)/python -m tests.services start

stop: $(READY) ## end what `make services` started
	@$(BIN)/python -m tests.services stop

openapi: $(READY) ## write openapi.yaml anew
	$(BIN)/python -m rebound.adapters.api.openapi > openapi.yaml

.PHONY: docs
docs: openapi ## write openapi.yaml and docs/settings.md anew
	$(BIN)/python -m rebound.settings.table > docs/settings.md

clean: ## remove what the targets made
	@[ ! -e tests/services/target/running.json ] || $(MAKE) --no-print-directory stop
	rm -rf $(VENV) bench/.peers tests/services/target build dist .coverage* .mypy_cache .ruff_cache .pytest_cache
