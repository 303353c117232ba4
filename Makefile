# Everything a developer types. `make` alone explains. No step needs more than Python, make and a package index.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
GEN := build/gen
PIP_INSTALL := -m pip install --disable-pip-version-check --require-virtualenv
SOURCES := $(wildcard protos/inferway clients services tests tools benchmarks examples)
IMAGE := build/contract.binpb
RELEASED := protos/inferway-released.binpb
ARGS ?=
ALONE := alone or chaos

.PHONY: help setup setup-dev up fleet test check types fmt gen lock bench bench-engine bench-streams release-image test-compose abuse chaos fuzz soak soak-loads overload stats rollout-laws clean

help: ## Show this text
	@echo "inferway: serves TensorFlow models over gRPC"
	@echo
	@echo "  make up              install into .venv, start everything and show a model at work (Ctrl-C stops)"
	@echo "  make test            install, check and run the whole test suite"
	@echo
	@echo "All targets:"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "Examples:"
	@echo "  make up ARGS='--data-dir /tmp/inferway --workers 2'"
	@echo "  make test ARGS='tests/unit -k queue'"
	@echo "  make setup PYTHON=python3.12"

setup: $(VENV)/.runtime ## Install what `inferway` needs into .venv
	@echo "setup: done"

setup-dev: $(VENV)/.dev ## Install what tests and checks need, too

up: setup ## Start registry, worker and gateway with a demo model; ARGS go to `inferway up`
	@exec $(BIN)/inferway up $(ARGS)

fleet: setup ## Vehicles on streams, in the terminal, and keys to break what answers them; ARGS='--redis URL' for all of them
	@exec $(BIN)/python -m examples.fleet $(ARGS)

test: setup-dev ## Run every check and every test; ARGS go to pytest
	@$(MAKE) --no-print-directory check
	@$(if $(strip $(ARGS)),exec $(BIN)/python -m pytest $(ARGS),$(in-two-steps))

check: setup-dev $(GEN)/.installed ## Lint, types, contract, imports, locks, stubs
	@echo "check: ruff"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@echo "check: locks"
	@$(BIN)/python tools/lock.py --check
	@echo "check: generated code is what the protos say"
	@$(GEN)/bin/python tools/gen_protos.py --check
	@echo "check: buf lint, buf breaking"
	@$(GEN)/bin/python tools/gen_protos.py --image $(IMAGE)
	@$(BIN)/buf lint $(IMAGE)
	@$(BIN)/buf breaking $(IMAGE) --against $(RELEASED)
	@echo "check: who imports whom"
	@$(BIN)/lint-imports --no-logo
	@echo "check: mypy --strict"
	@$(BIN)/mypy $(SOURCES)

types: setup-dev ## Run mypy alone
	@$(BIN)/mypy $(SOURCES)

fmt: setup-dev ## Format, and fix what can be fixed
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

gen: $(GEN)/.installed ## Regenerate the Python modules of the protos
	@$(GEN)/bin/python tools/gen_protos.py

lock: setup-dev ## Rewrite requirements/ from the pyproject files; ARGS=--upgrade takes the newest
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/lock.py $(ARGS)

bench: setup-dev ## Measure against baselines, calls first and then streams; ARGS go to the measure of calls
	@calls=0; $(BIN)/python benchmarks/run.py $(ARGS) || calls=$$?; $(BIN)/python benchmarks/streams.py && exit $$calls

bench-engine: setup-dev ## Measure the inference engine against TensorFlow in process
	@exec $(BIN)/python benchmarks/engine.py $(ARGS)

bench-streams: setup-dev ## Measure streams beside unary calls, and thousands at rest; ARGS='--quick' or ARGS=throughput for less
	@exec $(BIN)/python benchmarks/streams.py $(ARGS)

abuse: setup-dev ## A worker under a minute of everything at once; every answer is checked
	@INFERWAY_ABUSE_SECONDS=60 $(BIN)/python -m pytest -q -s --timeout 300 tests/e2e/test_abuse.py

chaos: setup-dev ## Break everything under load, the long way (half an hour), and print the figures; ARGS go to pytest
	@INFERWAY_CHAOS=long $(BIN)/python -m pytest -q -s -m chaos --timeout 1200 $(ARGS)

fuzz: setup-dev ## Fuzz every target for a minute; ARGS='--seconds 180 snapshot' for one, longer
	@$(BIN)/python -m tests.fuzz.run $(ARGS)

soak: setup-dev ## Half an hour of traffic and cancelled calls against a gateway, and what it holds; MINUTES=10 for less
	@$(BIN)/python -m tests.soak.gateway $(or $(MINUTES),30)

