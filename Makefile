export CARGO_TARGET_DIR ?= $(HOME)/.cache/legwork/target
.PHONY: test
test:
	cargo test --workspace
