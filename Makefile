# `make study` and `make test` are all the set-up there is: each makes .venv, installs what it needs, does its job.
PYTHON ?= $(firstword $(wildcard $(shell command -v python3.11)) python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-warn-script-location -c constraints.txt

.PHONY: study test peers bench lab lint clean

study: .venv/study.ready
	$(BIN)/zsad study --profile mini

test: .venv/test.ready
	$(BIN)/python -m pytest

# Another implementation (anomalib) needs other versions, so it gets its own environment.
peers: .venv/test.ready .venv-peers/ready
	.venv-peers/bin/python -W ignore tests/peers/anomalib_winclip.py data/cache/peers
	$(BIN)/python -m pytest -s tests/peers

bench: .venv/test.ready .venv-peers/ready
	$(BIN)/python -W ignore tests/peers/performance.py .venv-peers/bin/python

lab: .venv/study.ready
	$(BIN)/jupyter lab notebooks

lint: .venv/test.ready
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

.venv/pip.ready:
	$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] <= (3, 13) else f"Python {v[0]}.{v[1]} does not fit; use 3.11 to 3.13: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	touch $@

.venv/study.ready: .venv/pip.ready pyproject.toml constraints.txt
	@echo "installing pinned packages (torch alone is about 6 GB and takes 3 to 4 minutes) ..."
	$(PIP) -e .
	touch $@

.venv/test.ready: .venv/study.ready
	$(PIP) -e '.[llm,train,cluster,test]'
	touch $@

.venv-peers/ready: tests/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --disable-pip-version-check -q -r tests/peers/requirements.txt
	touch $@

clean:
	rm -rf .venv .venv-peers data/cache data/miniad data/textile data/training
