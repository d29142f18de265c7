# make up [DATA=DIR]   install, start Airflow and the service; with an empty store, retrain the recipes; print the results
#                      RUN=yes retrains them at any start, RUN=no at none
# make down            stop what `make up` started
# make status          show the state of Airflow and the service
# make check           run lint, types, and the tests that need no torch, server, Airflow or browser (a minute or two)
# make test            run lint, types and the tests, except the slow ones
# make test-slow       run the slow tests, such as whole runs in Airflow (about ten minutes; CI runs them, too)
# make test-order      run the tests in random order (SEED=N repeats an order)
# make test-faults     test killed processes and full disks (longer)
# make test-topology   run the compose files of several hosts without a container engine (longer; root)
# make test-models     test models and data of full size, and benchmarks that start processes (longer)
# make mutants         list the mutation scores; MODULE=pipeline/evaluation/promotion_gate.py tests one module
# make long-tests      list the last results of the longer tests, their age and the files changed since
# make soak            test the service under load while deployments change and clients disconnect (longer)
# make test-cpu        run the tests that depend on the CPU, under each kind that this CPU can emulate (longer)
# make venv            create only the virtual environment
# make check-python    run the plain tests on another Python, without torch: make check-python PYTHON=python3.13
# make docs            build the site of docs/ in .saebyeok/site
# make reference       write the sections of docs/reference/ that come from code
# make dist            build wheel and sdist of saebyeok and saebyeok-client in dist/, and check them with twine
# make lock            write constraints.txt and constraints.lock; UPGRADE="numpy scipy" takes the newest of these
# Pass any SAEBYEOK_* setting: make up SAEBYEOK_HOME=/var/lib/saebyeok SAEBYEOK_AIRFLOW_URL=http://127.0.0.1:8081

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help up down status check lint plain test test-slow test-order types tests test-faults test-topology test-models long-tests soak test-cpu mutants venv lock dist check-python docs reference

ifdef DATA
export SAEBYEOK_DATA := $(abspath $(DATA))
endif

# Without bytecode files, each process would compile the libraries again: torch and transformers alone for many seconds.
# uv leaves them to the first import, and some containers switch them off.
unexport PYTHONDONTWRITEBYTECODE

# The Python of .venv, else the first that fits; choose another with `make up PYTHON=/path/to/python3.12`.
PYTHON ?=
find_python = found=; \
	for candidate in $(or $(PYTHON),.venv/bin/python python3.11 python3.12 python3.13 python3 python); do \
	  if "$$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; then \
	    found=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
	  have=$$("$(or $(PYTHON),python3)" --version 2>&1 || true); \
	  echo "saebyeok: Python 3.11, 3.12 or 3.13 is required, but $(or $(PYTHON),python3) is: $$have." >&2; \
	  echo "Install one of them, or pass its path: make $@ PYTHON=/path/to/python3.12" >&2; exit 1; fi

help:
	@sed -n '/^$$/q; s/^# //p' Makefile

run = $(if $(filter yes,$(RUN)),--run,$(if $(filter no,$(RUN)),--no-run,$(if $(RUN),$(error RUN is $(RUN): set yes or no))))

up:
	@$(find_python); "$$found" -m pipeline.stack.bootstrap --up $(run)

down:
	@if [ -x .venv/bin/saebyeok ]; then .venv/bin/saebyeok down; else echo "nothing to stop: this checkout has no .venv"; fi

status:
	@if [ -x .venv/bin/saebyeok ]; then .venv/bin/saebyeok status; else echo "nothing is running: this checkout has no .venv"; fi

venv:
	@$(find_python); "$$found" -m pipeline.stack.bootstrap

# Keep the files of tests, and of the browser that some of them start, in the checkout. Those of the last run are deleted
# while this one begins, because thousands of directories take seconds.
in_checkout = mkdir -p .pytest_cache && { mv .pytest_cache/tmp .pytest_cache/old-$$$$ 2>/dev/null; rm -rf .pytest_cache/old-* & } && \
	XDG_CONFIG_HOME="$(CURDIR)/.pytest_cache/config"
pytest = $(in_checkout) .venv/bin/python -m pytest --basetemp=.pytest_cache/tmp

check: venv lint
	@$(MAKE) --no-print-directory --jobs 2 types plain

check-python:
	@$(find_python); folder=.venvs/$$("$$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
	"$$found" -m pipeline.stack.bootstrap --venv "$$folder" --without-torch && \
	$(in_checkout) "$$folder/bin/python" -m pytest --basetemp=.pytest_cache/tmp $(plain)

test: venv lint
	@$(MAKE) --no-print-directory --jobs 2 types tests

lint:
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/lint-imports --no-logo

types:
	.venv/bin/mypy

# A worker takes whole files, whose tests share fixtures. For two cores there are three workers, because many tests wait
# for other processes; plain tests do not, so for them there are as many as cores. A test that hangs fails with its stack
# after twenty minutes.
by_file = --dist loadfile --no-loadscope-reorder --timeout 1200
workers = -n 3 $(by_file)
plain = --plain -n auto --maxprocesses 8 $(by_file)
tests:
	$(pytest) $(workers)

plain:
	$(pytest) $(plain)

test-slow: venv
	$(pytest) $(workers) -m slow

# Shuffle the files, and the tests of each plain file.
test-order: venv
	$(pytest) $(workers) --shuffle $(or $(SEED),$$(date +%s))

# Longer tests. Results are in docs/results/long-tests.md; tests that passed at the current commit are skipped unless FRESH=1.
test-faults: venv
	$(pytest) -p tests.support.long_runs -m faults tests/faults

# The images are built on the first run: see docs/results/topology.md. One process, because all tests share the hosts.
test-topology: venv
	$(pytest) -p tests.support.long_runs -m topology --capture no tests/topology

test-models: venv
	$(pytest) -p tests.support.long_runs -m models tests/models

long-tests: venv
	@.venv/bin/python -m tests.support.freshness

soak: venv
	$(pytest) -p tests.support.long_runs -m soak tests/soak

# See docs/results/cpus.md.
test-cpu: venv
	@$(in_checkout) .venv/bin/python -m tests.support.cpus

# Two builds of one commit are equal byte for byte.
dist: venv
	.venv/bin/python -m tests.support.distributions dist

lock: venv
	@.venv/bin/python -m tests.support.lock_writer $(UPGRADE)

docs: venv
	.venv/bin/zensical build --strict

reference: venv
	.venv/bin/python -m docs.generated

# Resumes an interrupted run. JOBS=2 tests two mutants at once; MATCH=name those of one function; SURVIVORS=1 those that
# survived last time.
mutants: venv
	@.venv/bin/python -u -m tests.mutants $(MODULE) --jobs $(or $(JOBS),1) \
	  $(if $(MATCH),--match "$(MATCH)") $(if $(SURVIVORS),--survivors)
