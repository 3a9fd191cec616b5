# Two commands do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# pytest's own workers; two fit the smallest machine that we support.
JOBS   ?= 2

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all check bench chaos fuzz lock clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

$(VENV)/.runtime: requirements.lock pyproject.toml
	@echo "Installing what the newsletter needs into $(VENV) (once)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@# Compiled once: where PYTHONDONTWRITEBYTECODE is set, each start would compile all of it.
	@$(BIN)/python -m compileall -q newsletter subscribers $(VENV)/lib
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	@echo "Installing the test tools into $(VENV) (once)"
	@$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@

install: $(VENV)/.runtime ## make the virtual environment

demo: $(VENV)/.runtime ## two real issues to 4,000 local inboxes, and a console (ONCE=1 exits when done)
	@$(BIN)/newsletter demo $(if $(ONCE),--once)

test: $(VENV)/.dev ## run the quick tests, in about five minutes on two cores
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ARGS)

test-all: $(VENV)/.dev ## run every test: slow ones too, and all on SQLite and PostgreSQL
	@$(BIN)/python -m pytest --all -n $(JOBS) --dist worksteal $(ARGS)

check: $(VENV)/.dev ## types, lint, formatting, layers and adapters
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(VENV)/.dev ## print the benchmark tables
	@$(BIN)/python -m bench $(ARGS)

chaos: $(VENV)/.dev ## kill, restore and disturb real processes, and count who got what (ARGS="--people 5000")
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(VENV)/.dev ## send hostile bytes to every route of a running service (ARGS="--requests 2000")
	@$(BIN)/python -m tests.fuzz $(ARGS)

lock: $(VENV)/.dev ## write the lock files again from pyproject.toml
	@$(PIP) install uv
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --group build pyproject.toml -o requirements.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --group build --extra otel -c requirements.lock pyproject.toml -o requirements-otel.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--custom-compile-command 'make lock' --group dev --extra otel -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## remove the virtual environment and caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
