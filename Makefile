# Two commands for a newcomer: `make demo` and `make test`. Everything else is for people who work on ragver.
PYTHON ?= python3
VENV   ?= .venv
# Each process of pytest starts a PostgreSQL of its own.
TESTERS ?= 2
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test lint unit bench derive clean help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "ragver needs Python 3.11 or newer; set PYTHON=…"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing ragver and its tools into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP) ## the story of the race, on a sample handbook
	@$(BIN)/ragver demo

test: lint $(STAMP) ## everything CI runs: linters, types, layers, all tests
	$(BIN)/pytest tests -n $(TESTERS)

unit: $(STAMP) ## the tests that need no server
	$(BIN)/pytest tests/unit

lint: $(STAMP) ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

derive: $(STAMP) ## the synchronous client, from the asynchronous one
	$(BIN)/python -m ragver.client.derive

bench: $(STAMP) ## side-by-side measurements (see benchmarks/README.md)
	$(BIN)/python -m benchmarks.spine

clean: ## remove what was installed and embedded
	rm -rf $(VENV) .ragver
