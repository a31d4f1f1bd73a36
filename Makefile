# Everything the project does, one target each; `make help` lists them.
# `run` and `test` set up what they need by themselves, in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := client/tickwire server tests examples bench protos/generate.py

.DEFAULT_GOAL := help
.PHONY: help setup run demo test torture check format protos bench bench-peers clean lock

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the environment in .venv, with the exact versions of constraints.txt

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tickwire needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[server,examples]" --group dev
	@touch $(STAMP)

run: setup ## Serve the solar system, play it, and show it live (Ctrl-C stops)
	$(BIN)/python -m examples.orrery

demo: setup ## A year of the solar system over gRPC, measured against the ephemeris
	$(BIN)/tickwire demo --days 365 --out out/orrery.png

test: setup ## Run the tests
	$(BIN)/python -m pytest

torture: setup ## New examples for property tests, then strangers, power cuts and crashes for MINUTES=10; SEED=n repeats one
	$(BIN)/python -m pytest -q --hypothesis-profile=new $(shell grep -rl '^from hypothesis import' tests)
	TICKWIRE_TORTURE_S=$$(( $(or $(MINUTES),10) * 60 )) $(if $(SEED),TICKWIRE_TORTURE_SEED=$(SEED)) \
	  $(BIN)/python -m pytest -s --timeout 0 tests/hostile tests/system/test_power_cut.py tests/system/test_crash_matrix.py \
	  tests/system/test_failed_sync.py tests/engine/storage/test_damage.py

check: setup ## Format, lint, types, import contracts, protos, generated code
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code protos --path protos/tickwire
	$(BIN)/python protos/generate.py --check

format: setup ## Format what `check` checks
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/buf format --write protos --path protos/tickwire

protos: setup ## Generate client/tickwire/v1 from protos/
	$(BIN)/python protos/generate.py

bench: setup ## Print the figures of our own benchmarks
	$(BIN)/python -m bench

bench-peers: setup ## The same beside archetype-ecs, Redis Streams and NATS JetStream, as far as they can be installed
	@test -x .venv-peers/bin/python || python3.12 -m venv .venv-peers || echo "archetype-ecs needs python3.12" >&2
	@test ! -x .venv-peers/bin/python || .venv-peers/bin/python -m pip install --quiet archetype-ecs==0.6.3
	@test -x .venv-brokers/bin/python || $(PYTHON) -m venv .venv-brokers
	@.venv-brokers/bin/python -m pip install --quiet redis==8.1.0 nats-py==2.16.0
	@command -v redis-server >/dev/null || apt-get install --yes --quiet redis-server \
	  || echo "redis-server is not here and could not be installed: apt-get install redis-server" >&2
	@command -v nats-server >/dev/null || test -x .venv-brokers/bin/nats-server \
	  || GOBIN=$(CURDIR)/.venv-brokers/bin go install github.com/nats-io/nats-server/v2@v2.10.29 \
	  || echo "nats-server is not here and could not be built: it needs Go" >&2
	$(BIN)/python -m bench.peers --archetype .venv-peers/bin/python --brokers .venv-brokers/bin/python

lock: setup ## Write constraints.txt anew from the newest versions that pyproject.toml allows
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[server,examples]" --group dev
	{ echo "# Exact versions for reproducible installs; written by \`make lock\`."; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v '^-e'; } > constraints.txt

clean: ## Remove environments, caches and outputs
	rm -rf $(VENV) .venv-protos .venv-peers .venv-brokers out dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
