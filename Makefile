# make demo and make test need only Python 3.11+ and make; each prepares .venv itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DOCS := $(VENV)/.docs
WORKERS ?= 6

# Hundreds of processes are started by the tests: what one has compiled the next need not.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test suite docs lint type mypy pyright surface bench bench-all bench-compare soak faults faults-short flaky mutants test-floors test-pythons clean

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "fanout needs Python 3.11 or newer; set PYTHON=/path/to/it" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	$(BIN)/fanout demo

# The checks beside the suite: its first files wait for most of their time. Six processes keep two cores busy, of which four leave a third idle.
test: $(STAMP)
	$(MAKE) -j 4 lint mypy surface suite

# Tests that call make must not take part in the -j of `test`.
suite: $(STAMP)
	MAKEFLAGS= $(BIN)/python -m pytest -q -p tests.side_by_side.plugin --processes $(WORKERS)

$(DOCS): pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

# Into site/, without the network; a dead link fails it.
docs: $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: mypy pyright

mypy: $(STAMP)
	$(BIN)/mypy

pyright: $(STAMP)
	$(BIN)/basedpyright

# The short form of `pyright`, which takes half a minute: what a user's program sees of the types.
surface: $(STAMP)
	$(BIN)/basedpyright tests/typing

bench: $(STAMP)
	$(BIN)/python -m benchmarks

bench-all: $(STAMP)
	$(BIN)/python -m benchmarks --all

# make bench-compare REV=v1.2.0 [NAMES="broadcast macro"] [ROUNDS=5]
bench-compare: $(STAMP)
	$(BIN)/python -m benchmarks compare $(REV) $(NAMES) --rounds $(or $(ROUNDS),5)

# The long forms, and what needs over two seconds in any form.
soak: $(STAMP) $(DOCS)
	$(BIN)/python -m pytest -q tests/soak tests/lifecycle tests/storage/test_model.py tests/storage/test_migration.py tests/storage/test_refused.py tests/feed \
	  tests/simulation tests/service/test_document.py tests/service/test_fuzz.py tests/service/test_memory.py tests/edge/test_grammar.py --soak
	$(BIN)/python -m pytest -q -m "long or hypothesis" --soak --ignore tests/soak --ignore tests/simulation

faults: $(STAMP)
	$(BIN)/python -m tests.faults

# Every row in seconds, as `make test` runs some of them: counts are judged, times are not.
faults-short: $(STAMP)
	$(BIN)/python -m tests.faults --short

# Ten runs in random order, half of them beside two busy processes. FLAKY="--runs 4 tests/core" is less of it.
flaky: $(STAMP)
	$(BIN)/python -m tests.flaky $(FLAKY)

# Plants one fault after the other in a copy; MUTANTS="goaway" are some of them.
mutants: $(STAMP)
	$(BIN)/python -m tests.mutants $(MUTANTS)

# The lowest versions that pyproject.toml allows, and other Pythons that are installed; what cannot be run is named.
test-floors: $(STAMP)
	$(BIN)/python -m tests.environments floors

test-pythons: $(STAMP)
	$(BIN)/python -m tests.environments pythons $(PYTHONS)

clean:
	rm -rf $(VENV) $(VENV)-* .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist site
