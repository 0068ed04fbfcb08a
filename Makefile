# make serve    build the embedded model, serve it, send it one picture
# make test     run every check
# make install  set up .venv alone
# Each sets up what is missing; a second run installs and builds nothing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXTRAS := build,serve,dev

.PHONY: install bindings serve test clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("deployc needs Python 3.11 or newer, this is " + sys.version.split()[0] + ": run make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): torch and its libraries take about 6 GB and a few minutes"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@$(MAKE) --no-print-directory bindings || echo "no TensorRT bindings for this platform: their tests are skipped"
	@touch $@

# TensorRT's Python bindings, without its libraries: tests compare the engine's calls with both of
# its major versions, which cannot be installed side by side as packages.
bindings:
	@for pair in 10:10.16.1.11 11:11.4.0.106; do \
	  folder=$(VENV)/bindings/$${pair%%:*}; \
	  test -d $$folder || $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --target $$folder tensorrt-cu13-bindings==$${pair##*:} || exit 1; \
	done

serve: $(INSTALLED)
	@$(BIN)/deployc build specs/digits.yaml
	@$(BIN)/deployc serve deploy.yaml --try specs/samples/digits/digit_3.png

test: $(INSTALLED)
	@$(BIN)/python tests/run_checks.py

clean:
	rm -rf build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis
