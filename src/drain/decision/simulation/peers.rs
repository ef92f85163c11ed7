//! The rule beside what people would pick instead, and beside an oracle that knows when the last request has ended.
//!
//! The peers' rules are those of their sources, with their defaults:
//! - Contour (`cmd/contour/shutdownmanager.go`): counts open connections every 5 s; its hook looks for a file every second.
//! - Envoy Gateway (`internal/cmd/envoy/shutdown_manager.go`): waits for 10 s, then counts open connections every second,
//!   for 60 s at most; its hook looks for a file every second.
//! - Knative (`pkg/queue/sharedmain` with `knative.dev/pkg`'s `Drainer`): 30 s after the last request that came.
//!
//! Each of them lets its app stop at that moment, as ours does.

use super::*;

/// One of the ways to wait.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Gracekeeper,
    Contour,
    EnvoyGateway,
    Knative,
    Sleep(u64),
}

const WAYS: [Way; 8] = [
    Way::Gracekeeper,
    Way::Contour,
    Way::EnvoyGateway,
    Way::Knative,
    Way::Sleep(5),
    Way::Sleep(15),
    Way::Sleep(30),
    Way::Sleep(60),
];

/// The routes of a load balancer with targets by IP address follow after minutes.
const FAR_ROUTES: [f64; 4] = [0.0, 3.0, 12.0, 120.0];

/// Long enough for every way to end by itself.
const GRACE: Duration = Duration::from_secs(300);

impl Pattern {
    /// Open connections at that time: those with a request, and those that clients keep.
    fn open(&self, t: f64) -> usize {
        let new = self.new.iter().filter(|r| r.from <= t && t < r.to).count();
        let kept = (self.kept.iter())
            .filter(|client| client.last().is_some_and(|r| t < r.to))
            .count();
        new + kept
    }

    fn requests(&self) -> impl Iterator<Item = &Request> {
        self.new.iter().chain(self.kept.iter().flatten())
    }

    /// When the last request that ever comes has ended.
    fn oracle(&self) -> f64 {
        self.requests().fold(0.0, |last: f64, r| last.max(r.to))
    }

    fn ends(&self, way: Way, policy: &Policy) -> f64 {
        let budget = policy.budget().as_secs_f64();
        let end = match way {
            Way::Gracekeeper => return self.end(policy, false).0,
            Way::Contour => seen_by_file(self.first_without_connections(0.0, 5.0, budget)),
            Way::EnvoyGateway => seen_by_file(self.first_without_connections(11.0, 1.0, 61.0)),
            Way::Knative => self.quiet_for(30.0),
            Way::Sleep(seconds) => seconds as f64,
        };
        end.min(budget) + SIGNAL
    }

    /// When no request has come for so long, as seen since the drain began.
    fn quiet_for(&self, seconds: f64) -> f64 {
        let mut came: Vec<f64> = self.requests().map(|r| r.from).collect();
        came.sort_by(f64::total_cmp);
        let mut last = 0.0;
        for from in came.into_iter().filter(|&from| from > 0.0) {
            if from > last + seconds {
                break;
            }
            last = from;
        }
        last + seconds
    }

    /// When a rule that counts open connections at that pace first finds none.
    fn first_without_connections(&self, from: f64, pace: f64, most: f64) -> f64 {
        let mut at = from;
        while at < most && self.open(at) > 0 {
            at += pace;
        }
        at.min(most)
    }
}

/// When a hook that looks for a file every second answers.
fn seen_by_file(written: f64) -> f64 {
    written.ceil()
}

/// What a way loses in a row, and for how many seconds after the oracle it goes on.
#[derive(Debug, Default, Clone, Copy)]
struct Row {
    total: Total,
    /// Of the requests lost, squared: a pod's losses come together.
    squares: f64,
}

impl Row {
    fn add(&mut self, lost: usize, after: f64) {
        self.total.add(lost, after);
        self.squares += (lost as f64).powi(2);
    }

    /// The standard error of the mean, squared.
    fn error(&self) -> f64 {
        let (mean, pods) = (self.total.lost_per_pod(), self.total.pods as f64);
        (self.squares / pods - mean * mean).max(0.0) / pods
    }

    /// It loses less than the other, beyond what is chance, and is not slower.
    fn beats(&self, other: &Row) -> bool {
        let chance = 3.0 * (self.error() + other.error()).sqrt();
        self.total.lost_per_pod() + chance < other.total.lost_per_pod()
            && self.total.seconds < other.total.seconds
    }

    fn columns(&self) -> String {
        let Self { total, .. } = self;
        format!(
            "{:.2}, {:+.0} s",
            total.lost_per_pod(),
            total.seconds_per_pod()
        )
    }
}

/// Patterns of each kind. Where requests are few, losses are chance, and it takes many patterns to see past it.
fn patterns(rate: f64) -> u64 {
    match rate {
        ..5.0 => 200,
        ..100.0 => 24,
        _ => 5,
    }
}

/// Any fixed wait is the best one for routes that follow just before its end. Envoy Gateway's 10 to 12 s are that for
/// routes that follow after 12 s, where so few requests come that their silence says little; the same wait costs an idle
/// pod 6 s more than ours.
fn is_made_for(way: Way, routes: f64, rate: f64) -> bool {
    way == Way::EnvoyGateway && routes == 12.0 && rate <= 1.0
}

/// Prints with `cargo test simulation -- --nocapture` the table of `docs/benchmarks.md`: requests lost per pod, and seconds
/// after the last request has ended; less than none where a way ended before.
///
/// Clients that keep their connections and are not told have no last request, so they are not in it.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn no_peer_and_no_sleep_is_quicker_and_loses_less() {
    let policy = Policy {
        grace_period: GRACE,
        ..policy()
    };
    let names = WAYS.map(|way| match way {
        Way::Gracekeeper => "gracekeeper".to_owned(),
        Way::Contour => "Contour's rule".to_owned(),
        Way::EnvoyGateway => "Envoy Gateway's".to_owned(),
        Way::Knative => "Knative's".to_owned(),
        Way::Sleep(seconds) => format!("sleep {seconds}"),
    });
    println!(
        "| clients | routes follow after | requests a second | {} |",
        names.join(" | ")
    );
    println!("|{}", " --- |".repeat(3 + WAYS.len()));
    let mut better = Vec::new();
    for kept in [Kept::None, Kept::Told] {
        for routes in FAR_ROUTES {
            for rate in RATES {
                let mut rows = [Row::default(); WAYS.len()];
                for seed in 0..patterns(rate) {
                    let pattern = Pattern::new(rate, routes, kept, seed);
                    let oracle = pattern.oracle();
                    for (row, way) in rows.iter_mut().zip(WAYS) {
                        let end = pattern.ends(way, &policy);
                        row.add(pattern.lost(end, false), end - oracle);
                    }
                }
                let clients = match kept {
                    Kept::Told => "and ten that keep theirs, told to go",
                    _ => "new connections",
                };
                println!(
                    "| {clients} | {routes} s | {rate} | {} |",
                    rows.map(|row| row.columns()).join(" | ")
                );
                for (way, other) in WAYS.into_iter().zip(&rows).skip(1) {
                    if other.beats(&rows[0]) && !is_made_for(way, routes, rate) {
                        better.push(format!("{way:?}: {clients}, {routes} s, {rate}/s"));
                    }
                }
            }
        }
    }
    assert!(better.is_empty(), "{better:#?}");
}
