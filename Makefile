# Two commands are enough to begin: `make demo` shows Warren at work, `make test` proves it. Both install what is missing.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
TARGET := $(or $(CARGO_TARGET_DIR),target)
AS_USER := scripts/as-user.sh
AS_ROOT := scripts/as-root.sh
PREFIX ?= /usr/local

# Cargo runs what it built through this: as root, for the suites that make network namespaces.
ROOT_RUNNER := --config 'target."cfg(target_os = \"linux\")".runner = ["$(CURDIR)/scripts/as-root.sh"]'
# What of the lab's package needs neither root nor an agent that runs.
PROOFS := fuzz vectors manifests monitoring deploy
# Always the whole workspace, and of its tests a part: a part of the packages has other features of what they depend on, and
# all of that is compiled once more.
ONE_BUILD := cargo nextest run --locked --workspace
IS_PROOF := package(warren-tests) & ($(foreach name,$(PROOFS),binary($(name)) +) none())
# The peers are in the caller's cargo folder, not in root's.
CARGO_BIN := $(shell $(AS_USER) sh -c 'echo $${CARGO_HOME:-$$HOME/.cargo}/bin')
SIDE_BY_SIDE := $(AS_ROOT) env WARREN_BENCH_PATH="$(CARGO_BIN)" $(TARGET)/release/side-by-side
# make bench ROW=udp, or CASES=tcp1,rttload PEERS=warren,gotatun TOPOLOGIES=pods MTUS=1500 WORKERS=1,2 RUNS=5 SECONDS=5
BENCH_PART := $(foreach name,ROW CASES PEERS TOPOLOGIES MTUS WORKERS RUNS SECONDS,$(if $($(name)),--$(shell echo $(name) | tr A-Z a-z) $($(name))))
HAVE_NEXTEST := $(shell scripts/as-user.sh bash -c 'cargo nextest --version' >/dev/null 2>&1 && echo yes)

ifeq ($(HAVE_NEXTEST),yes)
TEST_UNIT := $(ONE_BUILD) -E 'not package(warren-tests) + ($(IS_PROOF))'
TEST_SIMULATION := cargo nextest run --locked -p warren-crypto --features mock-instant
TEST_ROOT := $(ONE_BUILD) --run-ignored only --profile lab $(ROOT_RUNNER) -E 'package(warren) + package(warren-io)'
TEST_LAB := $(ONE_BUILD) --profile lab $(ROOT_RUNNER) -E 'package(warren-tests) - ($(IS_PROOF))'
else
TEST_UNIT := cargo test --locked --workspace --exclude warren-tests --lib --bins --tests
TEST_PROOFS := cargo test --locked -p warren-tests $(foreach name,$(PROOFS),--test $(name))
TEST_SIMULATION := cargo test --locked -p warren-crypto --features mock-instant
TEST_ROOT := cargo test --locked -p warren -p warren-io $(ROOT_RUNNER) -- --ignored --test-threads 1
TEST_LAB := cargo test --locked -p warren-tests $(ROOT_RUNNER) -- --test-threads 1
endif

.PHONY: help demo test unit simulation lab matrix interop-old check fmt bench bench-quick bench-build build deb install clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: ## Three nodes, six Pods, one encrypted network on this machine; cleans up after itself (DEMO="--keep" and others)
	@scripts/setup.sh demo
	@$(AS_USER) cargo build --locked --release -p warren
	@$(AS_ROOT) $(TARGET)/release/warren demo $(DEMO)

test: ## Every test: pure ones, the simulation, then the lab as root
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory unit simulation lab

unit: ## Unit and property tests, fuzz corpora; no root
	$(AS_USER) $(TEST_UNIT)
	$(if $(TEST_PROOFS),$(AS_USER) $(TEST_PROOFS))
	$(AS_USER) cargo test --locked --workspace --doc

simulation: ## Two tunnels in virtual time; no root; an invocation of its own, so that virtual time reaches nothing else
	$(AS_USER) $(TEST_SIMULATION)

matrix: ## Warren beneath every CNI: each mode, version of IP and MTU, with and without, as one table (WARREN_MATRIX=words)
	@scripts/setup.sh test
	$(AS_USER) cargo build --locked -p warren
	$(AS_USER) env WARREN_MATRIX="$(WARREN_MATRIX)" cargo test --locked -p warren-tests $(ROOT_RUNNER) --test beneath_cni -- --ignored --nocapture the_matrix

lab: ## Suites in network namespaces with a real etcd; as root, two tests at a time
	$(AS_USER) $(TEST_ROOT)
	$(AS_USER) $(TEST_LAB)

interop-old: ## This build and an older one in one mesh, and upgrades between them under load (OLD=commit; else the last tag)
	@scripts/setup.sh test
	$(AS_USER) cargo build --locked -p warren
	$(AS_USER) scripts/old-build.sh "$(OLD)"
	$(AS_USER) env WARREN_OLD_BIN="$(abspath $(TARGET))/old/warren" cargo test --locked -p warren-tests $(ROOT_RUNNER) --test interop --test rollout -- --ignored --nocapture --test-threads=1 older_version

check: ## Format, lints, licences, bans, purity of the core
	@scripts/setup.sh check
	$(AS_USER) cargo fmt --all -- --check
	$(AS_USER) cargo clippy --locked --workspace --all-targets -- -D warnings
	$(AS_USER) scripts/deny.sh
	$(AS_USER) scripts/purity.sh

fmt: ## Format everything
	$(AS_USER) cargo fmt --all

bench: bench-build ## Everything side by side: hours, and it says how many; a part by ROW=, CASES=, PEERS=, RUNS= (benches/README.md)
	$(if $(strip $(BENCH_PART)),,$(AS_USER) cargo bench --locked -p warren-benches)
	$(SIDE_BY_SIDE) --full $(BENCH_PART)
	@$(AS_ROOT) chown -R --reference=benches benches/out

bench-quick: bench-build ## Warren beside its peers in under two minutes; writes benches/out/
	$(SIDE_BY_SIDE) --quick
	@$(AS_ROOT) chown -R --reference=benches benches/out

bench-build:
	@scripts/setup.sh bench
	$(AS_USER) cargo build --locked --release -p warren -p warren-benches

build: ## The release binary
	@scripts/setup.sh build
	$(AS_USER) cargo build --locked --release -p warren

deb: build ## A Debian package of the release binary, its units and settings, in target/debian/; says what is in it that should not be
	@scripts/setup.sh deb
	$(AS_USER) scripts/deb.sh

install: build ## Into PREFIX (default /usr/local)
	$(AS_ROOT) install -D -m 0755 $(TARGET)/release/warren $(DESTDIR)$(PREFIX)/bin/warren

clean: ## Remove what was built
	$(AS_USER) cargo clean