soak-loads: setup-dev ## Load and unload versions 1,000 times (TensorFlow 50), and count what is left behind
	@$(BIN)/python -m benchmarks.models build/soak tiny
	@$(BIN)/python -m tests.soak.loads litert build/soak/litert/tiny inline 1000
	@$(BIN)/python -m tests.soak.loads litert build/soak/litert/tiny process 1000
	@$(BIN)/python -m tests.soak.loads litert build/soak/litert/tiny group 1000
	@$(BIN)/python -m tests.soak.loads tensorflow build/soak/tensorflow/tiny process 50

bench-goodput: setup-dev ## Goodput under overload against fixed-window batchers, in virtual time
	@exec $(BIN)/python -m benchmarks.goodput $(ARGS)

overload: setup-dev ## Far more than a worker can do, for minutes, over sockets; print what becomes of it; ARGS='--seconds 10' for less
	@exec $(BIN)/python -m benchmarks.overload $(ARGS)

rollouts: setup-dev ## Bad and good versions under 200 calls a second, with real models; ARGS='broken good' for some of them
	@exec $(BIN)/python -m benchmarks.rollouts $(ARGS)

stats: setup-dev ## Thousands of simulated rollouts: how often their judge is wrong, how soon right; ARGS='--runs 40' for less
	@exec $(BIN)/python -m benchmarks.judge_stats $(ARGS)

rollout-laws: setup-dev ## What holds for every rollout, tried in 100,000 random steps; STEPS=1000000 for more
	@INFERWAY_ROLLOUT_STEPS=$(or $(STEPS),100000) $(BIN)/python -m pytest -q --timeout 3600 tests/unit/registry/test_rollout_laws.py

simulate: setup-dev ## Run the scheduler through thousands of new schedules in virtual time; SCHEDULES=20000 for more
	@INFERWAY_SIMULATED_SCHEDULES=$(or $(SCHEDULES),4000) $(BIN)/python -m pytest tests/unit/inference/test_simulation.py --timeout 3600 $(ARGS)

release-image: setup-dev $(GEN)/.installed ## At a release only: what the contract may not break from now on
	@$(GEN)/bin/python tools/gen_protos.py --image $(RELEASED)

test-compose: setup-dev ## Build and try the images; needs Docker
	@exec $(BIN)/python -m pytest -m compose tests/compose $(ARGS)

clean: ## Remove everything that make has made, .venv too
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What does not care who else works runs side by side, since much of it waits; then what measures, alone.
define in-two-steps
beside=0; alone=0; \
$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not ($(ALONE) or compose)' || beside=$$?; \
$(BIN)/python -m pytest -m '$(ALONE)' || alone=$$?; \
[ $$beside = 0 ] || echo "test: the first of the two runs failed; its summary is further up" >&2; \
[ $$beside = 0 ] && [ $$alone = 0 ] && echo "test: both runs passed"
endef

# A virtual environment of the right Python, or a sentence that says what is wrong.
$(VENV)/.made $(GEN)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "inferway needs Python 3.11, 3.12 or 3.13, and '$(PYTHON)' is: $$($(PYTHON) --version 2>/dev/null || echo 'not there')." >&2; \
	  echo "Name another one: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "This Python cannot make virtual environments; on Debian or Ubuntu: apt install python3-venv" >&2; exit 1; }
	@echo "setup: making $(@D) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(@D)
	@touch $@

OWN_PROJECTS := pyproject.toml protos/pyproject.toml clients/python/pyproject.toml

# Dependencies come pinned and hashed; our own three distributions never from an index.
define install
	@echo "setup: installing $(1) into $(VENV) (the first time takes a minute or two)"
	@$(BIN)/python $(PIP_INSTALL) --require-hashes $(foreach lock,$(1),-r requirements/$(lock).txt)
	@echo "setup: installing inferway itself"
	@$(BIN)/python $(PIP_INSTALL) --quiet --no-deps --no-build-isolation -e protos -e clients/python -e .
endef

$(VENV)/.runtime: $(VENV)/.made requirements/build.txt requirements/runtime.txt $(OWN_PROJECTS)
	$(call install,build runtime)
	@touch $@

$(VENV)/.dev: $(VENV)/.made requirements/dev.txt $(OWN_PROJECTS)
	$(call install,dev)
	@touch $(VENV)/.runtime $@

$(GEN)/.installed: $(GEN)/.made requirements/gen.txt
	@echo "setup: installing the code generator into $(GEN)"
	@$(GEN)/bin/python $(PIP_INSTALL) --quiet --require-hashes -r requirements/gen.txt
	@touch $@
