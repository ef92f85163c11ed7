//! Have routes changed? What has arrived since the drain began, the kubelet's probes and other monitors left out.

mod visitor;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;

use super::monitors::{ANSWERED_WITHIN, Beat};
use crate::drain::{Arriving, Monitor, NAMED, Visitors};
use crate::inflight::sockets::{Connection, RecentlyClosed};
use crate::traffic::Probe;
use visitor::Visitor;

/// The kernel's clock for sockets goes in steps of up to 4 ms, and what it says of ages is in whole milliseconds.
const TICK: Duration = Duration::from_millis(5);

/// How many addresses are remembered. A pod that more call has clients in plenty, and no monitor keeps it waiting.
const ADDRESSES: usize = 16 * 1024;

/// With how many different monitors an address is compared.
const KINDS: usize = 16;

/// How many addresses may be taken for monitors because their requests have the size of a known monitor's. Where there are
/// more, that is the size of clients' requests too.
const OF_SAME_SIZE: usize = 16;

/// What is more from the kubelet's address than any probes would be: two a second, and some at once.
const PROBES_PER_SECOND: f64 = 2.0;
const PROBES_AT_ONCE: f64 = 5.0;

/// Requests that were made since the drain began: each on a new connection, or on one that a proxy in the pod keeps.
#[derive(Debug)]
pub struct Arrivals {
    began: Instant,
    visitors: HashMap<(IpAddr, u16), Visitor>,
    /// The kubelet's probes, where the pod's object is known.
    probes: Option<Vec<Probe>>,
    /// The intervals of those that a proxy in the pod may pass on, in seconds.
    passed_on: Vec<f64>,
    /// Arrivals of addresses that are not remembered.
    others: u64,
    last_other: Option<Instant>,
    /// What follows from all of them, as of the last judgement.
    count: u64,
    last: Option<Instant>,
    /// When something was last taken in.
    latest: Instant,
}

