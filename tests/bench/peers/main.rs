//! How soon after the last request's end the hook is answered: the real binary, the peers' loops, and fixed sleeps.
//!
//! 300 drains each, many at once. One request is under way when a drain begins, and ends 0.5 to 20 s later. The sidecar has
//! its defaults, but that local clients are clients. `GRACEKEEPER=/path` names another binary of it; `PEER_CONTOUR=/path`,
//! `PEER_ENVOY_GATEWAY=/path` and `PEER_KNATIVE=/path` name the peers' own programs, which are run instead of the stand-ins.
//! Nothing here passes or fails: it prints and draws.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../app.rs"]
mod app;
#[path = "../child.rs"]
#[expect(dead_code, reason = "what other benches ask of it")]
mod child;
mod plot;
#[expect(dead_code, reason = "what the bench `footprint` asks of it")]
mod programs;
mod ways;

use std::thread;
use std::time::{Duration, Instant};

use app::App;
use child::Sidecar;
use programs::{Peer, Program};
use ways::Way;

const DRAINS: usize = 300;
/// Sidecars at once: two cores do not have to run more.
const AT_ONCE: usize = 100;
const PLOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/benchmarks-delay.svg");

fn main() {
    if let Some((peer, request)) = Peer::is_inside() {
        let mut program = Program::start(peer);
        let request = Duration::from_secs_f64(request.parse().unwrap());
        return println!("{}", program.drain(request, |_| ()));
    }
    let mut random = fastrand::Rng::with_seed(20);
    let requests: Vec<_> = (0..DRAINS)
        .map(|_| Duration::from_secs_f64(0.5 + 19.5 * random.f64()))
        .collect();
    let ways = [
        Way::Peer(Peer::Contour),
        Way::Peer(Peer::EnvoyGateway),
        Way::Peer(Peer::Knative),
        Way::Sleep(5),
        Way::Sleep(15),
    ];
    // They sleep most of the time: they may do so beside the sidecars.
    let others = ways.map(|way| {
        let requests = requests.clone();
        let drains = move || {
            let rounds = requests.chunks(way.at_once());
            let round = |requests| at_once(requests, move |request| way.drain(request));
            rounds.flat_map(round).collect::<Vec<_>>()
        };
        (way.name(), thread::spawn(drains))
    });
    let mut rows = vec![("gracekeeper".to_owned(), ours(&requests))];
    rows.extend(others.map(|(name, drains)| (name, drains.join().unwrap())));
    for (_, delays) in &mut rows {
        delays.sort_by(f64::total_cmp);
    }
    table(&rows);
    std::fs::write(PLOT, plot::svg(&rows)).unwrap();
    println!("\nDrawn: {PLOT}");
}

fn ours(requests: &[Duration]) -> Vec<f64> {
    let rounds = requests.chunks(AT_ONCE);
    rounds.flat_map(|round| at_once(round, drain)).collect()
}

/// One drain of a sidecar of its own, beside an app of its own.
fn drain(request: Duration) -> f64 {
    let app = App::start();
    app.set(1);
    let inflight = format!("--inflight=prometheus+http://{}/metrics#busy", app.address);
    let sidecar = Sidecar::start(&["--local-peers=clients", &inflight]);
    let ended = thread::spawn({
        let app = app.clone();
        move || {
            thread::sleep(request);
            app.set(0);
            Instant::now()
        }
    });
    let answer = sidecar.ask("POST /drain?wait=true");
    let answered = Instant::now();
    assert!(answer.contains("tookSeconds"), "{answer}");
    let ended = ended.join().unwrap();
    let after = answered.saturating_duration_since(ended).as_secs_f64();
    after - ended.saturating_duration_since(answered).as_secs_f64()
}

fn at_once(
    requests: &[Duration],
    drain: impl Fn(Duration) -> f64 + Copy + Send + 'static,
) -> Vec<f64> {
    let threads: Vec<_> = requests
        .iter()
        .map(|&request| thread::spawn(move || drain(request)))
        .collect();
    threads.into_iter().map(|t| t.join().unwrap()).collect()
}

/// The value below which such a part of the sorted ones lies.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    sorted[((sorted.len() - 1) as f64 * part).round() as usize]
}

fn table(rows: &[(String, Vec<f64>)]) {
    println!(
        "| hook | least | p25 | median | p75 | p99 | most | median, × gracekeeper's | requests cut |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let ours = quantile(&rows[0].1, 0.5);
    for (name, delays) in rows {
        let at = [0.0, 0.25, 0.5, 0.75, 0.99, 1.0]
            .map(|part| format!("{:.2} s", quantile(delays, part)))
            .join(" | ");
        let ratio = quantile(delays, 0.5) / ours;
        let cut = delays.iter().filter(|d| **d < 0.0).count();
        println!("| {name} | {at} | {ratio:.1} | {cut} of {} |", delays.len());
    }
}
