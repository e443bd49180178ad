# `make` lists what there is. Everything runs on Debian and Ubuntu with Rust; what needs root asks sudo for it.

CARGO ?= cargo
SHELL := /bin/bash
TARGET_DIR := $(abspath $(or $(CARGO_TARGET_DIR),target))
export FARLUN_BIN ?= $(TARGET_DIR)/release/farlun

# Seconds per fuzz target.
FUZZ_SECONDS ?= 60
# More arguments for the benchmark, such as "--rounds 5 --json bench.json".
BENCH ?=

ROOT := $(if $(filter 0,$(shell id -u)),,sudo -E)
# Builds stay the user's: only the finished test binaries run as root.
# Tests of the libraries that need devices, mounts, namespaces or sshd.
SYSTEM_TESTS := --test 'lun_*' $(patsubst tunnel/tests/%.rs,--test %,$(wildcard tunnel/tests/*.rs))
AS_ROOT := $(if $(ROOT),--config 'target."cfg(all())".runner="$(ROOT)"')

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lint unit integration setup soak bench fuzz deny release

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

demo: release ## a disk exported, reached through SSH, written and verified, all on this machine
	$(FARLUN_BIN) demo

test: lint unit integration ## all tests, after installing what they need

lint:
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

unit: ## tests that need neither root nor a network
	$(CARGO) test --workspace --exclude integration --exclude tunnel --exclude target-core
	$(CARGO) test -p target-core --lib --test 'iscsi_*' --test 'scsi_*'
	$(CARGO) test -p tunnel -p integration --lib --bins

integration: release setup ## tests with real kernels, real initiators and real sshd
	$(CARGO) test -p tunnel -p target-core $(AS_ROOT) $(SYSTEM_TESTS)
	$(CARGO) test -p integration $(AS_ROOT) --test '*'

setup: ## install what the tests need
	$(ROOT) integration/scripts/setup

soak: release setup ## the long versions of the tests
	FARLUN_SOAK=1 FARLUN_SOAK_CASES=5000 PROPTEST_CASES=5000 FARLUN_LEAK_ROUNDS=20 \
		$(CARGO) test --workspace --exclude integration $(AS_ROOT)
	FARLUN_SOAK=1 $(CARGO) test -p integration $(AS_ROOT) --test '*'

bench: release ## farlun beside tgt: throughput and processor time
	$(ROOT) integration/scripts/setup --bench
	$(CARGO) run --release -p integration $(AS_ROOT) --bin bench -- $(BENCH)

fuzz: ## every fuzz target for FUZZ_SECONDS (60) each; needs cargo-fuzz and a nightly toolchain
	@cargo fuzz --version >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
	@set -e; for crate in $(patsubst %/fuzz/Cargo.toml,%,$(wildcard */fuzz/Cargo.toml)); do \
		for target in $$(cd $$crate && cargo +nightly fuzz list); do \
			echo "fuzz $$crate $$target"; \
			(cd $$crate && cargo +nightly fuzz run $$target -- -max_total_time=$(FUZZ_SECONDS)); \
		done; \
	done

deny: ## licences and advisories of what we depend on; needs cargo-deny
	@cargo deny --version >/dev/null || { echo "cargo-deny is missing: cargo install cargo-deny"; exit 1; }
	cargo deny check

release:
	$(CARGO) build --release --bin farlun
