# `make demo` runs a whole study on drawn images; `make test` checks everything. Both set up .venv first, once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
OUT ?= out/demo

.PHONY: demo test gpu install clean

demo: $(READY)
	$(BIN)/prunescope study demo --out $(OUT)

test: $(READY)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadscope

# Needs a GPU: checks and measures what `make test` cannot, in at most ten minutes.
gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

install: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "prunescope needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf .venv out .mypy_cache .ruff_cache .pytest_cache
