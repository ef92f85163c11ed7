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

/// The bytes of a monitor's request, and of a client's.
const MONITORS_BYTES: u64 = 150;
const CLIENTS_BYTES: u64 = 300;

/// How long a monitor's request takes, in seconds.
const ANSWER: f64 = 0.01;

/// The beats of several monitors.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Beats {
    /// Each has a beat of its own, between so many seconds and so many.
    Own(f64, f64),
    /// All have the same beat, as the nodes of one load balancer do.
    Shared(f64, f64),
    /// Each has one that is the default of a monitor.
    Round,
}

impl Beats {
    fn name(self) -> &'static str {
        match self {
            Beats::Own(..) => "each its own",
            Beats::Shared(..) => "all the same",
            Beats::Round => "5 to 60 s, round",
        }
    }
}

/// What so many monitors call, each from an address of its own.
fn calls(count: usize, beats: Beats, seed: u64) -> Vec<Visit> {
    let mut random = fastrand::Rng::with_seed(seed ^ 0x6d6f_6e69);
    let mut visits = Vec::new();
    let mut shared = None;
    for n in 0..count {
        let every = match beats {
            Beats::Own(shortest, longest) => shortest + random.f64() * (longest - shortest),
            Beats::Shared(shortest, longest) => {
                *shared.get_or_insert_with(|| shortest + random.f64() * (longest - shortest))
            }
            Beats::Round => [5.0, 10.0, 15.0, 30.0, 60.0][random.usize(..5)],
        };
        let mut at = -61.0 - random.f64() * every;
        while at < 60.0 {
            // Late by up to 30 ms.
            let from = at + random.f64() * 0.03;
            visits.push(Visit {
                from,
                to: from + ANSWER,
                address: [10, 0, 1, n as u8].into(),
                bytes: MONITORS_BYTES,
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
        peer: SocketAddr::new(visit.address, 1000),
        state: if answered {
            State::Other
        } else {
            State::Established
        },
        received: visit.bytes,
        segments: 1,
        acknowledged: if answered { 200 } else { 0 },
        last_received: ago(visit.from),
        last_sent: if answered { ago(visit.to) } else { u32::MAX },
        last_acknowledgement: ago(visit.from),
        segments_sent: u32::from(answered),
        ..Connection::example(cookie as u64)
    }
}

/// When the rule ends the drain; `memory` where the app closes connections first, so that the kernel remembers them. The
/// clients' requests have so many bytes.
fn end(pattern: &Pattern, policy: &Policy, monitors: &[Visit], memory: bool, bytes: u64) -> f64 {
    let client = |request: &Request| Visit {
        from: request.from,
        to: request.to,
        address: [10, 0, 0, 1].into(),
        bytes,
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

/// When a rule would end the drain that knows each monitor for sure at its second visit, and no client for one.
fn end_at_second_visit(pattern: &Pattern, policy: &Policy, monitors: &[Visit]) -> f64 {
    let before = pattern.new.partition_point(|r| r.from <= 0.0);
    let (end, _) = pattern.end_by(policy, false, |now, t| {
        let came = pattern.new.partition_point(|r| r.from <= t);
        let clients = pattern.new[before..came].iter().map(|r| r.from);
        let visits = || monitors.iter().filter(|of| 0.0 < of.from && of.from <= t);
        let alone =
            visits().filter(|of| visits().filter(|it| it.address == of.address).count() == 1);
        let arrived: Vec<f64> = clients.chain(alone.map(|of| of.from)).collect();
        let last = arrived.iter().copied().reduce(f64::max);
        let ago = |from: f64| Duration::from_secs_f64(t - from);
        (arrived.len() as u64, last.map(|from| now - ago(from)))
    });
    end
}

/// A row of the tables: without monitors and with them.
struct Row {
    routes: f64,
    count: usize,
    beats: Beats,
    memory: bool,
    bytes: u64,
    without: Total,
    with: Total,
    /// Where [`end_at_second_visit`] ends.
    at_second_visit: Total,
}

impl Row {
    fn new(routes: f64, count: usize, beats: Beats, memory: bool, bytes: u64) -> Self {
        let policy = policy();
        let mut row = Self {
            routes,
            count,
            beats,
            memory,
            bytes,
            without: Total::default(),
            with: Total::default(),
            at_second_visit: Total::default(),
        };
        for rate in RATES {
            for seed in 0..(seeds(rate) / 4).max(1) {
                let pattern = Pattern::new(rate, routes, Kept::None, seed);
                let (quiet, _) = pattern.end(&policy, false);
                row.without.add(pattern.lost(quiet, false), quiet);
                let seed = seed * 1000 + (rate * 100.0) as u64;
                let monitors = calls(count, beats, seed);
                let end = end(&pattern, &policy, &monitors, memory, bytes);
                row.with.add(pattern.lost(end, false), end);
                if !memory {
                    let end = end_at_second_visit(&pattern, &policy, &monitors);
                    row.at_second_visit.add(pattern.lost(end, false), end);
                }
            }
        }
        row
    }

    /// How many seconds longer a drain takes than without monitors.
    fn longer(&self, with: Total) -> f64 {
        with.seconds_per_pod() - self.without.seconds_per_pod()
    }

    /// Prints the row, and checks that it loses no more than without monitors.
    #[allow(clippy::print_stdout)]
    fn print(&self) {
        let Row {
            routes,
            count,
            memory,
            without,
            with,
            ..
        } = self;
        let second = match memory {
            true => "".to_owned(),
            false => self.at_second_visit.columns(),
        };
        println!(
            "| {routes} s | {count} | {} | {memory} | {} | {} | {} | {second} |",
            self.beats.name(),
            if self.bytes == CLIENTS_BYTES {
                "no"
            } else {
                "yes"
            },
            without.columns(),
            with.columns(),
        );
        assert!(
            with.lost_per_pod() <= without.lost_per_pod() + 0.1,
            "{without:?} {with:?}"
        );
    }
}

/// Prints with `cargo test simulation -- --nocapture` what monitors cost.
#[tokio::test(start_paused = true)]
#[allow(clippy::print_stdout)]
async fn monitors_cost_no_request_and_little_time_where_the_kernel_remembers_them() {
    println!(
        "| routes follow after | monitors | beats | remembered | clients' requests of the same size | without monitors | with them | known at the second visit |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    let own = Beats::Own(2.0, 60.0);
    for routes in [0.0, 12.0] {
        for count in [1, 3, 6] {
            let remembered = Row::new(routes, count, own, true, CLIENTS_BYTES);
            remembered.print();
            assert!(remembered.longer(remembered.with) <= 2.0);
            for beats in [own, Beats::Shared(2.0, 60.0), Beats::Round] {
                let row = Row::new(routes, count, beats, false, CLIENTS_BYTES);
                row.print();
                // Several that the kernel does not remember have to show themselves one by one, and no rule that needs
                // two visits of each could do it in two seconds. One that needs a single visit takes clients for
                // monitors.
                assert!(count > 1 || row.longer(row.with) <= 2.0);
                assert!(count == 1 || routes > 0.0 || row.longer(row.at_second_visit) > 2.0);
            }
            Row::new(routes, count, own, false, MONITORS_BYTES).print();
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
        let monitors = calls(count, Beats::Own(2.0, 29.0), seed);
        let end = end(&idle(), &policy, &monitors, true, CLIENTS_BYTES);
        assert!(end <= 15.0, "{count} monitors, seed {seed}: {end} s");
    }
}

#[tokio::test(start_paused = true)]
async fn monitors_hold_an_idle_pod_for_two_beats_and_ten_seconds_at_most() {
    let policy = policy();
    for seed in 0..200 {
        let count = 1 + seed as usize % 6;
        let longest = 5.0 + (seed % 16) as f64;
        let monitors = calls(count, Beats::Own(longest / 3.0, longest), seed);
        let end = end(&idle(), &policy, &monitors, false, CLIENTS_BYTES);
        let most = policy.min_wait.as_secs_f64().max(2.0 * longest) + 10.2;
        assert!(end <= most, "{count} monitors, seed {seed}: {end} s");
    }
}
