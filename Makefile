# Two commands for a fresh machine: `make demo` and `make test`. Both install into .venv first.
PYTHON ?= python3
BIN := .venv/bin
PIN := $(shell $(PYTHON) -c 'import hashlib; print(hashlib.sha256(open("pyproject.toml", "rb").read()).hexdigest()[:12])')

.PHONY: demo test lint types unit man clean

# The environment is stamped by pyproject's hash and its extras, so that it is made again when they change.
.venv/.installed-%-$(PIN): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --editable '.[$*]'
	@rm -f .venv/.installed-$*-*; touch $@

demo: .venv/.installed-demo-$(PIN)
	PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/quickstart.sh demo

test: .venv/.installed-test-$(PIN) lint types unit

lint: .venv/.installed-test-$(PIN)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/.installed-test-$(PIN)
	$(BIN)/mypy

unit: .venv/.installed-test-$(PIN)
	$(BIN)/python -m pytest -n 2 --dist loadfile $(PYTEST)

# Manual pages and the shells' completion, from the command tree; a test says when they are old.
man: .venv/.installed-test-$(PIN)
	$(BIN)/python -m vlcli.manual man vlcli/_data/completion

clean:
	rm -rf .venv demo .pytest_cache .mypy_cache .ruff_cache
