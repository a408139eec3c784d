# Two commands do all the set-up: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Relative, like every path here; WANWU_MODEL_REPOSITORY names another place.
WANWU_MODEL_REPOSITORY ?= model_repository
export WANWU_MODEL_REPOSITORY

.DEFAULT_GOAL := help
.PHONY: help install install-clients demo test test-gateway test-chart test-loadtest test-slow test-native test-gpu test-live test-cluster test-images chart-docs images bundle bundle-verify deploy bench bench-attacks bench-client bench-decode bench-export bench-labels bench-load bench-gpu lint format export serve doctor clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Make .venv with pinned packages

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v in ((3, 11), (3, 12)) or sys.exit( \
	  f"this is Python {v[0]}.{v[1]} and constraints.txt pins packages for 3.11 and 3.12; " \
	  "name one of these: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[export,modelscope,large-banks,parquet,server,gateway,loadtest,demo,dev]'
	@touch $@

# Each has an environment of its own: this one for Python holds another typer than constraints.txt.
CLIENTS := tests/gateway/clients

install-clients: ## Install what the gateway's tests generate clients with, by pip and npm
	$(PYTHON) -m venv $(CLIENTS)/.venv
	$(CLIENTS)/.venv/bin/pip install --quiet --disable-pip-version-check -r $(CLIENTS)/requirements.txt
	npm ci --prefix $(CLIENTS) --no-audit --no-fund

# The starter is exported only where there are no models: those that are there may be yours, however
# old. `make export` writes the starter once more.
MANIFEST := $(WANWU_MODEL_REPOSITORY)/manifest.json

$(MANIFEST): | $(INSTALLED)
	$(BIN)/wanwu export starter

demo: $(MANIFEST) ## Export the starter model if there is none, serve it, name real photographs
	$(BIN)/wanwu demo

test: $(INSTALLED) ## Check style and types, then run the tests
	$(MAKE) --no-print-directory lint
	$(BIN)/pytest

test-gateway: $(INSTALLED) ## Test the gateway: callers, hostile uploads, audit log, the page in a browser
	$(BIN)/pytest tests/gateway

test-chart: $(INSTALLED) ## Test the chart: every example on every Kubernetes, its rules by promtool
	$(BIN)/python helm/generate.py --check
	$(BIN)/pytest --numprocesses auto --dist worksteal tests/chart tests/k8s

test-loadtest: $(INSTALLED) ## Test the load, its report, and the capacity planner
	$(BIN)/pytest tests/loadtest

test-slow: $(INSTALLED) ## Test every model family, version swaps, faults under load
	$(BIN)/pytest tests/checkpoints tests/swaps tests/faults

test-native: $(INSTALLED) ## Test serving, swaps and faults on Triton's onnxruntime backend (WANWU_TRITON_BACKENDS)
	$(BIN)/pytest --profile cpu tests/serving tests/swaps tests/faults

test-gpu: $(INSTALLED) ## Test on a GPU: serve, doctor, the gate, device memory; skipped without one
	$(BIN)/pytest tests/gpu

test-live: $(INSTALLED) ## Test the chart's alarms on a real load, and the archive for no internet
	$(BIN)/pytest tests/chart_live tests/airgap

test-cluster: $(INSTALLED) ## Test the chart in the cluster of KUBECONFIG: VALUES=mine.yaml, NAMESPACE: where its claims and Secrets are
	VALUES="$(VALUES)" NAMESPACE="$(NAMESPACE)" $(BIN)/pytest --timeout 1200 tests/cluster

test-images: $(INSTALLED) ## Test the gateway's image: build it, run it read-only as uid 1000 (Debian, as root)
	$(BIN)/pytest --timeout 900 tests/images

chart-docs: $(INSTALLED) ## Write what the chart decides: its README and schema, the configs for CPU and GPU nodes
	$(BIN)/python helm/generate.py

bench-export: $(INSTALLED) ## Measure size, memory, speed and cosine of every precision
	PYTHONPATH=tests $(BIN)/python export/bench/bench_export.py $(if $(CHECKPOINT),--checkpoint $(CHECKPOINT))

bench: $(INSTALLED) ## Measure Wanwu against what users have today: services, frameworks, each in its own environment
	$(BIN)/python loadtest/bench/bench_peers.py $(OPTIONS)

bench-client: $(INSTALLED) ## Measure the client against the same file in-process and the seed's script, and the gateway
	PYTHONPATH=tests:export/bench $(BIN)/python client/bench/bench_client.py $(OPTIONS)
	PYTHONPATH=export/bench $(BIN)/python client/bench/bench_gateway.py $(OPTIONS)

bench-attacks: $(INSTALLED) ## Measure what a caller notices while others attack the gateway, 10 minutes each
	PYTHONPATH=tests:export/bench $(BIN)/python client/bench/bench_attacks.py $(OPTIONS)

bench-decode: $(INSTALLED) ## Measure decoding a JPEG of 12 megapixels
	PYTHONPATH=export/bench $(BIN)/python client/bench/bench_decode.py $(OPTIONS)

bench-labels: $(INSTALLED) ## Measure a bank of 50,000 labels: building it, recognising against it
	$(BIN)/python export/bench/bench_labels.py

bench-load: $(MANIFEST) ## Measure a load on the embedded Triton: its knee, 80 and 150 % of it, the planner's queue
	$(BIN)/python loadtest/bench/bench_load.py $(OPTIONS)

bench-gpu: $(INSTALLED) ## Measure a GPU: onnxruntime, PyTorch, and Triton before the same towers
	$(BIN)/python loadtest/bench/bench_gpu.py $(OPTIONS)

# ENGINE (docker, podman, buildah), REGISTRY, TAG and BASE are read by build.sh.
CONTEXT ?= dist/images

images: $(INSTALLED) ## Build images by docker, podman or buildah; IMAGES: which, REGISTRY, TAG, BASE, EXTRAS
	@sh k8s/images/engine.sh >/dev/null
	$(BIN)/python k8s/airgap/wheels.py "$(CONTEXT)" --images $(or $(IMAGES),gateway loadtest export) --extras "$(EXTRAS)"
	CONTEXT="$(CONTEXT)" sh k8s/images/build.sh $(or $(IMAGES),gateway loadtest export)

BUNDLE ?= dist/wanwu.tar.gz

bundle: $(MANIFEST) ## Write one archive that installs Wanwu without internet; IMAGES: what for, EXTRAS
	$(BIN)/python k8s/airgap/bundle.py $(BUNDLE) --models $(WANWU_MODEL_REPOSITORY) --images $(or $(IMAGES),gateway) --extras "$(EXTRAS)"

bundle-verify: $(INSTALLED) ## Check every file of the archive
	$(BIN)/python k8s/airgap/bundle.py $(BUNDLE) --verify

deploy: ## Install into the cluster that kubectl speaks to: make deploy VALUES=mine.yaml
	@test -f "$(VALUES)" || { echo "give your values file, VALUES is '$(VALUES)': make deploy VALUES=mine.yaml"; exit 2; }
	sh k8s/airgap/install.sh install -f "$(VALUES)"

lint: $(INSTALLED) ## Check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED) ## Put the code into its standard form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

export: $(INSTALLED) ## Export the starter model into model_repository/, over what is there
	$(BIN)/wanwu export starter

serve: $(MANIFEST) ## Serve model_repository/, or else the starter model, until Ctrl-C
	$(BIN)/wanwu serve

doctor: $(INSTALLED) ## Check the server that WANWU_URL names
	$(BIN)/wanwu doctor

clean: ## Remove the environment and everything exported
	rm -rf $(VENV) .venv-peers model_repository/manifest.json model_repository/values.yaml model_repository/.lock model_repository/manifest.audit.*
	rm -rf model_repository/*/[0-9]* model_repository/*/.staging model_repository/label_bank_*
