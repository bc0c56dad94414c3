# make demo | make test: each makes the environment on first use, from a checkout with only Python and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint check test-long results bench pocket resolve clean

demo: $(STAMP)
	$(BIN)/qredit demo

test: $(STAMP) lint check

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: $(STAMP)
	$(BIN)/pytest -n 2 --dist worksteal -m "not long"

test-long: $(STAMP)
	$(BIN)/pytest -m long

# The evidence in docs/results.md: every run is kept, so that it goes on where it was stopped. About an hour from scratch.
results: $(STAMP)
	$(BIN)/python experiments/results.py

# Cost of a training step beside TRL's own; run it while nothing else runs. About three minutes.
bench: $(STAMP)
	$(BIN)/python experiments/step_cost.py

# Make the pocket models anew (NAMES="hotpot finqa" for some of them). About an hour.
pocket: $(STAMP)
	$(BIN)/python -m qredit.pocket.pretrain $(NAMES)

# Dry-run every extra against the registry: the pins must resolve together.
resolve: $(STAMP)
	$(BIN)/pip install --dry-run --quiet --report /dev/null ".[test,lint]"
	@echo "every extra resolves"

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[test,lint]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
