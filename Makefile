# The two commands a fresh machine needs are `make demo` and `make test`; each sets up what it uses.
# Kafka, MinIO and Postgres are Docker Compose's where a Docker engine answers, elsewhere scripts/services installs them.
PYTHON ?= python3.11
SERVE ?= 1
# More for pytest, such as TESTS="--last-failed" or a file.
TESTS ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# A command with servers of its own, on free ports, which end with their data when it does.
WITH_SERVICES := scripts/services run --free-ports --

.PHONY: install programs test-programs demo test lint generate services soak faults broker-soak insync bench lock clean

install: $(STAMP)

# Packages are compiled once, here: where PYTHONDONTWRITEBYTECODE is set each of many processes would compile them again.
$(STAMP): requirements.lock setup.py
	$(PYTHON) -m venv $(VENV) || python3 -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' requirements.lock)"
	$(BIN)/uv pip sync --quiet --compile-bytecode --python $(BIN)/python requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# The servers' programs. On a machine that never had them MinIO is built, which takes minutes of its own.
programs:
	scripts/services install

# And what the tests of pages need: Chromium and axe-core.
test-programs:
	scripts/services install --browser

demo: install
	$(BIN)/quantlytic demo $(if $(filter 0,$(SERVE)),--no-serve,)

# Where PYTHONDONTWRITEBYTECODE is set each worker, and many a program that a test starts, would compile our own files.
# Kafka is started a dozen times and has little to do: its quick compiler alone takes half the processor time of both.
test:
	$(MAKE) --no-print-directory -j2 install test-programs
	env -u PYTHONDONTWRITEBYTECODE JDK_JAVA_OPTIONS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC" $(WITH_SERVICES) $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(TESTS)

# Formatting, lint rules and types, as pyproject.toml says.
lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# The files that follow from the declarations in quantlytic_assets/schemas: dbt's sources and models, docs/tables.md.
generate: install
	$(BIN)/python -m quantlytic_assets.schemas.generate

# Servers that stay, for QUANTLYTIC_PROFILE=services: eval "$(scripts/services env)" afterwards.
services: programs
	scripts/services up

# From the bus to clean.bars at 50 symbols for half an hour: prints p50, p95 and p99 of the delay.
soak: install programs
	$(WITH_SERVICES) $(BIN)/python -m quantlytic_tests.soak

# Kills and fills everything at random moments, counts offset by offset, and prints the table.
faults: install programs
	$(WITH_SERVICES) $(BIN)/python -m quantlytic_tests.faults

# A month at a loopback TWS with 500 kills and 500 cut lines; then its tests with ib_insync in place of ib_async.
broker-soak: install
	$(BIN)/python -m quantlytic_tests.brokers.soak

insync: install
	$(BIN)/python -m quantlytic_tests.brokers.insync

# Prints times as ratios to a named baseline of the same run.
bench: install programs
	$(BIN)/python -m quantlytic_tests.benchmarks.rebuild
	$(BIN)/python -m quantlytic_tests.benchmarks.backfill
	$(BIN)/python -m quantlytic_tests.benchmarks.two_backfills
	$(BIN)/python -m quantlytic_tests.benchmarks.features 50 500000
	$(BIN)/python -m quantlytic_tests.benchmarks.alpha158
	$(BIN)/python -m quantlytic_tests.benchmarks.sessions
	$(BIN)/python -m quantlytic_tests.benchmarks.lake_features
	$(BIN)/python -m quantlytic_tests.benchmarks.engine
	$(BIN)/python -m quantlytic_tests.benchmarks.grid
	$(BIN)/python -m quantlytic_tests.benchmarks.push
	$(BIN)/python -m quantlytic_tests.benchmarks.api
	$(BIN)/python -m quantlytic_tests.benchmarks.orders
	$(WITH_SERVICES) $(BIN)/python -m quantlytic_tests.benchmarks.landing
	$(WITH_SERVICES) $(BIN)/python -m quantlytic_tests.benchmarks.live

# Resolve requirements.in anew.
lock: install
	$(BIN)/uv pip compile --quiet --universal --no-annotate --no-header --python-version 3.11 requirements.in requirements-dev.in \
		-o requirements.lock

clean:
	rm -rf $(VENV) .quantlytic dbt_project/target dbt_project/logs
# The servers' programs and data are left: `scripts/services down && rm -rf .services` removes them.