impl Arrivals {
    /// None yet since the drain began then.
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            visitors: HashMap::new(),
            probes: None,
            passed_on: Vec::new(),
            others: 0,
            last_other: None,
            count: 0,
            last: None,
            latest: began,
        }
    }

    /// When the drain began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How many there were, as of the last judgement.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When the last was seen, as of the last judgement.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// The pod's object has these probes of the kubelet, and no others. A proxy in the pod may pass them on.
    pub fn set_probes(&mut self, probes: Vec<Probe>, has_proxy: bool) {
        let intervals = probes.iter().map(|probe| probe.every.as_secs_f64());
        self.passed_on = intervals.filter(|_| has_proxy).collect();
        self.probes = Some(probes);
    }

    /// More has come from the kubelet's address than probes would: clients come through the node from there.
    pub fn clients_at_kubelet(&self, now: Instant) -> bool {
        let allowed = PROBES_AT_ONCE + PROBES_PER_SECOND * self.seconds(now, 0);
        (self.visitors.values()).any(|of| of.kubelet && of.arrivals as f64 > allowed)
    }

    /// Whether a connection that has closed, and was never seen open, brought something in this drain. The kernel is
    /// behind with its notices: this one may have closed before. Then what it brought is older than the drain.
    pub fn is_new(&self, closed: &Connection, now: Instant) -> bool {
        let heard = Duration::from_millis(closed.last_received.into());
        heard <= now.saturating_duration_since(self.began) + TICK
    }

    /// The kernel remembers this connection of before the drain. To be called before anything has arrived; `now` is when
    /// the kernel was asked.
    pub fn remember(&mut self, closed: &RecentlyClosed, now: Instant) {
        let at = self.seconds(now, 0) - closed.ago.as_secs_f64();
        if let Some(visitor) = self.visitor(closed.peer, closed.port) {
            visitor.remember(at);
        }
    }

    /// A request has come, of so many bytes; `kubelet` where it is from the kubelet's address.
    pub fn add(&mut self, seen: &Connection, bytes: u64, kubelet: bool, now: Instant) {
        self.latest = now;
        let at = self.seconds(now, seen.last_received.min(seen.last_sent));
        let Some(visitor) = self.visitor(seen.peer, seen.port) else {
            self.unseen(now);
            return;
        };
        visitor.kubelet = kubelet;
        visitor.in_pod = seen.from_pod;
        visitor.record(at, bytes, seen.cookie, now);
    }

    /// A connection that has arrived is seen again, or has closed: when its last bytes came or went is when the visit
    /// was, which is all that the kernel remembers of those before. One that takes long to be answered is no monitor's.
    pub fn goes_on(&mut self, seen: &Connection, waits: bool, now: Instant) {
        let at = self.seconds(now, seen.last_received.min(seen.last_sent));
        let waited = f64::from(seen.last_received) / 1000.0;
        let takes_long = waits && waited > ANSWERED_WITHIN;
        if let Some(visitor) = self.visitors.get_mut(&key(seen.peer, seen.port)) {
            visitor.goes_on(seen.cookie, at, takes_long);
        }
    }

    /// At least one connection may have arrived that was not seen.
    pub fn unseen(&mut self, now: Instant) {
        self.latest = now;
        self.others += 1;
        self.last_other = Some(now);
    }

    /// Judges what is new until the last that was taken in.
    pub fn judge_latest(&mut self) {
        self.judge(self.latest);
    }

    /// Judges what is new: which visits are a monitor's, and which are arrivals.
    pub fn judge(&mut self, now: Instant) {
        self.latest = now;
        let elapsed = self.seconds(now, 0);
        for ((_, port), visitor) in &mut self.visitors {
            let probes = (self.probes.as_deref()).filter(|_| visitor.kubelet);
            if visitor.has_news() || probes.is_some() {
                let probes = probes.map(|probes| probes.iter().filter(|of| of.port == *port));
                let passed_on: &[f64] = match visitor.in_pod {
                    true => &self.passed_on,
                    false => &[],
                };
                visitor.judge(probes.map(Iterator::collect), passed_on, elapsed);
            }
        }
        self.compare_with_monitors();
        (self.count, self.last) = (self.others, self.last_other);
        for visitor in self.visitors.values().filter(|of| of.like.is_none()) {
            self.count += visitor.arrivals;
            self.last = self.last.max(visitor.last);
        }
    }

    /// Compares the addresses that have shown no beat with the monitors of the same port.
    fn compare_with_monitors(&mut self) {
        let mut known: Vec<(u16, Beat)> = Vec::new();
        for (&(_, port), visitor) in &self.visitors {
            for beat in &visitor.beats {
                let is_known = known.iter().any(|(of, it)| *of == port && it.is_same(beat));
                if !is_known && known.len() < KINDS {
                    known.push((port, *beat));
                }
            }
        }
        let mut of_same_size = 0;
        for (&(_, port), visitor) in &mut self.visitors {
            let of_port = known.iter().filter(|(of, _)| *of == port);
            visitor.compare(of_port.map(|(_, beat)| beat));
            of_same_size += usize::from(visitor.is_of_same_size());
        }
        if of_same_size > OF_SAME_SIZE {
            for visitor in self.visitors.values_mut() {
                if visitor.is_of_same_size() {
                    visitor.like = None;
                }
            }
        }
    }

    /// Who calls, as of the last judgement. An address has stopped to arrive after `quiet`.
    pub fn visitors(&self, quiet: Duration, now: Instant) -> Visitors {
        let elapsed = self.seconds(now, 0).max(1.0);
        let mut visitors = Visitors::default();
        let mut arriving = Vec::new();
        for (&(address, _), visitor) in &self.visitors {
            let like = visitor.like.map(|(beat, _)| beat);
            for beat in visitor.beats.iter().chain(&like) {
                visitors.monitors.push(Monitor {
                    address,
                    every: Duration::from_secs_f64(beat.every),
                });
            }
            let counts = visitor.like.is_none();
            if let Some(last) = visitor.last.filter(|&last| counts && now < last + quiet) {
                let arrivals = visitor.arrivals;
                let per_second = arrivals as f64 / elapsed;
                arriving.push((
                    last,
                    Arriving {
                        address,
                        arrivals,
                        per_second,
                    },
                ));
            }
        }
        visitors.monitor_count = visitors.monitors.len();
        visitors.monitors.sort_by_key(|monitor| monitor.address);
        visitors.monitors.truncate(NAMED);
        visitors.arriving_count = arriving.len();
        arriving.sort_by_key(|&(last, ref of)| (std::cmp::Reverse(last), of.address));
        arriving.truncate(NAMED);
        visitors.arriving = arriving.into_iter().map(|(_, of)| of).collect();
        visitors
    }

    /// How many seconds after the drain's beginning it was, so many milliseconds ago.
    fn seconds(&self, now: Instant, ago: u32) -> f64 {
        now.saturating_duration_since(self.began).as_secs_f64() - f64::from(ago) / 1000.0
    }

    /// An address that calls a port; none where there are too many.
    fn visitor(&mut self, peer: SocketAddr, port: u16) -> Option<&mut Visitor> {
        let key = key(peer, port);
        if self.visitors.len() >= ADDRESSES && !self.visitors.contains_key(&key) {
            return None;
        }
        Some(self.visitors.entry(key).or_default())
    }
}

