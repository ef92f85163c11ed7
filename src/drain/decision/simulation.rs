//! The rule beside fixed sleeps, over thousands of seeded traffic patterns.
//!
//! Each pattern is a pod's last minute: requests on new connections arrive at some rate for as long as routes lead to the
//! pod, 90 % of them of 20–120 ms, 8 % of 1–3 s and 2 % of up to 25 s; and there may be clients that keep their
//! connections. Whatever is in flight when the drain ends is lost, and so is whatever arrives later. Of an app that
//! finishes its work (the handover) only that is lost which arrives later, or on a kept connection in the moment in which
//! the app closes it.

mod monitors;
mod peers;

use super::*;
use crate::drain::reads::Read;
use crate::drain::{Readiness, WhenBlind};

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
        app_shutdown: AppShutdown::Abrupt,
        when_stuck: None,
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
    /// Ten, which the app tells to go, and no other clients. They come back at once to any of three pods, each of which has
    /// as many and goes [`TURN`] after the one before it.
    Returning,
    /// Ten connections of a proxy outside the pod, which stops using them when routes change. No others come.
    Proxy,
}

const KEPT: [Kept; 5] = [
    Kept::None,
    Kept::Told,
    Kept::Returning,
    Kept::Untold,
    Kept::Proxy,
];

/// From the end of one pod of a rollout to that of the next, in seconds: as long as a new pod takes to be ready.
const TURN: f64 = 3.0;

/// How long the kubelet takes from the answer to its hook to the SIGTERM.
const SIGNAL: f64 = 0.02;

/// How long an app that ends takes to close connections on which no request is: what comes in this time is lost.
const CLOSING: f64 = 0.005;

/// What a drain goes by, and what its app does with its work.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rule {
    /// Connections alone.
    Connections,
    /// A counter of requests too.
    Counter,
    /// Connections alone, and the app finishes its work.
    Handover,
    /// A counter too, and the app finishes its work.
    CounterAndHandover,
}

