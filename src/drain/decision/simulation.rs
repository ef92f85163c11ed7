//! The rule beside fixed sleeps, over thousands of seeded traffic patterns.
//!
//! Each pattern is a pod's last minute: requests on new connections arrive at some rate for as long as routes lead to the
//! pod, 90 % of them of 20–120 ms, 8 % of 1–3 s and 2 % of up to 25 s; and there may be clients that keep their
//! connections. Whatever is in flight when the drain ends is lost, and so is whatever arrives later.

mod monitors;

use super::*;
use crate::drain::reads::Read;
use crate::drain::{Readiness, Reading, TrafficSnapshot, WhenBlind};

const STEP: Duration = Duration::from_millis(100);
const SLEEPS: [u64; 4] = [5, 10, 15, 30];
/// Patterns of each kind; of the busiest kinds a few do, for each has thousands of requests.
fn seeds(rate: f64) -> u64 {
    if rate < 100.0 { 24 } else { 5 }
}

const RATES: [f64; 8] = [0.05, 0.3, 1.0, 3.0, 10.0, 50.0, 200.0, 500.0];
const ROUTES: [f64; 6] = [0.0, 1.0, 3.0, 6.0, 12.0, 20.0];

fn policy() -> Policy {
    Policy {
        max_inflight: 0.0,
        min_wait: Duration::from_secs(5),
        quiet_period: Duration::from_secs(1),
        max_quiet: Duration::from_secs(10),
        grace_period: Duration::from_secs(60),
        reserve: Duration::from_secs(5),
        timeout: None,
        readiness: Readiness::Now,
        when_blind: WhenBlind::Wait,
        poll_interval: STEP,
        exit_with_app: false,
    }
}

/// Clients that keep their connections.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kept {
    None,
    /// Ten, which the app tells to go.
    Told,
    /// Ten, which are not told.
    Untold,
}

const KEPT: [Kept; 3] = [Kept::None, Kept::Told, Kept::Untold];

/// A request: when it comes and when it is answered, in seconds since the drain began.
#[derive(Debug, Clone, Copy)]
struct Request {
    from: f64,
    to: f64,
}

/// What happens to a pod.
struct Pattern {
    /// Requests on connections of their own, in order of arrival; `starts` and `ends` are sorted.
    new: Vec<Request>,
    /// The requests of each client that keeps its connection, in order.
    kept: Vec<Vec<Request>>,
}

fn length(random: &mut fastrand::Rng) -> f64 {
    let part = random.f64();
    let within = |random: &mut fastrand::Rng, from: f64, to: f64| from + random.f64() * (to - from);
    match part {
        ..0.90 => within(random, 0.02, 0.12),
        ..0.98 => within(random, 1.0, 3.0),
        _ => within(random, 3.0, 25.0),
    }
}

impl Pattern {
    fn new(rate: f64, routes: f64, kept: Kept, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut new = Vec::new();
        // Those of before the drain began are on their way too.
        let mut at = -25.0;
        loop {
            at += -(1.0 - random.f64()).ln() / rate;
            if at > routes {
                break;
            }
            new.push(Request {
                from: at,
                to: at + length(&mut random),
            });
        }
        let clients = if kept == Kept::None { 0 } else { 10 };
        let kept = (0..clients)
            .map(|_| {
                let (mut requests, mut at) = (Vec::new(), -random.f64());
                while at < 60.0 {
                    let to = at + length(&mut random);
                    requests.push(Request { from: at, to });
                    if kept == Kept::Told && to > 0.0 {
                        break; // This answer said so.
                    }
                    at = to + random.f64() * 0.1;
                }
                requests
            })
            .collect();
        Self { new, kept }
    }

    /// What is lost when the app dies at that time.
    fn lost(&self, end: f64) -> usize {
        let new = self.new.iter().filter(|r| r.to > end).count();
        let kept = (self.kept.iter())
            .filter(|client| client.iter().any(|r| r.from <= end && end < r.to))
            .count();
        new + kept
    }

    /// When the rule ends the drain, and how.
    fn end(&self, policy: &Policy) -> (f64, Outcome) {
        let before = self.new.partition_point(|r| r.from <= 0.0);
        let (mut arrived, mut last) = (before, None);
        self.end_by(policy, |now, t| {
            let came = self.new.partition_point(|r| r.from <= t);
            if came > arrived {
                (arrived, last) = (came, Some(now));
            }
            ((arrived - before) as u64, last)
        })
    }

