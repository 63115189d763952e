# Every target makes its own environment in .venv first; nothing else is needed than Python ≥ 3.11.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-fast lint types check clean

# The main job: train a small noise grid on this machine, then show its table and its figure.
demo: .venv/installed
	$(BIN)/vwm-sweep launch sweeps/quick.yaml
	$(BIN)/vwm-sweep collect sweeps/quick.yaml

# All tests, the slow ones too. Four workers keep two cores busy, since many of the tests wait most of the time.
test: .venv/installed
	$(BIN)/python -m pytest --numprocesses 4 --no-loadscope-reorder

test-fast: .venv/installed
	$(BIN)/python -m pytest -m "not slow"

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf .venv

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; $(PYTHON) is older. Name another one: make PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@