fn key(peer: SocketAddr, port: u16) -> (IpAddr, u16) {
    (peer.ip(), port)
}

#[cfg(test)]
mod tests {
    use super::super::examples::{MS, evidence, fresh, idle, read};
    use super::*;
    use crate::inflight::sockets::State;

    #[test]
    fn only_new_connections_that_bring_something_arrive_and_each_once() {
        let mut evidence = evidence();
        evidence.existed_before(&idle(1));
        let silent = Connection {
            received: 0,
            acknowledged: 0,
            ..idle(2)
        };
        assert_eq!(
            read(&mut evidence, false, &[idle(1), silent.clone()]).arrivals,
            0
        );
        assert_eq!(
            read(&mut evidence, false, &[idle(1), idle(2), idle(3)]).arrivals,
            2
        );
        assert_eq!(
            read(&mut evidence, false, &[idle(1), idle(2), idle(3)]).arrivals,
            2
        );
        let now = evidence.began() + 7000 * MS;
        for cookie in 1..=3 {
            evidence.closed(&idle(cookie), false, now);
        }
        assert_eq!(evidence.arrivals(), 2);
    }

    #[test]
    fn one_that_came_and_went_between_two_reads_arrived() {
        let mut evidence = evidence();
        let now = evidence.began() + 3000 * MS;
        evidence.closed(&fresh(7), false, now);
        let probed = Connection {
            received: 1, // Only its end.
            state: State::Other,
            ..idle(8)
        };
        evidence.closed(&probed, false, now + MS);
        let snapshot = read(&mut evidence, false, &[]);
        assert_eq!((snapshot.arrivals, snapshot.last_arrival), (1, Some(now)));
    }

    #[test]
    fn one_that_ended_before_the_drain_began_did_not_arrive() {
        let mut evidence = evidence();
        let now = evidence.began() + 20 * MS;
        let earlier = Connection {
            last_received: 30,
            ..idle(1)
        };
        evidence.closed(&earlier, false, now);
        let in_its_first_tick = Connection {
            last_received: 23,
            ..idle(3)
        };
        evidence.closed(&in_its_first_tick, false, now);
        assert_eq!(evidence.arrivals(), 1);
        let later = Connection {
            last_received: 10,
            ..idle(2)
        };
        evidence.closed(&later, false, now);
        assert_eq!(evidence.arrivals(), 2);
    }

    #[test]
    fn notices_that_were_lost_count_as_an_arrival() {
        let mut evidence = evidence();
        let now = evidence.began() + 3000 * MS;
        evidence.notices_lost(now);
        assert_eq!(read(&mut evidence, false, &[]).last_arrival, Some(now));
    }

