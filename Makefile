# Every target does the set-up it needs; all are safe to repeat.

VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
OUT ?= out/demo
# Who computes the demo: torchserve, or embedded where there is no room for it
BACKEND ?= torchserve
DATA ?= data
# Where torch comes from; for one without CUDA: TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
# What the image of the worker computes on: cpu or cuda
COMPUTE ?= cpu
export ROBUST_SYNTHESIS_DATA ?= $(DATA)

.PHONY: help setup setup-dev demo serve studio worker archives image generated browser screenshots test test-slow test-gpu check format protos \
  evaluate bench bench-full clean

help:
	@echo "make demo      every task on real pictures, into $(OUT)"
	@echo "make archives  model_store/NAME.mar for TorchServe, of every classifier"
	@echo "make serve     the gateway over a TorchServe with the shipped classifiers"
	@echo "make studio    the web page to paint with a classifier, on http://127.0.0.1:8300"
	@echo "make worker    a worker for gateways elsewhere"
	@echo "make image     container images of gateway and worker; COMPUTE=cuda for GPUs"
	@echo "make test      all tests but the slow proofs"
	@echo "make test-slow the slow proofs"
	@echo "make test-gpu  the tests that need a GPU; the others do without"
	@echo "make check     format, lint, types"
	@echo "make browser   Debian's Chromium, for the studio's tests, where there is none"
	@echo "make screenshots of the studio, into docs/studio"
	@echo "make protos    the gRPC stubs, after a change of protos/"
	@echo "make generated rules and dashboard, after a change of deploy/"
	@echo "make evaluate  every number on the cards, and a page about each (hours on a CPU)"
	@echo "make bench     the figures of the README against others in the same run; about 15 minutes"
	@echo "make clean     remove what was built"

setup: $(VENV)/.demo
setup-dev: $(VENV)/.dev

# torch first and alone: with it installed, nothing that follows asks for another build of it.
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	touch $@

$(VENV)/.demo: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[demo]'
	touch $@

$(VENV)/.studio: pyproject.toml $(VENV)/.torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[serve,studio]'
	touch $@

$(VENV)/.dev: pyproject.toml benchmarks/requirements.txt $(VENV)/.torch
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --no-deps -r benchmarks/requirements.txt
	touch $@ $(VENV)/.demo $(VENV)/.studio

demo: setup
	$(BIN)/robust-synthesis demo --out $(OUT) --backend $(BACKEND)

archives: setup
	$(BIN)/robust-synthesis archive

serve: setup
	$(BIN)/robust-synthesis serve --backend torchserve --models model_store

studio: $(VENV)/.studio
	$(BIN)/robust-synthesis studio

worker: setup
	$(BIN)/robust-synthesis worker --models model_store

# With docker, or with buildah where no daemon answers.
image:
	COMPUTE=$(COMPUTE) $(if $(TORCH_INDEX),TORCH_INDEX=$(TORCH_INDEX)) deploy/image.sh

# The studio's tests skip, with this reason, where there is none and none can be installed.
browser:
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || \
	{ apt-get update -qq && apt-get install -qq --yes --no-install-recommends chromium >/dev/null; } || \
	echo "no Chromium, and apt-get cannot install it: the studio is not tested in a browser"

screenshots: setup-dev browser
	$(BIN)/python clients/studio/screenshots.py --out docs/studio

test: setup-dev browser
	$(BIN)/pytest -m 'not slow' -n 2 tests/unit
	$(BIN)/pytest -m 'not slow' tests/integration tests/e2e

test-slow: setup-dev
	$(BIN)/pytest -m slow

test-gpu: setup-dev
	ROBUST_SYNTHESIS_TEST_GPU=1 $(BIN)/pytest -m gpu tests/unit

check: setup-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile
	$(BIN)/buf lint protos
	$(BIN)/buf breaking protos --against protos/released.binpb

# The stubs that clients and servers import; a test compares them with what this writes.
protos: setup-dev
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py

# Rules for the Prometheus operator and the Grafana dashboard; a test compares them with what this writes.
generated: setup-dev
	$(BIN)/python deploy/generate.py

format: setup-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The data set of each is $(DATA)/NAME, by the name on its card; the pages are in out/reports.
evaluate: setup-dev
	set -e; for model in $(patsubst %/,%,$(filter-out %-judge/ %-standard/,$(wildcard model_store/*/))); do \
		$(BIN)/robust-synthesis evaluate $$model; done

bench: setup-dev
	$(BIN)/python -m benchmarks

bench-full: setup-dev
	$(BIN)/python -m benchmarks --full

clean:
	rm -rf build dist out model_store/*.mar *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