const RULES: [Rule; 4] = [
    Rule::Connections,
    Rule::Counter,
    Rule::Handover,
    Rule::CounterAndHandover,
];

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
    /// They are a proxy's, whose requests are lost once the app is gone.
    proxy: bool,
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
            if at > routes || matches!(kept, Kept::Proxy | Kept::Returning) {
                break;
            }
            new.push(Request {
                from: at,
                to: at + length(&mut random),
            });
        }
        if kept == Kept::Returning {
            return Self::returning(routes, &mut random);
        }
        let clients = if kept == Kept::None { 0 } else { 10 };
        let proxy = kept == Kept::Proxy;
        let kept = (0..clients)
            .map(|_| {
                let (mut requests, mut at) = (Vec::new(), -random.f64());
                let last = if kept == Kept::Proxy { routes } else { 60.0 };
                while at < last {
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
        Self { new, kept, proxy }
    }

    /// Clients that are told to go, by this pod and by two that go after it.
    fn returning(routes: f64, random: &mut fastrand::Rng) -> Self {
        let (mut new, mut kept) = (Vec::new(), Vec::new());
        for pod in 0..3_u8 {
            let told_from = TURN * f64::from(pod);
            for _ in 0..10 {
                let mut request = Request { from: 0.0, to: 0.0 };
                request.from = told_from - random.f64();
                request.to = request.from + length(random);
                let mut own = vec![request];
                while request.to < told_from {
                    request.from = request.to + random.f64() * 0.1;
                    request.to = request.from + length(random);
                    own.push(request);
                }
                if pod == 0 {
                    kept.push(own);
                }
                // It comes back at once, here in one of three cases, where it is told again.
                while request.to < routes && random.u8(..3) == 0 {
                    request.from = request.to + 0.001;
                    request.to = request.from + length(random);
                    new.push(request);
                }
            }
        }
        new.sort_by(|a, b| a.from.total_cmp(&b.from));
        Self {
            new,
            kept,
            proxy: false,
        }
    }

    /// What is lost when the app dies at that time, or closes and finishes its work.
    fn lost(&self, end: f64, finishes: bool) -> usize {
        let new = self.new.iter().filter(|r| match finishes {
            true => r.from > end,
            false => r.to > end,
        });
        let kept = (self.kept.iter()).filter(|client| {
            client.iter().any(|r| match finishes {
                true => end < r.from && r.from <= end + CLOSING,
                false => r.from <= end && end < r.to,
            })
        });
        // A proxy goes on to send requests here until its routes change.
        let later = (self.kept.iter().flatten())
            .filter(|r| self.proxy && r.from > end)
            .count();
        match (self.proxy, finishes) {
            (true, true) => later,
            _ => new.count() + kept.count() + later,
        }
    }

    /// When the rule ends the drain, and how.
    fn end(&self, policy: &Policy, counted: bool) -> (f64, Outcome) {
        let before = self.new.partition_point(|r| r.from <= 0.0);
        let (mut arrived, mut last) = (before, None);
        self.end_by(policy, counted, |now, t| {
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
        counted: bool,
        mut arrivals: impl FnMut(Instant, f64) -> (u64, Option<Instant>),
    ) -> (f64, Outcome) {
        let began = Instant::now();
        let source = Source {
            name: String::new(),
            connections: false,
            ends_when_stuck: false,
        };
        let counters = usize::from(counted);
        let deadline = began + policy.budget();
        let mut facts = Facts::new(began, deadline, &[source], counters, true);
        let mut ends: Vec<f64> = self.new.iter().map(|r| r.to).collect();
        ends.sort_by(f64::total_cmp);
        let mut step = 0;
        let mut remaining: Option<Vec<Request>> = None;
        loop {
            let now = began + STEP * step;
            let t = STEP.as_secs_f64() * f64::from(step);
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
            match (facts.routes_changed(policy), &remaining) {
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
            let left = (self.kept.iter())
                .filter(|client| client.last().is_some_and(|r| self.proxy || t < r.to));
            let remaining = (remaining.as_ref())
                .map(|remaining| remaining.iter().filter(|r| t < r.to).count() as u64);
            let snapshot = TrafficSnapshot {
                arrivals,
                last_arrival,
                unanswered: 0,
                waiting: inflight as u64,
                active: active as u64,
                open: (came - gone + left.count()) as u64,
                listens: true,
                remaining,
                kept_in_use: (self.kept.iter())
                    .filter(|client| client.iter().any(|r| 0.0 < r.from && r.from <= t))
                    .count() as u64,
                ..TrafficSnapshot::default()
            };
            let read = |count: usize| Read {
                source: 0,
                began: now,
                ended: now,
                seen: Reading::Count(count as f64),
            };
            if counted {
                let on_kept = |client: &Vec<Request>| client.partition_point(|r| r.from <= t);
                let total = came + self.kept.iter().map(on_kept).sum::<usize>();
                facts.take_counter(&read(total));
            }
            facts.take_reading(policy, &read(inflight));
            facts.take_snapshot(policy, now, Some(snapshot));
            if let Decision::End(outcome) = decide(policy, &facts, now) {
                return (t + SIGNAL, outcome);
            }
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

    fn lost_per_pod(self) -> f64 {
        self.lost as f64 / self.pods as f64
    }

    fn seconds_per_pod(self) -> f64 {
        self.seconds / self.pods as f64
    }

    fn columns(self) -> String {
        let seconds = self.seconds_per_pod();
        format!("{:.2} in {seconds:.1} s", self.lost_per_pod())
    }
}

/// Prints with `cargo test simulation -- --nocapture` what [`super::decide`] has in its documentation.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn the_rule_loses_less_than_fixed_sleeps() {
    let abrupt = policy();
    let graceful = Policy {
        app_shutdown: AppShutdown::Graceful,
        reserve: Duration::ZERO,
        ..policy()
    };
    println!(
        "| clients | routes follow after | this rule | with a counter | handover | with a counter | sleep 5 s | sleep 10 s | sleep 15 s | sleep 30 s |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for kept in KEPT {
        for routes in ROUTES {
            let mut rules = [Total::default(); RULES.len()];
            let mut sleeps = [Total::default(); SLEEPS.len()];
            for rate in RATES {
                for seed in 0..seeds(rate) {
                    let pattern = Pattern::new(rate, routes, kept, seed);
                    for (total, rule) in rules.iter_mut().zip(RULES) {
                        let handover = matches!(rule, Rule::Handover | Rule::CounterAndHandover);
                        let counted = matches!(rule, Rule::Counter | Rule::CounterAndHandover);
                        let policy = if handover { &graceful } else { &abrupt };
                        let (end, _) = pattern.end(policy, counted);
                        total.add(pattern.lost(end, handover), end);
                    }
                    for (total, sleep) in sleeps.iter_mut().zip(SLEEPS) {
                        total.add(pattern.lost(sleep as f64, false), sleep as f64);
                    }
                }
            }
            let clients = match kept {
                Kept::None => "new connections",
                Kept::Told => "and ten that keep theirs, told to go",
                Kept::Returning => "thirty that keep theirs, told one pod after the other",
                Kept::Untold => "and ten that keep theirs, not told",
                Kept::Proxy => "ten connections of a proxy, and no others",
            };
            let columns = rules.map(Total::columns).join(" | ");
            let slept = sleeps
                .map(|total| format!("{:.2}", total.lost_per_pod()))
                .join(" | ");
            println!("| {clients} | {routes} s | {columns} | {slept} |");
            expect(kept, routes, rules, sleeps);
        }
    }
}

/// What must hold of each line.
fn expect(kept: Kept, routes: f64, rules: [Total; 4], sleeps: [Total; 4]) {
    let what = format!("{kept:?} {routes}: {rules:?} {sleeps:?}");
    let [connections, counter, handover, counted_handover] = rules;
    let best_sleep = |total: Total| {
        (sleeps[..3].iter()).all(|sleep| total.lost_per_pod() <= sleep.lost_per_pod())
    };
    if kept != Kept::Proxy {
        assert!(best_sleep(connections), "{what}");
        assert!(best_sleep(handover), "{what}");
    }
    // A proxy whose routes have not changed by max-quiet cannot be told from clients that keep their connections. Where these
    // are told to go, a counter is soon silent, though they may come back.
    if !matches!(kept, Kept::Proxy | Kept::Returning) || routes <= 6.0 {
        assert!(best_sleep(counter), "{what}");
        assert!(best_sleep(counted_handover), "{what}");
    }
    if matches!(kept, Kept::None | Kept::Told | Kept::Returning) && routes <= 3.0 {
        assert_eq!(connections.lost, 0, "{what}");
        assert_eq!(counter.lost, 0, "{what}");
        assert_eq!(handover.lost, 0, "{what}");
        assert_eq!(counted_handover.lost, 0, "{what}");
    }
    // The hook of an app that finishes its work is never held for the work.
    assert!(handover.seconds <= connections.seconds, "{what}");
}

/// The counts of ten clients that keep their connections, a read each 100 ms, for as long as a search for the best moment
/// takes.
fn counts(
    random: &mut fastrand::Rng,
    length: impl Fn(&mut fastrand::Rng) -> f64,
    pause: f64,
) -> Vec<u64> {
    let mut counts = vec![0; 101];
    for _ in 0..10 {
        // Long enough before for how it began not to matter.
        let mut at = -30.0 - random.f64();
        while at < 10.0 {
            let to = at + length(random);
            for (count, step) in counts.iter_mut().zip(0_u32..) {
                let now = f64::from(step) / 10.0;
                *count += u64::from(at <= now && now < to);
            }
            at = to - (1.0 - random.f64()).ln() * pause;
        }
    }
    counts
}

/// When the sketch that the rule is compared with ends: it watches for 2 s, and takes the first count at or below the
/// lowest tenth.
fn sketch(counts: &[u64]) -> usize {
    let mut watched = counts[..20].to_vec();
    watched.sort_unstable();
    let enough = |&(step, &count): &(usize, &u64)| count == 0 || step >= 20 && count <= watched[2];
    (counts.iter().enumerate())
        .find(enough)
        .map_or(counts.len() - 1, |(step, _)| step)
}

fn best_moment(counts: &[u64]) -> usize {
    let start = Instant::now();
    let mut moment = BestMoment::within(start, Duration::from_secs(10));
    let mut come = (0..).zip(counts).filter(|&(step, &count)| {
        let now = start + STEP * step;
        moment.take(count, now);
        moment.has_come(now)
    });
    come.next()
        .map_or(counts.len() - 1, |(step, _)| step as usize)
}

/// Prints what [`super::moment`] has in its documentation.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn the_best_moment_loses_no_more_than_the_sketch_and_comes_sooner_than_max_quiet() {
    let short = |random: &mut fastrand::Rng| match random.f64() {
        ..0.98 => length(random).min(3.0),
        _ => 3.0 + random.f64() * 2.0,
    };
    let brief = |random: &mut fastrand::Rng| 0.02 + random.f64() * 0.1;
    println!(
        "| requests take | the clients pause for | this rule | the first tenth | zero or the end |"
    );
    println!("| --- | --- | --- | --- | --- |");
    for pause in [0.05, 1.5, 3.0, 10.0] {
        for kind in ["up to 25 s", "up to 5 s", "up to 120 ms"] {
            let mut totals = [Total::default(); 3];
            for seed in 0..400 {
                let mut random = fastrand::Rng::with_seed(seed);
                let counts = match kind {
                    "up to 25 s" => counts(&mut random, length, pause),
                    "up to 5 s" => counts(&mut random, short, pause),
                    _ => counts(&mut random, brief, pause),
                };
                let zero = counts.iter().position(|&count| count == 0);
                let ends = [
                    best_moment(&counts),
                    sketch(&counts),
                    zero.unwrap_or(counts.len() - 1),
                ];
                for (total, end) in totals.iter_mut().zip(ends) {
                    total.add(counts[end] as usize, end as f64 / 10.0);
                }
            }
            println!(
                "| {kind} | {pause} s | {} |",
                totals.map(Total::columns).join(" | ")
            );
            let [rule, sketch, zero] = totals;
            assert!(rule.lost <= sketch.lost, "{kind} {pause}: {totals:?}");
            assert!(rule.seconds <= zero.seconds, "{kind} {pause}: {totals:?}");
        }
    }
}