    /// A visit of the kubelet's, answered at once.
    fn probe(cookie: u64) -> Connection {
        Connection {
            peer: "10.0.0.99:1234".parse().unwrap(),
            ..fresh(cookie)
        }
    }

    /// A connection that the app closed that long ago.
    fn closed_before(ago: u64) -> RecentlyClosed {
        RecentlyClosed {
            port: 8000,
            peer: "10.0.0.1:4321".parse().unwrap(),
            ago: Duration::from_millis(ago),
        }
    }

    #[test]
    fn the_kubelets_probes_keep_a_beat_and_what_does_not_arrives() {
        let mut evidence = evidence();
        let began = evidence.began();
        for n in 0..60 {
            // Two probes, each once a second.
            let at = began + (n / 2) * 1000 * MS + (n % 2) * 370 * MS;
            evidence.closed(&probe(u64::from(n)), true, at);
        }
        assert_eq!(evidence.arrivals(), 0);
        for n in 100..120 {
            let at = began + 30_000 * MS + (n - 100) * (n - 100) * 90 * MS;
            evidence.closed(&probe(u64::from(n)), true, at);
        }
        assert!(evidence.arrivals() >= 20);
    }

    #[test]
    fn the_kubelet_is_allowed_its_probes_and_no_more() {
        let mut evidence = evidence();
        let began = evidence.began();
        evidence.set_probes(vec![
            Probe {
                port: 8000,
                every: 10_000 * MS,
            },
            Probe {
                port: 9000,
                every: 1000 * MS,
            },
        ]);
        evidence.closed(&probe(1), true, began + 4000 * MS);
        assert_eq!(evidence.arrivals(), 0);
        evidence.closed(&probe(2), true, began + 7300 * MS);
        assert_eq!(evidence.arrivals(), 1, "a client behind the same address");
        evidence.closed(&probe(3), true, began + 14_000 * MS);
        assert_eq!(evidence.arrivals(), 1);
        evidence.closed(&probe(4), true, began + 16_100 * MS);
        assert_eq!(evidence.arrivals(), 2);
    }

    #[test]
    fn a_probe_that_is_late_is_one_of_those_that_the_kubelet_is_allowed() {
        let mut evidence = evidence();
        let began = evidence.began();
        evidence.set_probes(vec![Probe {
            port: 8000,
            every: 1000 * MS,
        }]);
        // Steady at first, so that the beat is known; then the machine is short of CPU.
        let at = [
            0, 1000, 2000, 3000, 4000, 5000, 6700, 7000, 8600, 9000, 10_600,
        ];
        for (n, at) in at.into_iter().enumerate() {
            evidence.closed(&probe(n as u64), true, began + at * MS);
            assert_eq!(evidence.arrivals(), 0, "at {at} ms");
        }
        // One more than a probe each second can have been.
        evidence.closed(&probe(90), true, began + 10_700 * MS);
        evidence.closed(&probe(91), true, began + 10_800 * MS);
        assert!(evidence.arrivals() > 0);
    }

    #[test]
    fn a_monitor_that_the_kernel_remembers_does_not_arrive() {
        for (ago, arrivals) in [([12_000, 7000, 2000], 0), ([12_000, 8500, 2000], 3)] {
            let mut evidence = evidence();
            let began = evidence.began();
            for ago in ago {
                evidence.remember(&closed_before(ago), began);
            }
            for n in 0..3 {
                let at = began + 3000 * MS + n * 5000 * MS;
                evidence.closed(&fresh(u64::from(n)), false, at);
            }
            assert_eq!(evidence.arrivals(), arrivals, "{ago:?}");
        }
    }

    #[test]
    fn a_monitor_shows_itself_at_its_third_visit_and_is_taken_back_when_it_is_irregular() {
        let mut evidence = evidence();
        let began = evidence.began();
        let mut visit = |cookie: u64, at: u32| {
            evidence.closed(&fresh(cookie), false, began + at * MS);
            evidence.arrivals()
        };
        assert_eq!(visit(1, 1000), 1);
        assert_eq!(visit(2, 6300), 2);
        assert_eq!(visit(3, 11_650), 0);
        assert_eq!(visit(4, 16_900), 0);
        assert_eq!(visit(5, 18_300), 5);
    }

