# What CI runs, it runs through these targets. Tools and Python environments are
# installed into .cache when they are first needed, pinned by the lock files that
# each rule names, without root; a changed lock file installs them again.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --warn-undefined-variables

CACHE := .cache
BIN := $(CACHE)/bin
PYDIR := connector/python
PYENV := $(CACHE)/pyenv
PROTOENV := $(CACHE)/protoenv
KERNELENV := $(CACHE)/kernelenv
PYTHON ?= $(shell command -v python3.11 || command -v python3)

# One setting for builds and tests, so that they share the build cache.
export CGO_ENABLED := 0

# The longest first: the others run beside it.
PKG ?= ./test/process ./...
FUZZTIME ?= 10s
SET ?= path
OUT ?= bench/out/$(SET).json
BENCHFLAGS ?=
ENGINE ?=
VLLM ?= 0.26.0
VERSIONS ?= 0.25.1 0.26.0 0.32.0
KILLS ?= 10
NIGHTLY ?=
SOAK ?= 30m
SOAK_ENGINE ?= 1h

PYTEST_ENGINE = PYTHONPATH=$(CURDIR)/tools:$(CURDIR)/$(PYDIR)/src LARDER_KILLS=$(KILLS) LARDER_NIGHTLY=$(NIGHTLY) \
  $(ENGINE_PYTHON) -m pytest -p pytest_noskip -q -c test/engine/pytest.ini

# A directory given with ENGINE= is used as it is; nothing is installed there. 0.26.0,
# which everything but the matrix of versions runs on, has no number in its name.
engine_dir = $(CACHE)/engine$(patsubst %,-%,$(filter-out 0.26.0,$(1)))
ENGINE_DIR := $(if $(ENGINE),$(ENGINE),$(call engine_dir,$(VLLM)))
ENGINE_PYTHON := $(abspath $(ENGINE_DIR))/bin/python

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## bin/larderd and bin/larder
	mkdir -p bin
	go build -o bin/ ./cmd/...

.PHONY: test
test: $(PYENV)/.ready ## everything that needs no engine (PKG=./... narrows the Go side)
	go test -timeout 10m -json $(PKG) | $(PYTHON) tools/gotest.py
	cd $(PYDIR) && PYTHONPATH=$(CURDIR)/tools $(CURDIR)/$(PYENV)/bin/python -m pytest -p pytest_noskip -q

.PHONY: race
race: ## the Go tests under the race detector
	CGO_ENABLED=1 go test -race -timeout 10m -json $(PKG) | $(PYTHON) tools/gotest.py

.PHONY: test-engine
test-engine: build engine ## the connector in a real vLLM (VLLM=version, or ENGINE=dir of an installed one, KILLS=n random kills, NIGHTLY=1 more engines)
	$(PYTEST_ENGINE) $(PYDIR)/tests/engine

.PHONY: test-engine-matrix
test-engine-matrix: build ## test-engine on every version of vLLM that is supported (VERSIONS="0.25.1 0.26.0 0.32.0")
	failed=; for version in $(VERSIONS); do \
	  echo "=== vLLM $$version"; \
	  $(MAKE) test-engine ENGINE= VLLM=$$version || failed="$$failed $$version"; \
	done; [ -z "$$failed" ] || { echo "test-engine-matrix: failed on vLLM$$failed" >&2; exit 1; }
	LARDER_ENGINES="$(foreach v,$(VERSIONS),$(CURDIR)/$(call engine_dir,$(v))/bin/python)" \
	  $(PYTEST_ENGINE) $(PYDIR)/tests/engine/matrix_shared_kv.py $(PYDIR)/tests/engine/matrix_latent_kv.py

.PHONY: test-kernel
test-kernel: $(KERNELENV)/.ready ## the GPU copies' kernel under Triton's interpreter (190 MB to fetch)
	cd $(PYDIR) && PYTHONPATH=$(CURDIR)/tools $(CURDIR)/$(KERNELENV)/bin/python -m pytest -p pytest_noskip -q \
	  --confcutdir=tests/kernel tests/kernel

.PHONY: engine
engine: ## install a pinned engine into .cache/engine, or engine-VLLM (0.75 GB, about 90 s)
	$(if $(ENGINE),,PYTHON=$(PYTHON) test/engine/install.sh $(ENGINE_DIR) $(VLLM))

.PHONY: fuzz
fuzz: ## each Go fuzz target for FUZZTIME (10s)
	tools/fuzz.sh $(FUZZTIME)

.PHONY: soak
soak: ## larderd with little memory and disk under load, killed, stopped and cleared now and then, for SOAK (30m)
	LARDER_SOAK=$(SOAK) go test -count=1 -timeout 0 -run TestSoak -json ./test/process | $(PYTHON) tools/gotest.py

.PHONY: soak-engine
soak-engine: build engine ## a real vLLM with few pages while larderd is killed, stopped and cleared, for SOAK_ENGINE (1h)
	PYTHONPATH=$(CURDIR)/tools:$(CURDIR)/$(PYDIR)/src LARDER_SOAK_ENGINE=$(SOAK_ENGINE) \
	  $(ENGINE_PYTHON) -m pytest -p pytest_noskip -q -c test/engine/pytest.ini $(PYDIR)/tests/engine/soak.py

