# make up [DATA=DIR]   install, start Airflow and the service, retrain both recipes, say what came out
# make down            stop what `make up` started
# make status          what runs, and how it is
# make check           lint, types, and the tests that need no torch, no server, no Airflow and no browser (a minute)
# make test            lint, types and tests
# make test-order      the tests in a random order (SEED=N repeats one)
# make test-faults     what happens when things are killed or run full (longer)
# make test-models     models and data of full size (longer)
# make mutants         how many faults, put in on purpose, the tests notice: the scores; MODULE=pipeline/evaluation/promotion_gate.py tries one
# make long-tests      the last results of the longer tests: how many commits ago, and what changed since
# make soak            answers under load while the deployment changes and users go away (longer)
# make test-cpu        tests that depend on the CPU, under each kind that this one can play (longer)
# make venv            only the virtual environment
# Any SAEBYEOK_* setting can be given: make up SAEBYEOK_HOME=/var/lib/saebyeok SAEBYEOK_AIRFLOW_URL=http://127.0.0.1:8081

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up down status check lint plain test test-order types tests test-faults test-models long-tests soak test-cpu mutants venv venv-up

ifdef DATA
export SAEBYEOK_DATA := $(abspath $(DATA))
endif

# Python 3.11, the first that is one; name another with `make up PYTHON=/path/to/python3.11`.
PYTHON ?=
find_python = found=; \
	for candidate in $(or $(PYTHON),python3.11 python3 python .venv/bin/python); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1; then \
	    found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  have=$$("$(or $(PYTHON),python3)" --version 2>&1 || true); \
	  echo "saebyeok: Python 3.11 is needed, and $(or $(PYTHON),python3) is: $$have." >&2; \
	  echo "Install Python 3.11, or name one: make $@ PYTHON=/path/to/python3.11" >&2; exit 1; fi

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

up: venv-up
	@.venv/bin/saebyeok up

down:
	@if [ -x .venv/bin/saebyeok ]; then .venv/bin/saebyeok down; else echo "nothing to stop: there is no .venv here"; fi

status:
	@if [ -x .venv/bin/saebyeok ]; then .venv/bin/saebyeok status; else echo "nothing runs: there is no .venv here"; fi

venv-up:
	@$(find_python); "$$found" -m pipeline.stack.bootstrap --up

venv:
	@$(find_python); "$$found" -m pipeline.stack.bootstrap

# What tests write, and the browser that some of them start, stays here.
pytest = mkdir -p .pytest_cache && XDG_CONFIG_HOME="$(CURDIR)/.pytest_cache/config" \
	.venv/bin/python -m pytest --basetemp=.pytest_cache/tmp

check: venv lint
	@$(MAKE) --no-print-directory --jobs 2 types plain

test: venv lint
	@$(MAKE) --no-print-directory --jobs 2 types tests

lint:
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo

types:
	.venv/bin/mypy

# A file stays on one worker: what its tests share they make once. What hangs says where after twenty minutes.
workers = -n 2 --dist loadfile --no-loadscope-reorder --timeout 1200
tests:
	$(pytest) $(workers)

plain:
	$(pytest) --plain $(workers)

# In a random order: files, and the tests of a file that starts no server.
test-order: venv
	$(pytest) $(workers) --shuffle $(or $(SEED),$$(date +%s))

# Longer ones: things are killed or run full, models and data are of full size, hours of use. Results go to
# docs/long-tests.md; what passed at the commit that is checked out is not run again, unless FRESH=1.
test-faults: venv
	$(pytest) -p tests.support.long_runs -m faults tests/faults

test-models: venv
	$(pytest) -p tests.support.long_runs -m models tests/models

long-tests: venv
	@.venv/bin/python -m tests.support.freshness

soak: venv
	$(pytest) -p tests.support.long_runs -m soak tests/soak

# What depends on the CPU, under each kind that this machine can play (docs/cpus.md).
test-cpu: venv
	@mkdir -p .pytest_cache && XDG_CONFIG_HOME="$(CURDIR)/.pytest_cache/config" .venv/bin/python -m tests.support.cpus

# Goes on where it was cut off. JOBS=2 tries two mutants at once; MATCH=name those of one function; SURVIVORS=1 those
# that survived the last time.
mutants: venv
	@.venv/bin/python -u -m tests.mutants $(MODULE) --jobs $(or $(JOBS),1) \
	  $(if $(MATCH),--match "$(MATCH)") $(if $(SURVIVORS),--survivors)
