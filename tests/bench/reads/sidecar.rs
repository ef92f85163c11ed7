//! What the real sidecar takes: memory and CPU while it serves, and while it drains an app with many connections.
//!
//! As in the socket table's benchmark, both ends of each connection are on the app's port, and half of the sockets are in
//! the middle of a request, so that the drain ends at its deadline.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::child::{Sidecar, free_port};
use super::cpu::cpu_of;
use super::crowd::Crowd;

/// How long it is watched while it serves, and while it drains.
const WATCHED: Duration = Duration::from_secs(20);

pub fn bench() {
    memory();
    idle();
    cpu();
}

fn memory() {
    println!(
        "\n| sockets on the app's port | RSS while serving | RSS after a drain | of it anonymous |"
    );
    println!("| --- | --- | --- | --- |");
    for sockets in [0, 1_000, 10_000, 50_000] {
        let port = free_port();
        let crowd = Crowd::gather(port, sockets / 2);
        let app_port = format!("--app-port={port}");
        let sidecar = Sidecar::start(&["--timeout=4s", "--min-wait=3s", &app_port]);
        let serving = sidecar.status("VmRSS");
        let verdict = sidecar.ask("POST /drain?wait=true");
        assert!(verdict.contains("tookSeconds"), "{verdict}");
        let (drained, anonymous) = (sidecar.status("VmRSS"), sidecar.status("RssAnon"));
        println!("| {sockets} | {serving} KiB | {drained} KiB | {anonymous} KiB |");
        drop(crowd);
    }
}

/// What it does while the pod serves, once the app has answered.
fn idle() {
    let port = free_port();
    let crowd = Crowd::gather(port, 5_000);
    let sidecar = Sidecar::start(&[&format!("--app-port={port}")]);
    sleep(Duration::from_secs(2));
    let (wakeups, used) = (
        sidecar.status("voluntary_ctxt_switches"),
        cpu_of(&sidecar.child),
    );
    sleep(WATCHED);
    println!(
        "\nWhile it serves, with 10,000 sockets on the app's port, in {WATCHED:?}: {} wake-ups, {:?} of CPU, RSS {} KiB",
        sidecar.status("voluntary_ctxt_switches") - wakeups,
        cpu_of(&sidecar.child) - used,
        sidecar.status("VmRSS"),
    );
    drop(crowd);
}

/// How much of a CPU a drain takes: reading the table for the count and for traffic; for traffic alone, beside a source that
/// costs nothing; and the same where all connections have arrived during the drain, from 5,000 addresses.
fn cpu() {
    println!("\n| 10,000 sockets on the app's port | CPU in a drain |");
    println!("| --- | --- |");
    for (what, count, arrive) in [
        ("count and traffic, from before the drain", true, false),
        ("traffic, from before the drain", false, false),
        ("traffic, arrived during the drain", false, true),
    ] {
        let port = free_port();
        let app_port = format!("--app-port={port}");
        let inflight = match count {
            true => format!("--inflight=tcp-busy://:{port}"),
            // Nothing listens there.
            false => format!("--inflight=text+http://127.0.0.1:{}/", free_port()),
        };
        let gather = || Crowd::gather(port, 5_000);
        let before = (!arrive).then(gather);
        let times = [
            "--grace-period=120s",
            "--min-wait=100s",
            "--local-peers=clients",
        ];
        let sidecar = Sidecar::start(&[&times[..], &[&app_port, &inflight]].concat());
        assert!(sidecar.ask("POST /drain").contains(" 202 "));
        let during = arrive.then(gather);
        sleep(Duration::from_secs(2));
        let (began, used) = (Instant::now(), cpu_of(&sidecar.child));
        sleep(WATCHED);
        let share = (cpu_of(&sidecar.child) - used).as_secs_f64() / began.elapsed().as_secs_f64();
        println!("| {what} | {:.1} % |", 100.0 * share);
        drop((before, during));
    }
}
