# make demo       shows the main job at work
# make test       sets up what the tests need and runs them all
# make chart      checks the chart: lint, every example, schema, types, alerts; and a real cluster, if KUBECONFIG names one
# make pages      checks the documentation: links, tables, the messages of the source, manifests
# make check      everything CI checks
# make bench      measures, and prints tables
# make fuzz       runs each fuzz target for a while: make fuzz FUZZ_SECONDS=600
# make e2e        restarts, drains and breaks pods on the cluster that KUBECONFIG names; without one it is skipped
# make image      builds the image with cargo and Debian's buildah, without a registry
# make manifests  renders the plain manifests in deploy/ from the chart
.PHONY: demo test chart pages check bench fuzz e2e image manifests setup fmt clippy docs

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
IMAGE ?= localhost/gracekeeper:$(VERSION)
PYTHON := target/test-env/venv/bin/python

demo:
	cargo build --locked
	python3 tests/demo.py target/debug/gracekeeper

setup:
	tests/setup

test: setup
	cargo test --locked

chart: setup
	cargo build --locked
	$(PYTHON) tests/chart/chart.py
	cargo test --locked --test chart
	$(PYTHON) tests/chart/alerts.py target/debug/gracekeeper

pages: setup
	$(PYTHON) tests/docs/docs.py
	OBJECTS=target/docs/objects.json cargo test --locked --test chart

check: fmt clippy docs test chart pages

bench:
	cargo bench --locked

FUZZ_SECONDS = 60
fuzz:
	cargo fuzz --version || cargo install --locked cargo-fuzz
	tests/fuzz/run $(FUZZ_SECONDS)

image:
	deploy/image $(IMAGE) target/gracekeeper-image.tar

manifests: setup
	$(PYTHON) deploy/render

e2e: machine = $(shell rustc -vV | sed -n 's/^host: //p')
e2e: static = target/$(machine)/release
e2e: export RUSTFLAGS = -C target-feature=+crt-static -C link-arg=-Wl,-z,pack-relative-relocs
e2e:
	@python3 tests/e2e || { [ $$? = 77 ] && exit 0; exit 1; }; set -x; \
	cargo build --locked --release --target $(machine) --bin gracekeeper && \
	cargo build --locked --release --target $(machine) --example shop && \
	python3 tests/e2e $(static)/gracekeeper $(static)/examples/shop

fmt:
	cargo fmt --check

clippy:
	cargo lint

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
