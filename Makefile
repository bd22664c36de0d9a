# Each target sets up what it needs. `make run ARGS="--budget smoke"` hands options on.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAB_DEFAULTS := $(VENV)/share/jupyter/lab/settings/overrides.d
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup run test check bench lab serve ui lock clean

help: ## show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(READY) ## make .venv from requirements.lock

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' || \
	  { echo "Python 3.11.5 or newer is needed; found $$($(PYTHON) --version). Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "Installing into $(VENV), which takes a minute or two, once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@$(BIN)/python -m compileall -q housing_lib serve
	@$(BIN)/python -c "from housing_lib import compiling; compiling.warm_up()"
	@touch $@

run: $(READY) ## do the main job: data to tuned, evaluated, promoted model and reports
	@$(BIN)/housing run $(ARGS)

# Threads that spin while they wait would take the cores from the tests beside them.
test: $(READY) ## run every test
	@OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

check: $(READY) ## lint, formatting and types
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy

bench: $(READY) ## measure most of it at a small size, side by side with peers
	@$(BIN)/python tests/benchmarks/scoreboard.py $(ARGS)

lab: $(READY) ## open the notebooks in JupyterLab
	@mkdir -p $(LAB_DEFAULTS)
	@echo '{"@jupyterlab/apputils-extension:notification": {"fetchNews": "false"}}' > $(LAB_DEFAULTS)/housing.json
	@$(BIN)/jupyter lab --notebook-dir=notebooks $(ARGS)

serve: $(READY) ## serve the Production model on http://127.0.0.1:8000
	@$(BIN)/housing serve $(ARGS)

ui: $(READY) ## serve MLflow's pages on http://127.0.0.1:5000
	@$(BIN)/housing ui $(ARGS)

lock: $(READY) ## resolve the dependencies of pyproject.toml anew
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --fork-strategy fewest \
	  --no-header --no-annotate --all-extras --upgrade pyproject.toml -o requirements.lock

clean: ## remove the environment and caches; data, models and reports stay
	@rm -rf $(VENV) *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
