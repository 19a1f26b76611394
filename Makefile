# `make` lists the targets. What each needs is made by itself, in .venv and .build.
SHELL := /bin/bash
.SHELLFLAGS := -o errexit -o nounset -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_STAMP := $(VENV)/.installed-run

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- set-up ---------------------------------------------------------------------------------

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "punchlib needs Python 3.11 or newer: make PYTHON=python3.11 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# What running jobs on this machine needs, AWS's runtime interface emulator included.
$(DEMO_STAMP): pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local]'
	$(BIN)/python -m punchlib.local.rie
	@touch $@

# The same, and the tools of development.
$(STAMP): pyproject.toml $(DEMO_STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[local,lambda,dev]'
	@touch $@

.PHONY: venv
venv: $(STAMP) ## the virtual environment with everything that development needs

# --- use ------------------------------------------------------------------------------------

.PHONY: demo
demo: $(DEMO_STAMP) ## sort a real text on this machine: no Docker, no AWS account
	@examples/demo.sh

# --- development ----------------------------------------------------------------------------

# Most tests wait for something most of the time; a file's tests share what they start. The long
# files come first, or one of them would be left at the end.
PYTEST := $(BIN)/python -m pytest -n 3 --dist loadfile

.PHONY: test
test: $(STAMP) ## what must hold at every change, in minutes; as root with NATs in namespaces
	@tests/prepare.sh
	$(PYTEST) -m 'not slow' tests/truth tests/nat tests/loopback tests/unit

.PHONY: test-all
test-all: $(STAMP) ## every test but those in containers, and what the code covers
	@tests/prepare.sh
	$(PYTEST) --cov=punchlib tests/attack tests/truth tests/nat tests/loopback tests/unit

.PHONY: attack
attack: $(STAMP) ## who may not get in, and what may not stay behind; as root (LEFTOVERS=N runs)
	@tests/prepare.sh
	LEFTOVERS=$(or $(LEFTOVERS),200) $(BIN)/python -m pytest -m attack tests

.PHONY: lint
lint: $(STAMP) ## ruff, mypy, the arrows of docs/architecture.md, the templates
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/cfn-lint punchlib/aws/templates/*.yaml

.PHONY: diagrams
diagrams: $(STAMP) ## draw docs/diagrams from the tables of transitions
	$(BIN)/python -m tests.support.diagrams

.PHONY: pictures
pictures: $(STAMP) ## draw the pictures of docs/report.md from recorded runs
	@tests/prepare.sh
	$(BIN)/python -m tests.support.report_pictures

CHECKOV := .build/checkov/bin/checkov

$(CHECKOV):
	$(PYTHON) -m venv .build/checkov
	.build/checkov/bin/pip install --quiet --disable-pip-version-check checkov

.PHONY: checkov
checkov: $(CHECKOV) ## checkov on the templates, which explain each exception (first a minute's install)
	$(CHECKOV) --quiet --compact --skip-download --framework cloudformation --directory punchlib/aws/templates

# --- the stream -----------------------------------------------------------------------------

.PHONY: bench-stream
bench-stream: $(STAMP) ## streams beside a bare splice chain and socat, as ratios (JSON=FILE)
	$(BIN)/python -m bench.stream $(if $(JSON),--json $(JSON))

.PHONY: bench-startup
bench-startup: $(STAMP) ## exec to registered and to first byte, in starts of a bare Python (JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.startup $(if $(JSON),--json $(JSON)) 2>/dev/null

.PHONY: bench-local
bench-local: $(STAMP) ## the demo on this machine from exec to exit, phase by phase (JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.local $(if $(JSON),--json $(JSON))

.PHONY: bench-many
bench-many: $(STAMP) ## 256 connections of one process against 256 of another (JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.many $(if $(JSON),--json $(JSON))

.PHONY: bench-wide
bench-wide: $(STAMP) ## a job of 83 scripts beside the same over plain FIFOs (RUNS=N WIDTH=N JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.wide $(if $(RUNS),--runs $(RUNS)) $(if $(WIDTH),--width $(WIDTH)) $(if $(JSON),--json $(JSON))

.PHONY: bench-job
bench-job: $(DEMO_STAMP) ## the example job phase by phase, beside the S3 route and sort (SIZES=MB,MB JSON=FILE)
	@$(BIN)/python -m bench.job $(if $(SIZES),--sizes $(SIZES)) $(if $(JSON),--json $(JSON))

.PHONY: bench-sh
bench-sh: $(STAMP) ## punch sh at widths 1 to 16 beside bash and beside S3 (MB=1000 JSON=FILE)
	@$(BIN)/python -m bench.sh $(if $(MB),--mb $(MB)) $(if $(JSON),--json $(JSON))

.PHONY: bench-idle
bench-idle: $(STAMP) ## what 200 dgsh-tee and 200 connections take while they wait (MOST=SHARE JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.idle $(if $(MOST),--most $(MOST)) $(if $(JSON),--json $(JSON))

.PHONY: faults
faults: $(STAMP) ## drawn ways to break a stream, and more than 4 GiB; as root also pashlib's (FAULTS=N)
	@tests/prepare.sh
	FAULTS=$(or $(FAULTS),1000) $(BIN)/python -m pytest tests/loopback/stream -q
	FAULTS=$(or $(FAULTS),200) $(BIN)/python -m pytest tests/loopback/modes -q -k 'bytes_or'

.PHONY: truth
truth: $(STAMP) ## drawn ways to run, to break and to end a script; root (TRUTH=N TRUTH_SEED=S TRUTH_CASE=…)
	@tests/prepare.sh
	@$(BIN)/python -m tests.truth

.PHONY: sh-grid
sh-grid: $(STAMP) ## every pipeline of tests/support/sh_pipelines.py at every width, embedded, beside bash
	@tests/prepare.sh
	SH_ALL=1 $(BIN)/python -m pytest -q tests/loopback/sh/test_emit.py

.PHONY: fuzz
fuzz: $(STAMP) ## every parser, with many drawn inputs (FUZZ=N examples each)
	FUZZ=$(or $(FUZZ),20000) $(BIN)/python -m pytest tests/unit -q -m hypothesis

# --- NATs (root: network namespaces) --------------------------------------------------------

.PHONY: test-nat
test-nat: $(STAMP) ## the NAT lab's own tests and a part of the grid
	@tests/prepare.sh
	$(BIN)/python -m pytest tests/nat

.PHONY: nat-grid
nat-grid: $(STAMP) ## all pairings of NATs, with the route each must take (PAIR=A,B JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m tests.nat.grid

.PHONY: bench-punch
bench-punch: $(STAMP) ## 1,000 connections through NATs: share direct, times (JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.punch

.PHONY: bench-first-byte
bench-first-byte: $(STAMP) ## start of both pashlibs to first byte, through NATs (JSON=FILE RTT=0.1)
	@tests/prepare.sh
	@$(BIN)/python -m bench.first_byte $(if $(RTT),--rtt $(RTT)) $(if $(JSON),--json $(JSON))

# --- the runtime tools beside cat and aws s3 cp ----------------------------------------------

AWSCLI := .build/awscli/bin/aws

$(AWSCLI):
	$(PYTHON) -m venv .build/awscli
	.build/awscli/bin/pip install --quiet --disable-pip-version-check awscli

.PHONY: bench-runtime
bench-runtime: $(STAMP) $(AWSCLI) ## r_split & co. beside cat, s3-get/put beside aws s3 cp (JSON=FILE)
	$(BIN)/python -m bench.runtime --aws $(abspath $(AWSCLI)) $(if $(JSON),--json $(abspath $(JSON)))

# --- containers (Docker) ---------------------------------------------------------------------

.PHONY: images
images: $(STAMP) ## build the images and print their sizes (EXTRA="ffmpeg …" adds packages)
	@$(BIN)/python -m services.build $(addprefix --extra ,$(EXTRA))

.PHONY: push
push: images ## tag the node and the Lambda image by digest and push them (REGISTRY=…)
	@$(if $(REGISTRY),,echo "which registry? make push REGISTRY=HOST[/PATH]" >&2; exit 2)
	@$(BIN)/python -m punchlib.aws.images push "$(REGISTRY)" punch-node:local punch-lambda:local

.PHONY: bench-cold
bench-cold: $(STAMP) ## a cold worker in the image to its first stream, beside a bare one; root (ROUNDS=N JSON=FILE)
	@tests/prepare.sh
	@$(BIN)/python -m bench.cold $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(JSON),--json $(JSON))

.PHONY: up
up: $(STAMP) ## start the local emulation: AWS, two NATs, an EC2 node (docs/emulation.md)
	@$(BIN)/python -m services.emulation up

.PHONY: down
down: $(STAMP) ## remove its containers and networks
	@$(BIN)/python -m services.emulation down

.PHONY: env
env: $(STAMP) ## what a shell needs to use it: eval "$$(make -s env)"
	@$(BIN)/python -m services.emulation env

.PHONY: bench-nat
bench-nat: $(STAMP) ## a stream through both NATs beside a bare splice chain there (JSON=FILE)
	@$(BIN)/python -m bench.nat $(if $(JSON),--json $(JSON))

.PHONY: local-e2e
local-e2e: $(STAMP) ## the example job and a pipeline in containers through both NATs, then torn down
	$(BIN)/python -m pytest -v -m e2e tests/e2e/test_job.py tests/e2e/test_sh.py

.PHONY: test-e2e
test-e2e: $(STAMP) ## the same, and what goes wrong on workers: killed, out of memory, throttled …
	$(BIN)/python -m pytest -v -m e2e tests/e2e
