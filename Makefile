# Needs python3 >= 3.11 with pip and venv, and make. Everything else is fetched into .venv and .servers.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
CHECKED := $(wildcard src tests tools benchmarks examples)
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format bench bench-herd chaos fuzz soak constraints clean

help:  ## List what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.demo  ## See four processes share one rate limit (under 30 seconds)
	@$(BIN)/python tools/find_redis.py --any > /dev/null
	@PATH="$$PATH:$(CURDIR)/.servers/bin" $(BIN)/rate-coordinator demo

test: lint $(VENV)/.dev  ## Run lint, strict types and all tests against real Redis servers
	@$(BIN)/python tools/find_redis.py > /dev/null
	@-$(BIN)/python -m tools.find_chromium > /dev/null
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(PYTEST_ARGS)

lint: $(VENV)/.dev  ## Run ruff and mypy, nothing else
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/mypy $(CHECKED)

format: $(VENV)/.dev  ## Put the code into the form that lint asks for
	$(BIN)/ruff check --fix $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

bench: $(VENV)/.dev  ## Measure against the baselines of benchmarks/README.md
	@$(BIN)/python tools/find_redis.py > /dev/null
	$(BIN)/python -m benchmarks

bench-herd: $(VENV)/.dev  ## Let 8 processes want more than an upstream serves, in five ways; a quarter of an hour, draws docs/herd-*.svg
	@$(BIN)/python tools/find_redis.py > /dev/null
	$(BIN)/python -m benchmarks.herd --svg docs

chaos: $(VENV)/.dev  ## Let 8 processes live through random faults for 3 minutes (SECONDS=…, SEED=…)
	@$(BIN)/python tools/find_redis.py > /dev/null
	$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: $(VENV)/.dev  ## Feed random bytes to all that reads others' messages and keys, for a minute (SECONDS=…)
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS))

soak: $(VENV)/.dev  ## Let 4 processes make 50 reports a second for 30 minutes and see whether anything grows (MINUTES=…)
	@$(BIN)/python tools/find_redis.py > /dev/null
	$(BIN)/python -m tests.soak $(if $(MINUTES),--minutes $(MINUTES))

constraints:  ## Take the newest versions of everything into constraints.txt
	@echo "making a fresh environment with the newest versions"
	@rm -rf .constraints && $(PYTHON) -m venv .constraints
	@.constraints/bin/python -m pip --quiet --disable-pip-version-check install -e '.[embedded,cli,speed,dev]'
	@{ echo "# Exact versions for 'make test' and 'make demo'; made by 'make constraints'."; \
	   .constraints/bin/python -m pip --disable-pip-version-check list --format=freeze \
	     --exclude pip --exclude setuptools --exclude rate-coordinator; } > constraints.txt
	@rm -rf .constraints
	@git --no-pager diff --stat -- constraints.txt

clean:  ## Remove the environment, the fetched servers and all caches
	rm -rf $(VENV) .constraints .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which: make PYTHON=python3.12 …")'
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# An editable install in both cases; .dev is a superset of .demo, so it never takes anything away.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "installing the library, its command line and the embedded default into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[embedded,cli]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "installing the library, all extras and the test tools into $(VENV)"
	@$(PIP) install -c constraints.txt -e '.[embedded,cli,speed,dev]'
	@touch $(VENV)/.demo $@
