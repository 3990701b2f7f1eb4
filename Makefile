# Vitrine: `make help` lists what there is.
ifeq ($(filter order-only,$(.FEATURES)),)
$(error GNU make 3.81 or newer is needed (order-only prerequisites); this is make $(MAKE_VERSION))
endif

HOST ?= 0.0.0.0
PORT ?= 3000
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
# BentoML would report its use to its makers.
export BENTOML_DO_NOT_TRACK := True

# What serves on a GPU needs Keras and CUDA's libraries.
SERVING := $(if $(filter gpu,$(VITRINE_DEVICE)),gpu,serve)

.PHONY: help serve test test-all bench load soak fuzz gpu-check train lint format image-check k8s-check dashboard \
	audit capacity lock bench-lock bento clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/:[^#]*## /\t/' | expand -t 13

serve: $(VENV)/.$(SERVING) ## Serve the models in models/: make serve HOST=127.0.0.1 PORT=8080
	@echo "Starting the service; Ctrl-C stops it"
	@exec $(BIN)/python -m service --host $(HOST) --port $(PORT)

test: $(VENV)/.test ## Run the tests, in two processes, but for the slow ones
	@$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow" $(ARGS)

test-all: $(VENV)/.test $(VENV)/.sign $(VENV)/.audit ## Run all tests: image, Bento, faults, Prometheus, Locust, training, too; LONG=1 adds those of minutes
	@$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

bench: $(VENV)/.test ## Measure against other servers: make bench ARGS="--rounds 5"
	@$(BIN)/python -m tests.bench $(ARGS)

gpu-check: $(VENV)/.gpu $(VENV)/.test ## Compare every model on this machine's GPU with the CPU
	@$(BIN)/python -m tests.bench.gpu_check $(ARGS)

train: $(VENV)/.train ## Train a model: make train ARGS="fashion-mnist --smoke"
	@$(BIN)/python -m training $(ARGS)

lint: $(VENV)/.test ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(VENV)/.test ## Format the code
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

load: $(VENV)/.serve $(VENV)/.load ## Load a service of its own for two minutes; the report goes to .load/
	@$(BIN)/python -m tests.load $(ARGS)

soak: $(VENV)/.test ## Load all routes for half an hour while workers are killed: make soak ARGS="--seconds 60"
	@$(BIN)/python -m tests.soak $(ARGS)

fuzz: $(VENV)/.test ## Try damaged inputs for a minute: make fuzz ARGS="--seconds 600"; findings go to .fuzz/
	@$(BIN)/python -m tests.fuzz $(ARGS)

image-check: $(VENV)/.test ## Build the image for CPUs with buildah, run it and ask every model
	@$(BIN)/python -m pytest -s tests/deploy/test_image.py tests/deploy/test_dockerfile.py $(ARGS)

k8s-check: $(VENV)/.serve $(VENV)/.k8s ## Render, validate and check the Kubernetes manifests
	@$(BIN)/python -m pytest tests/k8s $(ARGS)

audit: $(VENV)/.audit ## Write bills of materials and look for known weaknesses in what serves
	@$(BIN)/python -m deploy.audit $(ARGS)

dashboard: $(VENV)/.test ## Write the Grafana dashboard again, and what k8s/ has of it and the rules
	@$(BIN)/python -m deploy.observability.grafana.dashboard
	@$(BIN)/python k8s/components/monitoring/generate.py

bento: $(VENV)/.serve ## Build a Bento with the models in it
	@$(BIN)/bentoml build

lock: $(VENV)/.test ## Lock the dependencies again
	@set -e; for extras in "test pyproject.toml --extra train --extra test" "train pyproject.toml --extra train" \
			"gpu pyproject.toml --extra gpu" "sign pyproject.toml --extra sign" "audit --group audit" \
			"load --group load" "k8s --group k8s" "serve pyproject.toml"; do \
		set -- $$extras; name=$$1; shift; \
		constraint=$$([ "$$name" = test ] || echo "--constraint requirements/test.lock"); \
		$(BIN)/uv pip compile "$$@" $$constraint --universal --generate-hashes --upgrade \
			--no-emit-index-url --no-emit-find-links --quiet \
			--custom-compile-command "make lock" --output-file requirements/$$name.lock; \
	done

capacity: $(VENV)/.test ## Measure what a pod answers, and write it into the capacity plan
	@$(BIN)/python -m tests.bench.capacity --out tests/bench/capacity.json $(ARGS)
	@$(BIN)/python -m tests.bench.capacity --write
	@$(BIN)/python -m tests.bench.autoscaling --write

bench-lock: $(VENV)/.test ## Lock the dependencies of the benchmark's peers again
	@set -e; for needs in tests/bench/peers/*/requirements.in; do \
		(cd $$(dirname $$needs) && $(abspath $(BIN))/uv pip compile requirements.in --universal --python-version 3.11 \
			--generate-hashes --upgrade --no-emit-index-url --no-emit-find-links --quiet \
			--custom-compile-command "make bench-lock" --output-file requirements.lock); \
	done

clean: ## Remove the environment and everything that can be made again
	@rm -rf $(VENV) .audit .bench .fuzz .image .load .soak .smoke .mypy_cache .ruff_cache .pytest_cache
	@find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v $(PYTHON) > /dev/null || { echo "error: $(PYTHON) is missing: Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V); name another: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
		echo "error: $(PYTHON) lacks the venv module (on Debian: apt install python3-venv)" >&2; exit 1; }
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# One stamp for each lock file: what is installed is installed again only when the lock changes.
# Only what serves is compiled beforehand: of TensorFlow's 11,000 modules a test needs a part.
$(VENV)/.%: requirements/%.lock | $(VENV)/bin/python
	@echo "Installing requirements/$*.lock into $(VENV)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		$(if $(filter serve gpu,$*),,--no-compile) -r requirements/$*.lock
	@touch $@
