# Every target sets up all it needs: a virtual environment in .venv and, for rendering, a few system libraries.
# To choose the interpreter: make setup PYTHON=/path/to/python3.11

VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# The newest supported interpreter that runs and can create environments.
PYTHON ?= $(shell for p in python3.12 python3.11 python3.10 python3; do \
    $$p -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null && echo $$p && break; done)
HARNESS_REQUIREMENTS := $(wildcard Testing/harness/requirements.txt)
ARGS   ?=

.PHONY: setup demo test test-fast lint benchmark app pictures clean system

setup: $(READY)

$(READY): pyproject.toml Testing/constraints.txt $(HARNESS_REQUIREMENTS)
	@test -n "$(PYTHON)" || { echo "Python 3.10, 3.11 or 3.12 with venv is needed (Debian: apt-get install python3-venv); or make PYTHON=/path/to/python"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c Testing/constraints.txt -e ".[test,lint,cluster]" \
	    $(addprefix -r ,$(HARNESS_REQUIREMENTS))
	touch $@

system:
	@Testing/system_packages.sh

demo: setup
	$(BIN)/samconvex demo $(ARGS)

test: setup system
	$(BIN)/python -m pytest Testing $(ARGS)

test-fast: setup system
	$(BIN)/python -m pytest Testing -m "not slow" $(ARGS)

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

benchmark: setup
	$(BIN)/samconvex benchmark $(ARGS)

app: setup system
	PYTHONPATH=Testing $(BIN)/python -m harness $(ARGS)

pictures: setup system
	$(BIN)/python Testing/gui/pictures.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-* build dist *.egg-info SAMConvexRegistration/*.egg-info demo-output benchmark-output
	rm -rf .pytest_cache .ruff_cache .mypy_cache .cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
