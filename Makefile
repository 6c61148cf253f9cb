# `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
CARGO ?= cargo
# Tests make the program fail at chosen points; a build without the feature has no such points.
TESTED := --features failpoints

.PHONY: help demo test test-rust test-sdk postgres lint fmt fmt-check doc openapi bench deny ci

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | column -t -s $$'\t'

demo: ## Show everything at work
	$(CARGO) run --release -- demo

test: postgres test-rust test-sdk ## All tests, on both databases, with the official SDKs

test-rust: ## Unit, storage, API and journey tests
	$(CARGO) test $(TESTED)

test-sdk: ## The official Python and Node SDKs against a running server
	$(CARGO) build $(TESTED)
	tests/sdk/run.sh

postgres: ## Install PostgreSQL's server programs where they are missing (Debian)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null || { \
	  [ "$$(id -u)" = 0 ] || { echo "install the postgresql package, or run this as root"; exit 1; }; \
	  apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends postgresql; }

lint: ## Clippy, warnings denied
	$(CARGO) clippy -- -D warnings
	$(CARGO) clippy --all-targets $(TESTED) -- -D warnings

fmt: ## Format the code
	$(CARGO) fmt

fmt-check: ## Check the format
	$(CARGO) fmt --check

doc: ## Build the documentation, warnings denied
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps

openapi: ## Write openapi/openapi.json anew
	$(CARGO) run -- openapi > openapi/openapi.json

bench: ## Measure everything and print one table
	$(CARGO) bench --bench table

deny: ## Check licences, duplicate crates and sources (needs cargo-deny)
	$(CARGO) deny check bans licenses sources

ci: fmt-check lint doc test ## What runs on every change
