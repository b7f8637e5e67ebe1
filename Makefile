# Tailor's commands. `make help` lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
# Where no GPU is present, pip's own settings, or this index, give the CPU build of torch; PyTorch's install page names it.
TORCH_INDEX ?=
PIP_TORCH := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PROTOS := $(shell find proto -name '*.proto' | sort)
KEEP ?=
GPU_PYTHON ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast check fmt proto sample up down images lock bench-anonymization bench-inference gpu-check bench-forecast bench-training bench-preferences

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(VENV)/.installed ## Install what is missing into .venv, at the lock's versions

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "Python 3.11 is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "The venv module is missing: apt-get install python3.11-venv"; exit 1; }
	@echo "Installing the locked packages; this takes some minutes the first time ..."
	$(BIN)/pip install --quiet --no-deps $(PIP_TORCH) --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## Documents to a tuned model, start to finish (KEEP=1 leaves it running)
	$(BIN)/tailor demo $(if $(KEEP),--keep)

test: install ## Install and pass every test, two files at a time
	$(BIN)/pytest --numprocesses 2 --dist loadscope

test-fast: install ## The tests that need no store and no model
	$(BIN)/pytest tests/unit tests/contract -m 'not integration and not slow and not e2e'

bench-anonymization: install ## Quality and speed of the barrier, beside plain Presidio
	$(BIN)/python -m bench.anonymization

bench-inference: install ## Speed of inference beside others, load, rollouts and a killed replica (20 minutes)
	$(BIN)/python -m bench.inference

gpu-check: $(if $(GPU_PYTHON),,install) ## bf16, NF4, kernels and memory on a GPU; says so where there is none (GPU_PYTHON=another environment's)
	$(or $(GPU_PYTHON),$(BIN)/python) -m pytest tests/gpu -m gpu -rs

bench-forecast: install ## The forecast of memory and time beside what real runs take
	$(BIN)/python -m bench.forecast

bench-training: install ## SFT beside trl, full beside LoRA and QLoRA, and what the service adds
	$(BIN)/python -m bench.training

bench-preferences: install ## Reward model, RLOO and DPO on rankings
	$(BIN)/python -m bench.preferences

check: install ## Format, lint, types, import contracts, generated code, manifests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/python deploy/generate.py --check
	$(BIN)/python -m deploy.errors_page --check
	$(BIN)/python deploy/sample/build.py --check
	$(BIN)/pytest -q tests/unit/deploy

fmt: install ## Format everything
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/buf format --write proto

proto: install ## Generate code and event docs from proto/
	$(BIN)/python deploy/generate.py
	$(BIN)/python -m deploy.errors_page

sample: install ## Render the sample corpus from its sources
	$(BIN)/python deploy/sample/build.py

up: install ## Start the embedded stack
	$(BIN)/tailor up

down: install ## Stop it
	$(BIN)/tailor down

images: ## Build every service's image
	docker compose build

lock: ## Resolve requirements.lock again, from pyproject.toml and deploy/lock.in
	$(PYTHON) deploy/lock.py
