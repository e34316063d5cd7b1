# Every target does what it says; each wants the extra that stands behind it, `test` brings its own.
#
#   make check           format, lint, types, rules of the house        pip install -e '.[dev]'
#   make test            the suite: under ten minutes on two cores; skips what it lacks, and says so
#   make test-page       the studio's page in Chromium and its interface under fire; fails where they cannot run
#   make test-slow       what takes minutes
#   make test-training   what needs the training images: VELATURA_DATA names their folder
#   make docs            pictures, tables from code and figures, site/  pip install -e '.[docs]'
#   make bench           every benchmark, into benchmarks/results/      pip install -e '.[bench]'
#   make train           what to train next, with the command to run
#   make cards           the figures of catalog.toml, from weights and measurements

PYTHON ?= python
VELATURA_DATA ?= ../shared/data
export VELATURA_DATA

CHROMIUM := $(firstword $(shell command -v chromium || command -v chromium-browser))

.PHONY: help check test test-page test-slow test-training docs bench train cards prepare
.DEFAULT_GOAL := help

help:
	@sed -n 's/^#   //p' Makefile

check:
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .
	$(PYTHON) -m pyright
	$(PYTHON) -m pytest -q tests/test_house.py

# Tests run against this checkout, with what they need; a second run installs nothing.
prepare:
	@$(PYTHON) -c "import pathlib, sys; from importlib.util import find_spec as find; \
	sys.exit(not all(map(find, ['cv2', 'fastapi', 'httpx', 'lightning', 'moto', 'nibabel', 'pytest', 'ray', 's3fs', 'velatura'])) \
	or pathlib.Path('src').resolve() not in pathlib.Path(find('velatura').origin).resolve().parents)" \
	|| $(PYTHON) -m pip install --quiet --editable '.[test]'

test: prepare
	$(PYTHON) -m pytest -q -rs --durations=5

test-page: prepare
	@test -n "$(CHROMIUM)" || { echo "make test-page needs Chromium: apt-get install chromium" >&2; exit 1; }
	@$(PYTHON) -c "import playwright, schemathesis" 2> /dev/null || $(PYTHON) -m pip install --quiet --editable '.[page]'
	@$(PYTHON) -c "import playwright, schemathesis"
	$(PYTHON) -m pytest -q -rs -m page tests/studio

test-slow: prepare
	$(PYTHON) -m pytest -q -m slow

test-training: prepare
	$(PYTHON) -m pytest -q -m training

docs:
	$(PYTHON) docs/make_figures.py
	$(PYTHON) docs/tables.py
	$(PYTHON) -m zensical build --clean --strict

bench:
	set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file"; $(PYTHON) $$file; done

train:
	@$(PYTHON) -m velatura.cli.queue

cards:
	@$(PYTHON) -c "from velatura.catalog import fill_cards; print(*fill_cards('benchmarks/results'), sep='\n')"
