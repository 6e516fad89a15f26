# Everything that people and CI run. Each target does its own set-up, on a machine where nothing is prepared (Debian, Rust, root).

.PHONY: help demo up down test lint deny test-clients test-compose test-recovery deb sbom test-packages bench sqlx-prepare

help: ## What there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

demo: ## Set up everything, live-migrate a real guest there and back through the REST API, leave it running
	@deploy/dev/bench demo

up: ## Start the cluster of the demo: three hosts, broker, database, Drover
	@deploy/dev/bench up

down: ## Remove all of it
	@deploy/dev/bench down

test: ## Set up everything and run every test
	@deploy/dev/test

test-clients: ## The same for OpenStack's own clients and a real Keystone, from PyPI, against real guests
	@deploy/dev/test clients

test-compose: ## The dev cluster of deploy/compose in a real Docker engine: TLS on every hop, guests that nobody can read on their way
	@deploy/compose/test

test-recovery: ## A post-copy whose link breaks, on hosts with Debian testing's libvirt and QEMU: libvirt 11.2 and 11.3 cannot go on
	@deploy/dev/test testing a_post_copy_that_breaks

deb: ## Debian packages of all of it, into target/debian
	@deploy/packages/build

sbom: ## What each program is made of (CycloneDX), into target/sbom
	@deploy/packages/sbom

test-packages: ## Install them in a clean Debian tree and look at what came of it
	@deploy/packages/test

lint: ## clippy and rustfmt over everything
	cargo fmt --check
	cargo clippy --workspace --all-targets -- -D warnings

deny: ## Licences, sources, duplicates and known vulnerabilities of what we depend on (deny.toml)
	@deploy/dev/deny

bench: ## Measure against libvirt itself, and policies side by side; writes docs/benchmarks.md and docs/convergence.md
	@deploy/dev/bench measure
	@deploy/dev/bench measure --convergence

sqlx-prepare: ## Renew .sqlx after a change of a query or of the schema
	@deploy/dev/sqlx-prepare
