//! Have routes changed? What has arrived since the drain began, the kubelet's probes left out.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::inflight::sockets::Connection;

/// A readiness and a liveness probe at their quickest, one a second each, with jitter.
const PROBES_PER_SECOND: f64 = 2.0;
const PROBES_AT_ONCE: f64 = 5.0;

/// The kernel's clock for sockets goes in steps of up to 4 ms, and what it says of ages is in whole milliseconds.
const TICK: Duration = Duration::from_millis(5);

/// Connections made since the drain began that brought something.
#[derive(Debug)]
pub struct Arrivals {
    began: Instant,
    count: u64,
    last: Option<Instant>,
    /// Of each port, probes that do not count.
    probes: HashMap<u16, ProbeAllowance>,
    /// More has come from the kubelet's address than probes would.
    clients_at_kubelet: bool,
}

impl Arrivals {
    /// None yet since the drain began then.
    pub fn new(began: Instant) -> Self {
        Self {
            began,
            count: 0,
            last: None,
            probes: HashMap::new(),
            clients_at_kubelet: false,
        }
    }

    /// When the drain began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When the last was seen.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// More has come from the kubelet's address than probes would: clients come through the node from there.
    pub fn clients_at_kubelet(&self) -> bool {
        self.clients_at_kubelet
    }

    /// Whether a connection that has closed, and was never seen open, brought something in this drain. The kernel is
    /// behind with its notices: this one may have closed before. Then what it brought is older than the drain.
    pub fn is_new(&self, closed: &Connection, now: Instant) -> bool {
        let heard = Duration::from_millis(closed.last_received.into());
        heard <= now.saturating_duration_since(self.began) + TICK
    }

    /// A new connection has brought something to that port; `kubelet` where it is the kubelet's.
    pub fn add(&mut self, port: u16, kubelet: bool, now: Instant) {
        let full = || ProbeAllowance {
            left: PROBES_AT_ONCE,
            at: now,
        };
        if kubelet && self.probes.entry(port).or_insert_with(full).take(now) {
            return;
        }
        self.clients_at_kubelet |= kubelet;
        self.unseen(now);
    }

    /// At least one connection may have arrived that was not seen.
    pub fn unseen(&mut self, now: Instant) {
        self.count += 1;
        self.last = Some(now);
    }
}

/// So many a second, and so many at once.
#[derive(Debug)]
struct ProbeAllowance {
    left: f64,
    at: Instant,
}

impl ProbeAllowance {
    /// Takes one, if there is one left.
    fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = (self.left + since * PROBES_PER_SECOND).min(PROBES_AT_ONCE);
        self.at = now;
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }
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

    #[test]
    fn two_probes_a_second_are_no_traffic_and_more_are() {
        let mut evidence = evidence();
        let began = evidence.began();
        for n in 0..60 {
            // Two probes each second, with jitter: now and then three within one.
            let at = began + n * 500 * MS + (n % 3) * 130 * MS;
            evidence.closed(&fresh(u64::from(n)), true, at);
        }
        assert_eq!(evidence.arrivals(), 0);
        for n in 100..200 {
            let at = began + 30_000 * MS + (n - 100) * 100 * MS;
            evidence.closed(&fresh(u64::from(n)), true, at);
        }
        let arrivals = evidence.arrivals();
        assert!(
            (70..=80).contains(&arrivals),
            "{arrivals} of 100 within 10 s"
        );
    }
}
