# The targets, each with what it does after ##: `make help` prints them.
.DEFAULT_GOAL := help
.PHONY: $(shell sed -nE 's/^([a-z0-9-]+):.*/\1/p' Makefile)

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
IMAGE ?= localhost/gracekeeper:$(VERSION)
TOOLS_IMAGE ?= localhost/gracekeeper-tools:$(VERSION)
PYTHON := target/test-env/venv/bin/python
LINTERS := target/test-env/linters/bin

help: ## prints this
	@sed -nE 's/^([a-z0-9-]+):.* ## (.*)/\1\t\2/p' Makefile | while IFS='	' read -r name what; do printf 'make %-10s %s\n' "$$name" "$$what"; done

demo: ## rehearses the end of an example app: without a hook, with a sleep, with gracekeeper
	cargo build --locked
	target/debug/gracekeeper rehearse --report target/demo.html --fail-on lost=0 \
	  --url 'http://127.0.0.1:{port}/work?seconds=0.5' --url 'http://127.0.0.1:{port}/work?seconds=4' \
	  --notify 'http://127.0.0.1:{port}/drain' -- python3 tests/apps/shop.py --goodbye {port}

test: setup ## sets up what the tests need and runs them all
	cargo test --locked

chart: setup ## checks the chart: lint, every example, schema, types, alerts; and a real cluster, if KUBECONFIG names one
	cargo build --locked
	$(PYTHON) tests/chart/chart.py
	cargo test --locked --test chart
	$(PYTHON) tests/chart/alerts.py target/debug/gracekeeper

own: setup ## checks our own chart, manifests and examples with gracekeeper check
	cargo build --locked
	target/debug/gracekeeper check --fail-on warning deploy
	for values in deploy/examples/*.yaml; do \
	  target/test-env/bin/helm template own deploy/examples/app -f $$values --set gracekeeper.token.value=0123456789abcdef \
	  | target/debug/gracekeeper check --fail-on warning - || exit 1; done
	target/test-env/bin/helm template own charts/gracekeeper --set check.policy.enabled=true | target/debug/gracekeeper check --fail-on warning -

pages: setup ## checks the documentation: links, tables, the messages of the source, manifests
	$(PYTHON) tests/docs/docs.py
	OBJECTS=target/docs/objects.json cargo test --locked --test chart

check: fmt lint deps clippy docs msrv test chart own pages static ## everything CI checks

bench: ## measures, and prints tables: make bench ONLY=peers
	cargo bench --locked $(addprefix --bench ,$(ONLY))

export SOAK_MINUTES ?= 60
soak: ## drains and reopens under load and slow clients for an hour, or so long: make soak SOAK_MINUTES=10
	cargo test --locked --test soak

FUZZ_SECONDS = 60
fuzz: ## runs each fuzz target for a while: make fuzz FUZZ_SECONDS=600
	cargo fuzz --version || cargo install --locked cargo-fuzz
	tests/fuzz/run $(FUZZ_SECONDS)

e2e: ## restarts, drains and breaks pods on the cluster that KUBECONFIG names; without one it is skipped
	@python3 tests/e2e || { [ $$? = 77 ] && exit 0; exit 1; }; set -x; \
	sidecar=$$(deploy/static sidecar) && shop=$$(deploy/static shop) && tools=$$(deploy/static full) \
	&& python3 tests/e2e "$$sidecar" "$$shop" "$$tools"

servers: ## tries what servers do on SIGTERM, records it and prints the tables of docs/servers.md: make servers ONLY="nginx"
	tests/servers/setup
	target/servers-env/venv/bin/python tests/servers $(ONLY)

buildah: ## installs Debian's buildah, where apt may
	tests/setup --buildah

static: ## builds the image's binary: static, without the Cargo feature `tools`, under 7 MB
	deploy/static sidecar

image: ## builds the image, and the one with the tools, with cargo and Debian's buildah, without a registry
	deploy/image $(TOOLS_IMAGE) target/gracekeeper-tools-image.tar full
	deploy/image $(IMAGE) target/gracekeeper-image.tar

manifests: setup ## renders the plain manifests in deploy/ from the chart
	$(PYTHON) deploy/render

setup: ## installs what the tests need, once
	tests/setup

linters: ## installs the linters alone, once
	tests/setup --linters

fmt: linters ## checks the format of Rust and TOML
	cargo fmt --check
	$(LINTERS)/taplo fmt --check --option column_width=120 $$(git ls-files '*.toml')

lint: linters ## checks spelling, shell scripts and GitHub's workflows
	$(LINTERS)/typos
	$(LINTERS)/shellcheck $$(git grep -lE '^#!.*bash')
	$(LINTERS)/actionlint -shellcheck $(LINTERS)/shellcheck .github/workflows/*.yml
	$(LINTERS)/zizmor --offline --no-progress --persona pedantic .github

deps: linters ## checks the dependencies: used, licences, sources, advisories
	.ci/deps

clippy: ## runs clippy, with and without the Cargo feature `tools`
	cargo lint
	cargo clippy --no-default-features --lib --bins --locked -- -D warnings

docs: ## builds the documentation of the code
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

msrv: ## checks rust-version: make msrv MSRV=install has rustup install that Rust first
	.ci/msrv $(MSRV)

dist: ## makes what a release has for this machine: archive, bills of materials, checksums; HEAD is built twice and compared
	.ci/dist

export TAG ?= v$(VERSION)
notes: ## prints the notes of a release, from CHANGELOG.md: make notes TAG=v0.1.0
	@.ci/notes "$$TAG"

export TOOLS_ARCHIVES
publish: ## pushes images and the chart: make publish REPOSITORY=registry/name ARCHIVES="amd64.tar arm64.tar" TOOLS_ARCHIVES="..."
	.ci/publish "$(REPOSITORY)" $(ARCHIVES)
