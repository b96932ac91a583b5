# One word each. Uses the environment in .venv if there is one.
BIN := $(if $(wildcard .venv/bin/python),.venv/bin/,)

.PHONY: lint test docs bench

lint:
	$(BIN)ruff check .
	$(BIN)ruff format --check .
	$(BIN)mypy
	$(BIN)codespell sk_medsiglip tests benchmarks training docs changelog *.md
	$(BIN)lint-imports

test:
	$(BIN)pytest -n auto --maxprocesses 8

docs:
	$(BIN)sphinx-build -W --keep-going -q docs build/site
	$(BIN)python docs/_site/check_built.py build/site

bench:
	for file in benchmarks/[a-z]*.py; do $(BIN)python -m benchmarks.$$(basename $$file .py) || exit 1; done
