# JESSY evals. `make eval` measures a model, `make test` tests the harness; both build .venv first.

MODEL ?= smollm2
RECIPE ?= jessy-v2
ARGS ?=
PYTHON ?= python3
BIN := .venv/bin
COMMA := ,

# What mlx computes on here: Metal comes with it, CUDA and the CPU are extras of their own.
TRAIN_ON := $(if $(filter Darwin,$(shell uname -s)),train,$(if $(shell command -v nvidia-smi),train$(COMMA)cuda,train$(COMMA)cpu))

# With ARGS="-k ..." one of the two runs of the tests may have nothing to do, which pytest says with 5.
NONE := $(if $(ARGS), || [ $$? -eq 5 ])

.PHONY: eval test check data certify dataset candidate venv

eval: venv ## measure MODEL (default: the embedded base) and write its report
	@if [ "$(MODEL)" = smollm2 ]; then $(BIN)/python -m harness fetch; fi
	$(BIN)/pytest evals --model "$(MODEL)" $(ARGS)

test: .venv/dev ## the project's own tests
	$(BIN)/python -m harness fetch
	$(BIN)/pytest tests -m "not alone" -n 2 --dist loadfile --no-loadscope-reorder --durations=25 $(ARGS)$(NONE)
	$(BIN)/pytest tests -m alone --durations=10 $(ARGS)$(NONE)

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

candidate: .venv/train ## candidates from RECIPE until one passes the suites and the gate, or go on with them
	$(BIN)/python -m harness fetch
	$(BIN)/python -m training candidate $(RECIPE) $(ARGS)

venv: .venv/eval ## what evaluating needs

.venv/eval: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

.venv/train: .venv/eval
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[$(TRAIN_ON)]'
	@touch $@

.venv/dev: .venv/eval
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@
