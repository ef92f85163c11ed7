# make demo   shows the main job at work
# make test   sets up what the tests need and runs them all
# make check  everything CI checks
# make bench  measures, and prints tables
# make e2e    restarts, drains and breaks pods on the cluster that KUBECONFIG names; without one it is skipped
.PHONY: demo test check bench e2e setup fmt clippy docs

demo:
	cargo build --locked
	python3 tests/demo.py target/debug/gracekeeper

setup:
	tests/setup

test: setup
	cargo test --locked

check: fmt clippy docs test

bench:
	cargo bench --locked

e2e: static = target/x86_64-unknown-linux-gnu/release
e2e: export RUSTFLAGS = -C target-feature=+crt-static
e2e:
	cargo build --locked --release --target x86_64-unknown-linux-gnu --bin gracekeeper
	cargo build --locked --release --target x86_64-unknown-linux-gnu --example shop
	python3 tests/e2e $(static)/gracekeeper $(static)/examples/shop

fmt:
	cargo fmt --check

clippy:
	cargo lint

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
