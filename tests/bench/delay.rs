//! How soon after the last request the hook is answered, and how soon after a hook readiness fails.
//!
//! The real binary beside an app in this process, 200 drains each way. Nothing here passes or fails: it prints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

mod app;
#[expect(dead_code, reason = "what other benches ask of it")]
mod child;

use std::thread;
use std::time::{Duration, Instant};

use app::App;
use child::{Sidecar, ask};

const DRAINS: u32 = 200;

fn main() {
    let app = App::start();
    println!(
        "{DRAINS} drains each, an app whose last request ends 50 to 250 ms after the drain began\n"
    );
    println!("| flags | hook answered after the last request ended: median | p99 | most |");
    println!("| --- | --- | --- | --- |");
    for flags in [
        &["--quiet-period=0s"][..],
        &["--quiet-period=0s", "--poll-interval=20ms"],
        &["--quiet-period=300ms"],
    ] {
        let sidecar = start(&app, flags);
        let (delays, _) = drains(&app, &sidecar);
        println!("| {} | {} |", flags.join(" "), columns(delays));
    }
    let sidecar = start(&app, &["--quiet-period=0s"]);
    let (_, readiness) = drains(&app, &sidecar);
    println!(
        "\n| from the call of POST /drain to its answer, by when readiness fails: median | p99 | most |"
    );
    println!("| --- | --- | --- |\n| {} |", columns(readiness));
    println!(
        "\nMemory of the sidecar after {DRAINS} drains: {} KiB, of it anonymous {} KiB",
        sidecar.status("VmRSS"),
        sidecar.status("RssAnon")
    );
}

fn columns(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    [0.5, 0.99, 1.0]
        .map(|part| format!("{:.2?}", at(part)))
        .join(" | ")
}

/// Drains again and again, each time with one request under way that ends a little later.
fn drains(app: &App, sidecar: &Sidecar) -> (Vec<Duration>, Vec<Duration>) {
    let (mut delays, mut readiness) = (Vec::new(), Vec::new());
    for n in 0..DRAINS {
        app.set(1);
        let called = Instant::now();
        assert!(sidecar.ask("POST /drain").contains(" 202 "));
        readiness.push(called.elapsed());
        assert!(sidecar.ask("GET /readyz").contains(" 503 "));
        let waiting = {
            let address = sidecar.address;
            thread::spawn(move || (ask(address, "POST /drain?wait=true"), Instant::now()))
        };
        // Spread evenly over the time between two polls.
        thread::sleep(Duration::from_millis(50) + Duration::from_millis(200) * n / DRAINS);
        app.set(0);
        let ended = Instant::now();
        let (answer, answered) = waiting.join().unwrap();
        assert!(answer.contains("\"drained\""), "{answer}");
        delays.push(answered - ended);
        assert!(sidecar.ask("DELETE /drain").contains(" 200 "));
    }
    (delays, readiness)
}

fn start(app: &App, flags: &[&str]) -> Sidecar {
    let inflight = format!("--inflight=prometheus+http://{}/metrics#busy", app.address);
    let always = ["--min-wait=0s", "--local-peers=clients", &inflight];
    Sidecar::start(&[&always, flags].concat())
}