    #[test]
    fn addresses_that_call_as_a_known_monitor_does_do_not_arrive() {
        let mut evidence = evidence();
        let began = evidence.began();
        let mut visit = |address: u8, cookie: u64, bytes: u64, at: u32| {
            let seen = Connection {
                peer: ([10, 0, 1, address], 1234).into(),
                received: bytes + 1,
                state: State::CloseWait,
                ..fresh(cookie)
            };
            evidence.closed(&seen, false, began + at * MS);
            evidence.arrivals()
        };
        assert_eq!(visit(1, 1, 150, 1000), 1);
        assert_eq!(visit(2, 2, 150, 4000), 2);
        assert_eq!(visit(3, 3, 300, 5000), 3, "a client");
        assert_eq!(visit(1, 4, 150, 11_000), 1, "two monitors");
        assert_eq!(visit(2, 5, 150, 12_300), 1, "of the same size");
        assert_eq!(visit(2, 6, 150, 16_000), 4, "and without a beat");
        for n in 4..=20 {
            let arrivals = visit(n, n.into(), 150, 20_000);
            let expected = if n < 20 { 4 } else { 4 + 17 };
            assert_eq!(arrivals, expected, "so many are clients: {n}");
        }
    }

    #[test]
    fn a_visit_that_takes_long_to_be_answered_is_no_monitors() {
        let mut evidence = evidence();
        for n in 1..=3 {
            let asks = Connection {
                last_received: 100,
                acknowledged: 0,
                ..idle(n)
            };
            let now = evidence.began() + (n as u32) * 5000 * MS;
            evidence.sees_open(&asks, false, now);
            let still = Connection {
                last_received: 2400,
                ..asks
            };
            evidence.sees_open(&still, false, now + 2300 * MS);
        }
        assert_eq!(evidence.arrivals(), 3);
    }

    #[test]
    fn requests_on_kept_connections_of_a_proxy_in_the_pod_arrive() {
        for (from_pod, arrivals, kept_in_use) in [(true, 2, 0), (false, 0, 1)] {
            let mut evidence = evidence();
            let began = evidence.began();
            let mut kept = Connection {
                from_pod,
                ..idle(1)
            };
            evidence.existed_before(&kept);
            evidence.sees_open(&kept, false, began + 1000 * MS);
            assert_eq!(evidence.snapshot(true, began + 1000 * MS).kept_in_use, 0);
            for (at, came, went) in [(2000, 150, 300), (2500, 17, 17), (3700, 90, 80)] {
                kept.received += came;
                kept.acknowledged += went;
                kept.segments += 1;
                (kept.last_received, kept.last_sent) = (60, 50);
                evidence.sees_open(&kept, false, began + at * MS);
            }
            assert_eq!(evidence.arrivals(), arrivals, "a ping is no request");
            let snapshot = evidence.snapshot(true, began + 4000 * MS);
            assert_eq!(
                snapshot.kept_in_use, kept_in_use,
                "each once, and none of a proxy's"
            );
        }
    }

    #[test]
    fn visitors_are_named_with_their_beat_or_their_rate() {
        let mut evidence = evidence();
        let began = evidence.began();
        for ago in [12_000, 7000, 2000] {
            evidence.remember(&closed_before(ago), began);
        }
        let client = Connection {
            peer: "10.0.0.7:99".parse().unwrap(),
            ..fresh(9)
        };
        evidence.closed(&client, false, began + 2000 * MS);
        let visitors = evidence.visitors(began + 4000 * MS);
        assert_eq!(
            visitors.monitors_text().as_deref(),
            Some("10.0.0.1 every 5 s")
        );
        assert_eq!(
            visitors.arriving_text().as_deref(),
            Some("10.0.0.7 at 0.25/s")
        );
        let later = evidence.visitors(began + 14_000 * MS);
        assert_eq!(later.arriving_text(), None);
    }
}