.PHONY: lint
lint: $(BIN)/golangci-lint $(BIN)/buf $(PYENV)/.ready ## Go (with gofmt and vet), protos, Python
	$(BIN)/golangci-lint run --allow-serial-runners ./...
	$(BIN)/buf lint
	$(BIN)/buf format --diff --exit-code
	$(PYENV)/bin/ruff check $(PYDIR) bench test tools
	$(PYENV)/bin/ruff format --check $(PYDIR) bench test tools
	cd $(PYDIR) && $(CURDIR)/$(PYENV)/bin/mypy
	MYPYPATH=test:$(PYDIR)/src:$(PYDIR)/tests $(PYENV)/bin/mypy --config-file $(PYDIR)/pyproject.toml \
	  $(PYDIR)/tests/engine bench/py bench/gpu tools test/demo test/engine test/harness

.PHONY: format
format: $(BIN)/golangci-lint $(BIN)/buf $(PYENV)/.ready ## rewrite Go, protos and Python in their standard form
	$(BIN)/golangci-lint fmt ./...
	$(BIN)/buf format --write
	$(PYENV)/bin/ruff format $(PYDIR) bench test tools

.PHONY: proto
proto: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(PROTOENV)/.ready ## generate the API's Go and Python code
	$(BIN)/buf generate

.PHONY: proto-check
proto-check: $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(PROTOENV)/.ready ## generated code is current; the API breaks no client
	rm -rf $(CACHE)/proto && mkdir -p $(CACHE)/proto
	$(BIN)/buf generate --output $(CACHE)/proto
	diff -r -x '*.proto' -x doc.go api/larder/v1 $(CACHE)/proto/api/larder/v1
	diff -r -x __init__.py -x __pycache__ $(PYDIR)/src/larder/v1 $(CACHE)/proto/$(PYDIR)/src/larder/v1
	tools/proto-breaking.sh $(BIN)/buf

# What the Python side of a set, if it has one, runs in: an engine, or the test environment. An
# engine's model is the demo's: MODEL, or one that is there, or one made for it.
BENCH_PYTHON := $(if $(filter engine codec-quality,$(SET)),engine,$(if $(filter nvme codec-entropy codec-speed deadline,$(SET)),,$(PYENV)/.ready))
BENCH := go run ./bench/cmd/larder-bench $(if $(filter engine codec-quality,$(SET)),-python $(ENGINE_PYTHON)) \
  $(if $(filter engine,$(SET)),-model "$$($(ENGINE_PYTHON) test/demo/demo.py --print-model --model "$${MODEL:-}" | tail -1)")

.PHONY: bench
bench: build $(BENCH_PYTHON) ## one set of benchmarks: SET=path|engine|nvme|codec-entropy|codec-speed|codec-quality|deadline OUT=file.json (BENCHFLAGS: larder-bench -h)
	mkdir -p $(dir $(OUT))
	$(BENCH) -set $(SET) -out $(OUT) $(BENCHFLAGS)

.PHONY: bench-full
bench-full: build $(BENCH_PYTHON) ## the same with more pairs: longer, tighter intervals
	mkdir -p $(dir $(OUT))
	$(BENCH) -full -set $(SET) -out $(OUT) $(BENCHFLAGS)

.PHONY: demo
demo: ## a prompt's KV leaves a real engine, outlives it, and comes back (MODEL=dir of a model)
	PYTHON=$(PYTHON) test/demo/run.sh

.PHONY: nightly
nightly: ## what does not fit CI: long fuzzing, hundreds of random kills, long soaks
	$(MAKE) race
	LARDER_KILLS=300 go test -count=1 -timeout 30m -run TestKill9 -json ./storage/nvme | $(PYTHON) tools/gotest.py
	LARDER_KILLS=100 go test -count=1 -timeout 30m -json ./test/process | $(PYTHON) tools/gotest.py
	$(MAKE) test-kernel
	$(MAKE) soak
	$(MAKE) fuzz FUZZTIME=10m
	$(MAKE) test-engine KILLS=100 NIGHTLY=1
	$(MAKE) test-engine-matrix
	$(MAKE) soak-engine

.PHONY: tools
tools: $(BIN)/golangci-lint $(BIN)/buf $(BIN)/protoc-gen-go $(BIN)/protoc-gen-go-grpc $(PROTOENV)/.ready $(PYENV)/.ready ## install every tool now

.PHONY: clean
clean: ## remove what was built; keeps the tools and the engine in .cache
	rm -rf bin bench/out test/out $(CACHE)/proto $(PYDIR)/.mypy_cache $(PYDIR)/.ruff_cache $(PYDIR)/.pytest_cache $(PYDIR)/.hypothesis

$(BIN)/buf: tools/buf/go.mod tools/buf/go.sum
	cd tools/buf && go build -o ../../$@ github.com/bufbuild/buf/cmd/buf

$(BIN)/golangci-lint: tools/golangci/go.mod tools/golangci/go.sum
	cd tools/golangci && go build -o ../../$@ github.com/golangci/golangci-lint/v2/cmd/golangci-lint

$(BIN)/protoc-gen-go: tools/protoc/go.mod tools/protoc/go.sum
	cd tools/protoc && go build -o ../../$@ google.golang.org/protobuf/cmd/protoc-gen-go

$(BIN)/protoc-gen-go-grpc: tools/protoc/go.mod tools/protoc/go.sum
	cd tools/protoc && go build -o ../../$@ google.golang.org/grpc/cmd/protoc-gen-go-grpc

$(PROTOENV)/.ready: tools/protoc/requirements.txt
$(PYENV)/.ready: $(PYDIR)/requirements-test.txt
$(KERNELENV)/.ready: $(PYDIR)/requirements-kernel.txt
$(PROTOENV)/.ready $(PYENV)/.ready $(KERNELENV)/.ready:
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check -q --no-deps -r $<
	touch $@
