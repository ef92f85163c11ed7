# make demo   shows the main job at work
# make test   sets up what the tests need and runs them all
# make check  everything CI checks
# make bench  measures, and prints tables
# make fuzz   runs each fuzz target for a while: make fuzz FUZZ_SECONDS=600
.PHONY: demo test check bench fuzz setup fmt clippy docs

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

FUZZ_SECONDS = 60
fuzz:
	cargo fuzz --version || cargo install --locked cargo-fuzz
	tests/fuzz/run $(FUZZ_SECONDS)

fmt:
	cargo fmt --check

clippy:
	cargo lint

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items
