# JESSY evals. `make eval` measures a model, `make test` tests the harness; both build .venv first.

MODEL ?= smollm2
RECIPE ?= jessy-v2
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin

.PHONY: eval test check data certify dataset venv

eval: venv ## measure MODEL (default: the embedded base) and write its report
	@if [ "$(MODEL)" = smollm2 ]; then $(BIN)/python -m harness fetch; fi
	$(BIN)/pytest evals --model "$(MODEL)" $(ARGS)

test: .venv/dev ## the project's own tests
	$(BIN)/python -m harness fetch
	$(BIN)/pytest tests $(ARGS)

check: .venv/dev ## ruff and mypy --strict
	$(BIN)/ruff check
	$(BIN)/mypy

data: .venv/dev ## whether the eval set and the training text are sound
	$(BIN)/python -m harness cases --check
	$(BIN)/python -m training dataset --check

certify: .venv/dev ## whether the scorers deserve to gate, and whether reports/certificate.json says so
	$(BIN)/python -m harness certify --check

dataset: .venv/dev ## the rows of RECIPE, with a page that shows them
	$(BIN)/python -m training dataset $(RECIPE)

venv: .venv/eval ## what evaluating needs

.venv/eval: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/eval
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
