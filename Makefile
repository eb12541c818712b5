# make train   sets everything up and runs the main job      (make train ARGS="--workers 8" passes flags on)
# make test    sets everything up and passes the tests
# make champion   sets everything up, trains defenders for all red agents, and evaluates them (an hour)
# Needs Python 3.11 or later, pip and make.

PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
ARGS ?= --workers 100

.PHONY: champion train test check setup clean

champion: $(READY)
	$(VENV)/bin/python -m bench.champion

train: $(READY)
	$(VENV)/bin/python run.py $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -n 2 --dist loadfile

check: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

setup: $(READY)

# A new environment whenever what is to be installed has changed.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aiotrain needs Python 3.11 or later")'
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check torch --constraint constraints.txt
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]' --constraint constraints.txt
	touch $@

clean:
	rm -rf $(VENV)
