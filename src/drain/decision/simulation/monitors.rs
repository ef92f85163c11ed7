//! The same patterns with monitors around: what recognising them loses, and what it saves.
//!
//! All clients call from one address with requests of one size, as through one ingress, which is where they look most like
//! a monitor.

use std::net::{IpAddr, SocketAddr};

use super::*;
use crate::inflight::sockets::{Connection, RecentlyClosed, State};
use crate::traffic::Settings;
use crate::traffic::evidence::Evidence;

/// A request on a connection of its own.
#[derive(Debug, Clone, Copy)]
struct Visit {
    from: f64,
    to: f64,
    address: IpAddr,
    bytes: u64,
}

/// How long a monitor's request takes, in seconds.
const ANSWER: f64 = 0.01;

/// What so many monitors call, each from an address of its own and with a beat of its own between these.
fn calls(count: usize, shortest: f64, longest: f64, seed: u64) -> Vec<Visit> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6d6f_6e69);
    let mut visits = Vec::new();
    for n in 0..count {
        let every = shortest + random.f64() * (longest - shortest);
        let mut at = -61.0 - random.f64() * every;
        while at < 60.0 {
            // Late by up to 30 ms.
            let from = at + random.f64() * 0.03;
            visits.push(Visit {
                from,
                to: from + ANSWER,
                address: [10, 0, 1, n as u8].into(),
                bytes: 150,
            });
            at += every;
        }
    }
    visits
}

/// A visit as the kernel shows it at that time.
fn connection(cookie: usize, visit: &Visit, t: f64) -> Connection {
    let ago = |then: f64| ((t - then).max(0.0) * 1000.0) as u32;
    let answered = visit.to <= t;
    Connection {
        cookie: cookie as u64,
        port: 8000,
        peer: SocketAddr::new(visit.address, 1000),
        from_pod: false,
        state: if answered {
            State::Other
        } else {
            State::Established
        },
        unread: 0,
        unacknowledged: 0,
        received: visit.bytes,
        segments: 1,
        acknowledged: if answered { 200 } else { 0 },
        last_received: ago(visit.from),
        last_sent: if answered { ago(visit.to) } else { u32::MAX },
        last_acknowledgement: ago(visit.from),
        replied: None,
        judged: None,
        only_control: false,
        segments_sent: u32::from(answered),
        largest_segment: 536,
        round_trip: Duration::ZERO,
    }
}

/// When the rule ends the drain; `memory` where the app closes connections first, so that the kernel remembers them.
fn end(pattern: &Pattern, policy: &Policy, monitors: &[Visit], memory: bool) -> f64 {
    let client = |request: &Request| Visit {
        from: request.from,
        to: request.to,
        address: [10, 0, 0, 1].into(),
        bytes: 300,
    };
    let mut visits: Vec<Visit> = pattern.new.iter().map(client).collect();
    visits.extend(monitors);
    visits.sort_by(|a, b| a.from.total_cmp(&b.from));
    let mut ends: Vec<usize> = (0..visits.len()).collect();
    ends.sort_by(|&a, &b| visits[a].to.total_cmp(&visits[b].to));
    let (mut came, mut gone) = (0, 0);
    let mut evidence: Option<Evidence> = None;
    let (end, _) = pattern.end_by(policy, false, |now, t| {
        let evidence = evidence.get_or_insert_with(|| {
            let mut evidence = Evidence::new(
                now,
                Settings {
                    ports: [8000].into(),
                    local_peers: crate::inflight::LocalPeers::Proxy,
                    auto: None,
                    quiet_period: policy.quiet_period,
                    max_quiet: policy.max_quiet,
                    poll_interval: policy.poll_interval,
                },
            );
            came = visits.partition_point(|visit| visit.from <= 0.0);
            gone = ends.partition_point(|&n| visits[n].to <= 0.0);
            for (n, visit) in visits[..came].iter().enumerate() {
                if visit.to > 0.0 {
                    evidence.existed_before(&connection(n, visit, 0.0));
                } else if memory && visit.to > -60.0 {
                    let closed = RecentlyClosed {
                        port: 8000,
                        peer: SocketAddr::new(visit.address, 1000),
                        ago: Duration::from_secs_f64(-visit.to),
                    };
                    evidence.remember(&closed, now);
                }
            }
            evidence
        });
        while came < visits.len() && visits[came].from <= t {
            evidence.sees_open(&connection(came, &visits[came], t), false, now);
            came += 1;
        }
        while gone < ends.len() && visits[ends[gone]].to <= t {
            evidence.closed(&connection(ends[gone], &visits[ends[gone]], t), false, now);
            gone += 1;
        }
        evidence.begin_read(None);
        let snapshot = evidence.snapshot(true, now);
        (snapshot.arrivals, snapshot.last_arrival)
    });
    end
}

/// Prints with `cargo test simulation -- --nocapture` what monitors cost.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn monitors_cost_no_request_and_little_time_where_the_kernel_remembers_them() {
    let policy = policy();
    println!("| routes follow after | monitors | remembered | without monitors | with them |");
    println!("| --- | --- | --- | --- | --- |");
    for routes in [0.0, 12.0] {
        for memory in [true, false] {
            for count in [1, 3, 6] {
                let (mut without, mut with) = (Total::default(), Total::default());
                for rate in RATES {
                    for seed in 0..(seeds(rate) / 4).max(1) {
                        let pattern = Pattern::new(rate, routes, Kept::None, seed);
                        let (quiet, _) = pattern.end(&policy, false);
                        without.add(pattern.lost(quiet, false), quiet);
                        let seed = seed * 1000 + (rate * 100.0) as u64;
                        let monitors = calls(count, 2.0, 60.0, seed);
                        let end = end(&pattern, &policy, &monitors, memory);
                        with.add(pattern.lost(end, false), end);
                    }
                }
                println!(
                    "| {routes} s | {count} | {memory} | {} | {} |",
                    without.columns(),
                    with.columns()
                );
                let lost = |total: Total| total.lost as f64 / total.pods as f64;
                let seconds = |total: Total| total.seconds / total.pods as f64;
                assert!(lost(with) <= lost(without) + 0.1, "{without:?} {with:?}");
                // Several that the kernel does not remember have to call three times each.
                if memory || count == 1 {
                    assert!(
                        seconds(with) <= seconds(without) + 2.0,
                        "{without:?} {with:?}"
                    );
                }
            }
        }
    }
}

/// An idle pod that only monitors call.
fn idle() -> Pattern {
    Pattern {
        new: Vec::new(),
        kept: Vec::new(),
        proxy: false,
    }
}

#[tokio::test(start_paused = true)]
async fn monitors_whose_beat_is_remembered_hold_an_idle_pod_for_ten_seconds_at_most() {
    let policy = policy();
    for seed in 0..200 {
        let count = 1 + seed as usize % 6;
        let monitors = calls(count, 2.0, 29.0, seed);
        let end = end(&idle(), &policy, &monitors, true);
        assert!(end <= 15.0, "{count} monitors, seed {seed}: {end} s");
    }
}

#[tokio::test(start_paused = true)]
async fn monitors_hold_an_idle_pod_for_two_beats_and_ten_seconds_at_most() {
    let policy = policy();
    for seed in 0..200 {
        let count = 1 + seed as usize % 6;
        let longest = 5.0 + (seed % 16) as f64;
        let monitors = calls(count, longest / 3.0, longest, seed);
        let end = end(&idle(), &policy, &monitors, false);
        let most = policy.min_wait.as_secs_f64().max(2.0 * longest) + 10.2;
        assert!(end <= most, "{count} monitors, seed {seed}: {end} s");
    }
}
