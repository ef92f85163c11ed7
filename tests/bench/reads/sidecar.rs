//! The memory of the real sidecar while it drains an app with many connections.
//!
//! As in the socket table's benchmark, both ends of each connection are on the app's port, and half of the sockets are in
//! the middle of a request, so that the drain ends at its deadline.

use super::child::Sidecar;
use super::sockets::{Crowd, free_port};

pub fn bench() {
    println!(
        "\n| sockets on the app's port | RSS while serving | RSS after a drain | of it anonymous |"
    );
    println!("| --- | --- | --- | --- |");
    for sockets in [0, 1_000, 10_000, 50_000] {
        let port = free_port();
        let crowd = Crowd::gather(port, sockets / 2);
        let app_port = format!("--app-port={port}");
        let sidecar = Sidecar::start(&["--timeout=4s", "--min-wait=3s", &app_port]);
        let serving = sidecar.kib("VmRSS");
        let verdict = sidecar.ask("POST /drain?wait=true");
        assert!(verdict.contains("tookSeconds"), "{verdict}");
        let (drained, anonymous) = (sidecar.kib("VmRSS"), sidecar.kib("RssAnon"));
        println!("| {sockets} | {serving} KiB | {drained} KiB | {anonymous} KiB |");
        drop(crowd);
    }
}
