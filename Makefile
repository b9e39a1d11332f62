# The two commands a fresh machine needs are `make demo` and `make test`; each sets up what it uses.
PYTHON ?= python3.11
SERVE ?= 1
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test bench lock clean

install: $(STAMP)

$(STAMP): requirements.lock setup.py
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: install
	$(BIN)/quantlytic demo $(if $(filter 0,$(SERVE)),--no-serve,)

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Prints times as ratios to a named baseline of the same run.
bench: install
	$(BIN)/python -m quantlytic_tests.benchmarks.rebuild

# Resolve requirements.in anew.
lock: install
	$(BIN)/uv pip compile --quiet --universal --no-annotate --no-header --python-version 3.11 requirements.in -o requirements.lock

clean:
	rm -rf $(VENV) .quantlytic dbt_project/target dbt_project/logs
