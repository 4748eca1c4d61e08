# make demo, make test: everything a newcomer needs. The other targets are for those who work on it.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/legwork/target
SHELL := /bin/bash

.PHONY: help demo test nightly check bench release setup

help: ## Shows this.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## Installs or checks what the others need; says what it does.
	@scripts/setup

demo: ## Builds and runs the demo: a simulated field organisation, live in SQL and metrics.
	@scripts/setup build
	cargo build -p legwork
	"$(CARGO_TARGET_DIR)/debug/legwork" demo $(ARGS)

test: ## All tests: unit, property, golden, end to end with a real Kafka and real clients.
	@scripts/setup test
	scripts/test

nightly: ## The property tests with 10,000 cases; a failing one prints its seed.
	LEGWORK_CASES=10000 cargo test -p legwork-operators properties -- --nocapture

faults: ## Faults for real: 200 kills under load, zombies, a full disk, brokers and object stores that fail. Half an hour.
	@scripts/setup test
	scripts/faults

check: ## The fast lane: format, lints, boundaries between crates, tests of the fast crates.
	@scripts/setup build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo xtask codegen --check
	cargo xtask deps
	cargo test

release: ## The binary for production, optimised throughout: release/legwork in the target folder.
	@scripts/setup build
	cargo build --release -p legwork

bench: release ## Measures Legwork beside its baselines on a real Kafka, in one run.
	@scripts/setup test
	scripts/bench
