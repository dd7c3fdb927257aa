# eozip: `make demo` and `make test` set up everything they need; only python3 (>= 3.11) and make are assumed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# An index to take torch from, and nothing else, such as https://download.pytorch.org/whl/cpu; empty: the one of all packages.
TORCH_INDEX ?=
READY  := $(VENV)/.eozip-ready
# Tests are many small ones: processes beat threads, and two fit any machine.
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types docs kernel unit test-slow test-gpu test-oldest package bench figures clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything in it (done once, again when pyproject or constraints change)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
		"eozip needs Python >= 3.11, got %d.%d from \"$(PYTHON)\". Try: make $(MAKECMDGOALS) PYTHON=python3.12" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "python3 -m venv failed; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): 2.6 GB on disk, some minutes (with CUDA's torch 5.8 GB and more: README says how to avoid it)"
	@# Its own index is asked for torch alone, once: pip would try an index that cannot be reached for each of 200 packages.
	@test -z '$(TORCH_INDEX)' || $(BIN)/python -m pip install --disable-pip-version-check --no-deps --retries 1 \
		--index-url '$(TORCH_INDEX)' "$$(grep '^torch==' constraints.txt)" || { \
		echo "torch does not come from TORCH_INDEX=$(TORCH_INDEX); unset it to take torch from where all packages come" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@# They say that they need an older pandas and a newer Python, and run with these; tests that need them are skipped without.
	$(BIN)/python -m pip install --disable-pip-version-check -q --no-deps --ignore-requires-python \
		stackstac==0.5.1 geozarr-toolkit==0.1.2
	@touch $@

demo: demo/scene $(READY)  ## simulate four dates, encode, decode, verify, and draw demo/demo.png
	$(BIN)/eozip encode demo/scene demo/scene.zarr.zip --quality 60 --overwrite
	$(BIN)/eozip decode demo/scene.zarr.zip demo/back --overwrite
	$(BIN)/eozip verify demo/scene.zarr.zip
	$(BIN)/eozip picture demo/scene demo/scene.zarr.zip demo/demo.png --overwrite
	@echo "Look at demo/demo.png: original, reconstruction, error."

demo/scene: | $(READY)
	@mkdir -p demo
	$(BIN)/eozip simulate demo/scene --dates 4 --size 512 --seed 0

test: lint types docs unit  ## what CI runs: style, layers, types, docs, fast tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

docs: $(READY)  ## the documentation in build/site; broken links and references are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

kernel: $(READY)  ## compile the kernel of the pyramid codecs again (setup does; without it numpy does its work)
	$(BIN)/python hatch_build.py

unit: $(READY)
	OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS) -m "not slow and not gpu"

test-slow: $(READY)  ## full-size networks and long runs
	OMP_NUM_THREADS=1 $(PYTEST) -n $(WORKERS) -m "slow and not gpu"

test-gpu: $(READY)  ## needs a CUDA device
	$(PYTEST) -m gpu

test-oldest: $(READY)  ## golden chunks under the oldest torch of pyproject.toml, in .venv-oldest (needs PyTorch's index)
	$(BIN)/python tests/oldest.py

package: $(READY)  ## wheel and sdist in dist, checked in a clean environment
	$(BIN)/python tools/check_package.py

bench: $(READY)  ## speed and memory against OpenJPEG, and the R-D table
	@for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

figures: $(READY)  ## time and memory measured anew (some minutes; an idle machine), and README's tables
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/path.py --repeats 1
	$(BIN)/python benchmarks/readme.py

clean:  ## remove what make made (.venv too)
	rm -rf $(VENV) .venv-oldest demo build dist .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis
