# Everything from a bare Python >= 3.10: `make demo` shows the toolkit at work, `make test` tests it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2
INSTALLED := $(VENV)/.installed

.PHONY: help demo test test-long faults lint types words check format bench docs clean

help:
	@echo "make demo       set up, then run the demonstration (two minutes)"
	@echo "make test       set up, then run the tests"
	@echo "make test-long  the tests that take minutes"
	@echo "make faults     the fault campaign, twice"
	@echo "make check      lint, format, types and wording"
	@echo "make bench      measure beside other libraries"
	@echo "make docs       build the documentation into build/site"

demo: $(INSTALLED)
	@echo "== Running the demonstration"
	@$(BIN)/implicitly demo

test: $(INSTALLED)
	@echo "== Running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS)

test-long: $(INSTALLED)
	@echo "== Running the tests that take minutes"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) -m long

faults: $(INSTALLED)
	@echo "== Running the fault campaign"
	@OMP_NUM_THREADS=1 PYTHONPATH=tests $(BIN)/python -m faults.campaign --rounds 2

check: lint types words

lint: $(INSTALLED)
	@echo "== Linting"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(INSTALLED)
	@echo "== Checking types"
	@mkdir -p $(VENV)/typing && ln -sfn "$(CURDIR)" $(VENV)/typing/implicitly
	@MYPYPATH=$(VENV)/typing $(BIN)/mypy -p implicitly

words: $(INSTALLED)
	@echo "== Checking docstrings and comments"
	@$(BIN)/python .ci/words.py

format: $(INSTALLED)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: $(INSTALLED)
	@echo "== Installing the libraries to compare with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[benchmarks]'
	@$(BIN)/python benchmarks/iteration_cost.py
	@$(BIN)/python benchmarks/memory.py

docs: $(INSTALLED)
	@echo "== Installing the documentation tools"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs,gallery]'
	@echo "== Running the scripts of the gallery that have changed (a few minutes the first time)"
	@$(BIN)/python docs/gallery/build.py $(JOBS)
	@# Links to what belongs to the package alone: through one to the root, tools find the environment too.
	@rm -rf build/package && mkdir -p build/package/implicitly
	@for part in __init__.py py.typed options files implicit solvers problems verification models studies cli; do \
		ln -s "$(CURDIR)/$$part" build/package/implicitly/$$part; done
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site

$(INSTALLED): pyproject.toml constraints.txt
	@echo "== Creating a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or later is needed, this is " + sys.version)'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "== Installing implicitly and what it needs (some minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[development]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
