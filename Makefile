# make serve | test | coverage | bench | lint | mutants | messages | docs | lock | clean   (needs python3.11 or newer, and make)
.SILENT:
.DEFAULT_GOAL := help
PORT ?= 8000
VENV := .venv
BIN := $(VENV)/bin
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11 python
FIND = for p in $(PYTHONS); do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done
# Packages and folders that no test imports: compiling them takes a third of the time.
UNUSED := /(pip|mypyc?|libcst|textual|setuptools|pkg_resources|graphql|valkey|lexers|gis|locale|tests|providers|sphinx|docutils|rich|werkzeug|snowballstemmer|a11y_pygments|chart|drawing|pivot)/
export PORT

.PHONY: help serve test coverage bench lint mutants messages docs lock clean

help:
	echo "make serve     start Portico on http://127.0.0.1:$(PORT) (RELOAD=1: restart when code changes)"
	echo "make test      run every test"
	echo "make coverage  print the lines that no unit test runs"
	echo "make bench     measure Portico beside its peers (TABLES=..., BENCH_QUICK=1)"
	echo "make lint      check style, types and settings"
	echo "make mutants   plant small defects and see whether the unit tests notice them (MUTANTS='accounts.tokens.*', DROPPED=1)"
	echo "make messages  collect and compile the translations (needs gettext)"
	echo "make docs      build the documentation as a site in .cache/docs (LINKS=1: check outside links)"
	echo "make lock      update the hashed locks"

serve: $(VENV)/.runtime
	exec $(BIN)/python manage.py up $(if $(RELOAD),--reload)

test: $(VENV)/.dev
	$(BIN)/python -m tests.tools.run

coverage: $(VENV)/.dev
	$(BIN)/python -m tests.tools.run --coverage

bench: $(VENV)/.dev $(VENV)-served/.installed $(VENV)-bench/.installed
	$(BIN)/python -m bench $(TABLES)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m tests.tools.lint

# A second for each mutant. Without MUTANTS it takes hours and continues where it stopped.
mutants: MUTMUT = $(BIN)/$(if $(DROPPED),python -P tests/tools/defects.py,mutmut)
mutants: $(VENV)/.dev
	[ "$$(cat mutants/kind 2>/dev/null)" = "$(MUTMUT)" ] || rm -rf mutants
	umask 077; mkdir -p mutants/var; echo "$(MUTMUT)" > mutants/kind
	DATA_DIR=$(CURDIR)/mutants/var MUTANTS='$(MUTANTS)' $(MUTMUT) run $(foreach name,$(MUTANTS),'$(name)')
	$(MUTMUT) results

messages: $(VENV)/.dev
	$(BIN)/python -m tests.tools.messages

docs: $(VENV)/.dev
	$(BIN)/python -m sphinx -q -W -n -b html docs .cache/docs
	$(if $(LINKS),$(BIN)/python -m sphinx -q -b linkcheck docs .cache/links)
	echo ".cache/docs/index.html"

lock: $(VENV)/.dev
	$(BIN)/uv pip compile pyproject.toml --universal --python-version 3.11 \
		--generate-hashes --quiet --no-header --output-file requirements.txt
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --quiet --no-header --constraint requirements.txt \
		--output-file tests/requirements.txt
	$(BIN)/uv pip compile bench/requirements.in --universal --python-version 3.11 \
		--generate-hashes --quiet --no-header --output-file bench/requirements.txt

$(VENV)/bin/python:
	python=$$($(FIND)); \
	if [ -z "$$python" ]; then \
		echo "Portico needs Python 3.11 or newer; install it (apt-get install python3)." >&2; \
		exit 1; \
	fi; \
	echo "Making $(VENV) with $$python ..."; \
	if ! $$python -m venv $(VENV) >/dev/null 2>&1; then \
		rm -rf $(VENV); \
		echo "Python's venv module is missing; install it: apt-get install python3-venv" >&2; \
		exit 1; \
	fi

$(VENV)/.runtime: requirements.txt | $(VENV)/bin/python
	echo "Installing the locked packages ..."
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.txt
	touch $@

$(VENV)/.dev: tests/requirements.txt requirements.txt | $(VENV)/bin/python
	echo "Installing the locked packages for development ..."
	$(BIN)/python -m tests.tools.install tests/requirements.txt
	$(BIN)/python -m compileall -q -j 0 -x '$(UNUSED)' $(VENV)/lib >/dev/null || true
	touch $@ $(VENV)/.runtime

$(VENV)-served/.installed: requirements.txt
$(VENV)-bench/.installed: bench/requirements.txt
$(VENV)-served/.installed $(VENV)-bench/.installed: | $(VENV)/bin/python
	echo "Installing the locked packages of $(@D) ..."
	$(BIN)/python -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-served $(VENV)-bench .cache .mypy_cache .ruff_cache .pytest_cache mutants tests/clients/node_modules tests/clients/agents/node_modules
