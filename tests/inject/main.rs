//! `gracekeeper inject`: what comes out of manifests, and that the chart's policy makes the same of each pod.

// A test waits for an API server, and has no runtime.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod command;
mod flags;
mod truth;

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

/// The token that all tests inject.
pub const TOKEN: &str = "0123456789abcdef";

/// Runs `gracekeeper inject` with these words on that input.
pub fn inject(words: &[&str], input: &str) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .arg("inject")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // The output may fill its pipe before the input is read.
    let writer = std::thread::spawn(move || {
        let _ = stdin.write_all(input.as_bytes());
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("the input was written");
    output
}

/// What it wrote, where it succeeded.
pub fn injected(words: &[&str], input: &str) -> String {
    let output = inject(words, input);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("text")
}
