# The commands of the project. `make help` lists them.

CARGO ?= cargo
# `make run PROFILE=release` for the optimised build (it takes some minutes the first time).
PROFILE ?= dev
BUILD_DIR := $(if $(filter dev,$(PROFILE)),debug,$(PROFILE))

# Tools that scripts/setup.sh installs for this checkout only.
export PATH := $(CURDIR)/target/tools/node_modules/.bin:$(PATH)
# The binary that the tests outside cargo call.
export SLUICE_BIN ?= $(CURDIR)/target/$(BUILD_DIR)/sluice

.PHONY: help run build build-tests setup test test-rust test-interop test-container test-vm fuzz check lint deny image bench bench-least count count-parent neighbours soak clean

help: ## List the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 18

run: ## Build, and run `sluice demo` (ARGS="--listen 127.0.0.1:9000" adds arguments)
	@scripts/setup.sh build
	$(CARGO) build --locked --profile $(PROFILE) --bin sluice
	@exec target/$(BUILD_DIR)/sluice demo $(ARGS)

build: ## Build the binary
	$(CARGO) build --locked --profile $(PROFILE) --bin sluice

setup: ## Install what the tests and the checks need
	@scripts/setup.sh build test vm lint

test: ## Install what the tests need, and run them all
	@scripts/setup.sh build test vm
	@$(MAKE) --no-print-directory test-rust
	@$(MAKE) --no-print-directory fuzz
	@$(MAKE) --no-print-directory count-parent
	@$(MAKE) --no-print-directory test-vm
	@$(MAKE) --no-print-directory test-interop
	@$(MAKE) --no-print-directory test-container

# What all tests call. Not `build`: that would compile the dependencies once more, with the features that it needs alone.
build-tests:
	$(CARGO) build --locked --profile $(PROFILE) --bins --examples

test-rust: build-tests ## The unit and integration tests (needs cargo-nextest: `make setup`)
	$(CARGO) nextest run --locked
	$(CARGO) test --locked --doc

fuzz: ## Each fuzz target: its corpus, and FUZZ_SECONDS (5) of inputs that it makes up
	CARGO="$(CARGO)" fuzz/run.sh $(or $(FUZZ_SECONDS),5)

test-interop: build-tests ## Real clients and real servers that nobody here wrote
	tests/interop/run.sh

test-container: build-tests ## The image and the compose file (skipped where there is no Docker engine)
	tests/container/run.sh

test-vm: build-tests ## Limits kept by real cgroups, in an emulated machine (skipped where there is no qemu)
	tests/vm/run.sh

check: lint test ## Everything that has to pass

lint: ## Formatting, clippy with warnings denied, and the dependency rules
	@scripts/setup.sh build lint
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	@$(MAKE) --no-print-directory deny

deny: ## The dependency rules of deny.toml
	$(CARGO) deny --locked check bans licenses sources
	@scripts/advisories.sh

image: ## Build the image `sluice`
	scripts/image.sh sluice

soak: build-tests ## The long sizes: 10,000 sessions ended in ugly ways, 20 million messages and 500,000 calls on shared children, 5 minutes for each fuzz target
	SLUICE_CHURN=10000 $(CARGO) nextest run --locked --no-capture -E 'test(guardian::churn::)'
	SLUICE_MUX_MESSAGES=20000000 $(CARGO) nextest run --locked --no-capture -E 'test(multiplexer::tests::property::)'
	SLUICE_MUX_CALLS=500000 $(CARGO) nextest run --locked --no-capture -E 'test(every_call_is_answered)'
	@$(MAKE) --no-print-directory fuzz FUZZ_SECONDS=$(or $(FUZZ_SECONDS),300)

count: ## The instructions that a message of each kind takes
	CARGO="$(CARGO)" python3 bench/count.py

count-parent: ## The same beside the commit before this one: over 3 % more fail
	CARGO="$(CARGO)" python3 bench/count.py --parent

bench: ## The side-by-side benchmark (bench/README.md)
	bench/run.sh

bench-least: ## Measure sluice beside the least bridge there can be, and write the table into docs/BENCHMARKS.md
	bench/run.sh least --write $(CURDIR)/docs/BENCHMARKS.md

neighbours: ## The table of the hostile neighbour (docs/NEIGHBOURS.md; ARGS="--rows folders" adds arguments)
	$(CARGO) build --locked --release --bin sluice --example fixture --example neighbours
	target/release/examples/neighbours $(ARGS)

clean: ## Remove what was built
	$(CARGO) clean
