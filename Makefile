# Everything a fresh machine needs is python3 (3.11 or newer), make and git. `make` alone lists the targets.

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq
# Several processes run at a time; one thread each keeps them from waiting for one another, and keeps sums in one order.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 VECLIB_MAXIMUM_THREADS=1 NUMEXPR_NUM_THREADS=1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-slow study bench lint format docs docs-check clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## train a victim, thieves and innocents, and judge them all
	$(BIN)/minutia demo

test: $(VENV)/.dev ## the quick tests: minutes on two cores
	$(ONE_THREAD) $(BIN)/python -m pytest -m "not slow" -n $(WORKERS)

test-slow: $(VENV)/.dev ## the slow tests: error rates, small studies, real servers
	$(ONE_THREAD) $(BIN)/python -m pytest -m slow -n $(WORKERS)

bench: $(VENV)/.dev ## error rates and speed, as ratios to a peer in the same run; one seed
	$(ONE_THREAD) $(BIN)/python -m benchmarks --seeds 1
	$(ONE_THREAD) $(BIN)/python -m benchmarks.checkpoint_scan --formats bfloat16
	$(ONE_THREAD) $(BIN)/python -m benchmarks.checkpoint_compare

study: $(VENV)/.dev ## every method against every attack on digits, three seeds; half an hour on two cores
	$(ONE_THREAD) $(BIN)/minutia bench digits

lint: $(VENV)/.dev ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write the generated pages and build the site into site/
	$(BIN)/python scripts/generate_docs.py
	$(BIN)/zensical build --clean

docs-check: $(VENV)/.dev ## fail if a generated page is out of date
	$(BIN)/python scripts/generate_docs.py --check

clean: ## remove what was built; the environment and the models you trained stay
	rm -rf site build dist .cache .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find src tests scripts benchmarks -type d -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# The environment, in three steps that leave a stamp each: pip itself, what the demo needs, what development needs.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "minutia needs Python 3.11 or newer as $(PYTHON): install it, or name another with make PYTHON=python3.12" >&2; \
		exit 1; }
	@echo "setting up $(VENV); the first time takes some minutes"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.demo: $(VENV)/.pip pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) install -c constraints.txt -e '.[demo,onnx,images,parquet,ray,s3]' --group dev
	@touch $@
