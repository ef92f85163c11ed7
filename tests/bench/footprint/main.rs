//! What a sidecar takes that waits for its one drain: its size, its start, its memory, its CPU while the pod serves; beside
//! the peers' own programs, where the environment names them (`PEER_CONTOUR=/path`, `PEER_ENVOY_GATEWAY=/path`,
//! `PEER_KNATIVE=/path`).
//!
//! `FOOTPRINT_MINUTES` says how long they are watched while they do nothing: 10 unless it is set. All are watched at the
//! same time. `GRACEKEEPER=/path` names another binary of the sidecar. Nothing here passes or fails: it prints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../app.rs"]
mod app;
#[path = "../child.rs"]
#[expect(dead_code, reason = "what other benches ask of it")]
mod child;
#[path = "../cpu.rs"]
mod cpu;
mod measured;
#[path = "../peers/programs.rs"]
mod programs;

use std::ffi::OsStr;
use std::fs;
use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use app::App;
use child::Sidecar;
use measured::{Idle, Measured, Memory, table};
use programs::{Peer, Program, wait_for_port};

const STARTS: usize = 100;
const DRAINS: usize = 10_000;
/// One request is under way in the drain that is looked into.
const REQUEST: Duration = Duration::from_secs(6);
/// From the start until it is looked into while it does nothing.
const SETTLED: Duration = Duration::from_secs(5);

fn main() {
    if let Some((peer, _)) = Peer::is_inside() {
        return println!("{}", theirs(peer).line());
    }
    // One after the other, and then all at the same time.
    let peers: Vec<_> = Peer::ALL
        .into_iter()
        .filter(|peer| peer.program().is_some())
        .map(|peer| (peer.name(), peer.inside("all")))
        .collect();
    let mut rows = vec![("gracekeeper", ours())];
    for (name, mut inside) in peers {
        let mut line = String::new();
        let stdout = inside.stdout.as_mut().unwrap();
        stdout.read_to_string(&mut line).unwrap();
        assert!(inside.wait().unwrap().success(), "{name}");
        rows.push((name, Measured::parse(&line)));
    }
    table(&rows);
    if rows.len() <= Peer::ALL.len() {
        println!("\nOf a peer that is not in the table, the environment names no program.");
    }
    after_many_drains();
}

fn ours() -> Measured {
    let starts = (0..STARTS).map(|_| start_of_ours()).collect();
    let app = App::start();
    let inflight = format!("--inflight=prometheus+http://{}/metrics#busy", app.address);
    let sidecar = Sidecar::start(&["--local-peers=clients", &inflight]);
    thread::sleep(SETTLED);
    let processes = [&sidecar.child];
    let serving = Memory::of(processes);
    let idle = Idle::watch(&sidecar.child);
    app.set(1);
    assert!(sidecar.ask("POST /drain").contains(" 202 "));
    thread::sleep(REQUEST / 2);
    let draining = Memory::of(processes);
    app.set(0);
    assert!(sidecar.ask("POST /drain?wait=true").contains("tookSeconds"));
    Measured::new(
        size(&child::binary()),
        starts,
        [serving, draining, Memory::of(processes)],
        idle,
    )
}

fn theirs(peer: Peer) -> Measured {
    let starts = (0..STARTS).map(|_| peer.start_alone()).collect();
    let mut program = Program::start(peer);
    thread::sleep(SETTLED);
    let serving = Memory::of(&program.children);
    let idle = Idle::watch(&program.children[0]);
    let mut draining = None;
    program.drain(REQUEST, |program| {
        draining = Some(Memory::of(&program.children));
    });
    // What ran for the drain alone has ended, and counts nothing.
    let after = Memory::of(&program.children);
    let size = size(&peer.program().unwrap());
    Measured::new(size, starts, [serving, draining.unwrap(), after], idle)
}

/// From the start of the process until it accepts connections, without a source to read.
fn start_of_ours() -> Duration {
    let port = child::free_port();
    let began = Instant::now();
    let mut started = Command::new(child::binary())
        .args(["run", &format!("--listen=127.0.0.1:{port}")])
        .arg(format!("--app-port={port}"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_for_port(port);
    let took = began.elapsed();
    end(&mut started);
    took
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn size(program: &OsStr) -> u64 {
    fs::metadata(program).unwrap().len()
}

/// Drains and reopens again and again.
fn after_many_drains() {
    let app = App::start();
    let inflight = format!("--inflight=prometheus+http://{}/metrics#busy", app.address);
    let sidecar = Sidecar::start(&[
        "--min-wait=0s",
        "--quiet-period=0s",
        "--local-peers=clients",
        &inflight,
    ]);
    println!("\n| after so many drains | RSS | PSS | anonymous |\n| --- | --- | --- | --- |");
    for n in 1..=DRAINS {
        assert!(sidecar.ask("POST /drain?wait=true").contains("\"drained\""));
        assert!(sidecar.ask("DELETE /drain").contains(" 200 "));
        if n.is_power_of_two() && n.ilog2().is_multiple_of(3) || n == DRAINS {
            let Memory {
                rss,
                pss,
                anonymous,
            } = Memory::of([&sidecar.child]);
            println!("| {n} | {rss} KiB | {pss} KiB | {anonymous} KiB |");
        }
    }
}
