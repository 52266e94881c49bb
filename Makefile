# `make demo` runs a whole study on drawn images; `make test` checks everything. Both set up .venv first, once.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.installed
OUT ?= out/demo

.PHONY: demo test test-all notebooks wheel gpu install clean

demo: $(READY)
	$(BIN)/prunescope study demo --out $(OUT)

test: $(READY)
	$(BIN)/ruff format --check src tests benchmarks
	$(BIN)/ruff check src tests benchmarks
	$(BIN)/mypy
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadscope

# Also runs the pages and notebooks in docs, installs the wheel without the developers' dependencies, and runs a small
# study from it.
test-all: test notebooks wheel

notebooks: $(READY)
	$(BIN)/pytest -m notebooks --numprocesses logical --maxprocesses 4 tests/docs

wheel: $(READY)
	rm -rf build && mkdir build
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir build .
	$(PYTHON) -m venv build/clean
	build/clean/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt build/prunescope-*.whl
	cd build && clean/bin/prunescope study demo --out study --set pruning.levels=2 --set training.length=20it \
		--set training.warmup=2it --set pruning.rewind_to=5it --set 'data.task={miniature: {images: 256, seed: 1}}' \
		--set 'dissection.concepts={miniature: {images: 64, seed: 2}}'
	test -f build/study/report/index.html
	rm -rf build

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
	rm -rf .venv out build .mypy_cache .ruff_cache .pytest_cache