    /// The same, where `arrivals` says how many have arrived by then, and when the last did.
    fn end_by(
        &self,
        policy: &Policy,
        mut arrivals: impl FnMut(Instant, f64) -> (u64, Option<Instant>),
    ) -> (f64, Outcome) {
        let began = Instant::now();
        let mut facts = Facts {
            began,
            deadline: began + policy.budget(),
            endpoints_left: Some(began),
            signalled: false,
            going: false,
            app_is_stopped: false,
            sources: vec![SourceHistory::new(began, false)],
            traffic: TrafficFacts::Awaited,
        };
        let mut ends: Vec<f64> = self.new.iter().map(|r| r.to).collect();
        ends.sort_by(f64::total_cmp);
        let mut step = 0;
        let mut remaining: Option<Vec<Request>> = None;
        loop {
            let now = began + STEP * step;
            let t = STEP.as_secs_f64() * f64::from(step);
            if let Decision::End(outcome) = decide(policy, &facts, now) {
                return (t, outcome);
            }
            let came = self.new.partition_point(|r| r.from <= t);
            let (arrivals, last_arrival) = arrivals(now, t);
            let gone = ends.partition_point(|&to| to <= t);
            // The last request of each client that keeps its connection, as of now.
            let kept = || {
                (self.kept.iter()).filter_map(|client| {
                    let came = client.partition_point(|r| r.from <= t);
                    Some(client[came.checked_sub(1)?])
                })
            };
            match (facts.routes_changed(), &remaining) {
                (None, _) => remaining = None,
                (Some(_), None) => {
                    let open = self.new[..came].iter().copied().chain(kept());
                    remaining = Some(open.filter(|r| t < r.to).collect());
                }
                (Some(_), Some(_)) => {}
            }
            let lately = t - policy.quiet_period.as_secs_f64();
            let inflight = came - gone + kept().filter(|r| t < r.to).count();
            let active = came - gone + kept().filter(|r| lately < r.to).count();
            let remaining = (remaining.as_ref())
                .map(|remaining| remaining.iter().filter(|r| t < r.to).count() as u64);
            let snapshot = TrafficSnapshot {
                arrivals,
                last_arrival,
                unanswered: 0,
                waiting: inflight as u64,
                active: active as u64,
                open: inflight as u64,
                listens: true,
                remaining,
                ..TrafficSnapshot::default()
            };
            facts.sources[0].take(
                &Read {
                    source: 0,
                    began: now,
                    ended: now,
                    seen: Reading::Count(inflight as f64),
                },
                policy.max_inflight,
            );
            facts.take_snapshot(policy, now, Some(snapshot));
            step += 1;
        }
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Total {
    pods: usize,
    lost: usize,
    seconds: f64,
}

impl Total {
    fn add(&mut self, lost: usize, seconds: f64) {
        self.pods += 1;
        self.lost += lost;
        self.seconds += seconds;
    }

    fn columns(self) -> String {
        let pods = self.pods as f64;
        format!(
            "{:.2} in {:.1} s",
            self.lost as f64 / pods,
            self.seconds / pods
        )
    }
}

impl std::ops::AddAssign for Total {
    fn add_assign(&mut self, other: Self) {
        self.pods += other.pods;
        self.lost += other.lost;
        self.seconds += other.seconds;
    }
}

/// Prints with `cargo test simulation -- --nocapture` what [`super::decide`] has in its documentation.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn the_rule_loses_less_than_fixed_sleeps() {
    let policy = policy();
    println!(
        "| clients | routes follow after | this rule | sleep 5 s | sleep 10 s | sleep 15 s | sleep 30 s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    let mut all = [Total::default(); 5];
    for kept in KEPT {
        for routes in ROUTES {
            let mut totals = [Total::default(); 5];
            for rate in RATES {
                for seed in 0..seeds(rate) {
                    let pattern = Pattern::new(rate, routes, kept, seed);
                    let (end, _) = pattern.end(&policy);
                    totals[0].add(pattern.lost(end), end);
                    for (total, sleep) in totals[1..].iter_mut().zip(SLEEPS) {
                        total.add(pattern.lost(sleep as f64), sleep as f64);
                    }
                }
            }
            let clients = match kept {
                Kept::None => "new connections",
                Kept::Told => "and ten that keep theirs, told to go",
                Kept::Untold => "and ten that keep theirs, not told",
            };
            println!(
                "| {clients} | {routes} s | {} |",
                totals.map(Total::columns).join(" | ")
            );
            for (sum, total) in all.iter_mut().zip(totals) {
                *sum += total;
            }
            let per_pod = |total: Total| total.lost as f64 / total.pods as f64;
            for sleep in &totals[1..4] {
                assert!(
                    per_pod(totals[0]) <= per_pod(*sleep),
                    "{kept:?} {routes}: {totals:?}"
                );
            }
            if kept != Kept::Untold && routes <= 3.0 {
                assert_eq!(totals[0].lost, 0, "{kept:?} {routes}");
            }
        }
    }
    println!("| all | | {} |", all.map(Total::columns).join(" | "));
}
