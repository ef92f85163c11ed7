//! What a drain costs the app: its CPU, and its requests with and without a drain that reads, by turns in one run.
//!
//! Apps whose metrics page is cheap or expensive (a program of the bench that answers at once; uvicorn with
//! prometheus_client and Node with prom-client, from `tests/setup`), and one whose port has many connections. The drain does
//! not end meanwhile. `make bench ONLY=cost`; `cargo bench --bench cost -- sockets` measures a part.
//! Nothing here passes or fails: it prints. `GRACEKEEPER=/path` names another binary of the sidecar.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod apps;
#[path = "../child.rs"]
#[expect(dead_code, reason = "what other benches ask of it")]
mod child;
#[path = "../cpu.rs"]
mod cpu;
#[path = "../crowd.rs"]
mod crowd;
mod load;

use std::thread::sleep;
use std::time::{Duration, Instant};

use apps::{App, Kind};
use child::{Sidecar, free_port};
use cpu::cpu_of;
use crowd::Crowd;
use load::{Load, Seen};

/// As long as many a drain takes: its first reads are in it, which are closer together.
const AT_REST: Duration = Duration::from_secs(10);
/// One turn with or without a drain, and how many of each.
const TURN: Duration = Duration::from_secs(4);
const TURNS: usize = 2;

fn main() {
    if crowd::is_crowd() {
        return crowd::crowd();
    }
    if apps::is_static_app() {
        return apps::static_app();
    }
    let part = std::env::args().nth(1).unwrap_or_default();
    if part != "sockets" {
        pages();
    }
    if part != "pages" {
        sockets();
    }
}

const COLUMNS: &str = "one read | reads in the first 10 s | app's CPU for being read | sidecar's CPU \
    | requests/s, without | with | ratio | p50, without | with | p99, without | with | ratio";

fn pages() {
    println!("\n| app | page | {COLUMNS} |");
    println!("| --- | --- | {}", "--- | ".repeat(12));
    for (kind, bytes) in [
        (Kind::Static, 0),
        (Kind::Python, 0),
        (Kind::Python, 1_000_000),
        (Kind::Python, 10_000_000),
        (Kind::Node, 0),
        (Kind::Node, 1_000_000),
        (Kind::Node, 10_000_000),
    ] {
        let Some(app) = App::start(kind, free_port(), bytes) else {
            println!("| {kind:?} | not measured: no {kind:?} here, see tests/setup |");
            continue;
        };
        let page = app.page();
        let selector = format!(
            "--inflight=prometheus+http://{}/metrics#app_requests_inprogress",
            app.address
        );
        let row = row(&app, &selector, page.took);
        println!("| {kind:?} | {} KB | {row} |", page.bytes / 1000);
    }
}

/// The sidecar counts the connections that are in the middle of a request, and looks at the traffic: it reads the table
/// for each.
fn sockets() {
    println!("\n| sockets on the app's port | {COLUMNS} |");
    println!("| --- | {}", "--- | ".repeat(12));
    for sockets in [0, 10_000, 100_000] {
        let port = free_port();
        let crowd = Crowd::gather(port, sockets / 2);
        let app = App::start(Kind::Static, port, 0).unwrap();
        let row = row(
            &app,
            &format!("--inflight=tcp-busy://:{port}"),
            Duration::ZERO,
        );
        println!("| {sockets} | {row} |");
        drop(crowd);
    }
}

/// What an app pays, as the columns have it.
fn row(app: &App, inflight: &str, one_read: Duration) -> String {
    let app_port = format!("--app-port={}", app.address.port());
    let sidecar = Sidecar::start(&[
        "--grace-period=3600s",
        "--min-wait=3500s",
        "--local-peers=clients",
        &app_port,
        inflight,
    ]);
    // It reads its source at start.
    sleep(Duration::from_secs(3));
    let rest = cpu_of(&app.child);
    sleep(AT_REST / 2);
    let rest = 2 * (cpu_of(&app.child) - rest);
    let (reads, used, own) = (reads(&sidecar), cpu_of(&app.child), cpu_of(&sidecar.child));
    drain(&sidecar, true);
    sleep(AT_REST);
    let share = |cpu: Duration| 100.0 * cpu.as_secs_f64() / AT_REST.as_secs_f64();
    let for_reads = (cpu_of(&app.child) - used).saturating_sub(rest);
    let own = cpu_of(&sidecar.child) - own;
    let reads = self::reads(&sidecar) - reads;
    drain(&sidecar, false);
    let [full_without, full_with] = by_turns(app, &sidecar, Load::Full);
    let [paced_without, paced_with] = by_turns(app, &sidecar, Load::Paced);
    let (without, with) = (full_without.per_second(), full_with.per_second());
    let (p99_without, p99_with) = (paced_without.quantile(0.99), paced_with.quantile(0.99));
    format!(
        "{one_read:.1?} | {reads} | {:.1} % | {:.1} % | {without:.0} | {with:.0} | {:.2} | {:.2?} | {:.2?} | {p99_without:.2?} | {p99_with:.2?} | {:.1}",
        share(for_reads),
        share(own),
        with / without,
        paced_without.quantile(0.5),
        paced_with.quantile(0.5),
        p99_with.as_secs_f64() / p99_without.as_secs_f64(),
    )
}

/// The app under a load: without a drain and with one, again and again, so that both see the same machine.
fn by_turns(app: &App, sidecar: &Sidecar, load: Load) -> [Seen; 2] {
    let mut seen = [Seen::default(), Seen::default()];
    for turn in 0..2 * TURNS {
        let draining = turn % 2 == 1;
        if draining {
            drain(sidecar, true);
        }
        let began = Instant::now();
        let taken = load.run(app.address, TURN);
        seen[turn % 2].add(taken, began.elapsed());
        if draining {
            drain(sidecar, false);
        }
    }
    seen
}

fn drain(sidecar: &Sidecar, begin: bool) {
    let (call, answer) = match begin {
        true => ("POST /drain", " 202 "),
        false => ("DELETE /drain", " 200 "),
    };
    let answered = sidecar.ask(call);
    assert!(answered.contains(answer), "{answered}");
}

/// How many reads of its source the sidecar has made, whatever came of them.
fn reads(sidecar: &Sidecar) -> u64 {
    let page = sidecar.ask("GET /metrics");
    let reads = (page.lines()).filter(|line| line.starts_with("gracekeeper_reads_total{"));
    reads
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
        .sum()
}
