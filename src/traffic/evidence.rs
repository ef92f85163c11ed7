//! What follows from the connections that a drain sees: pure, with `now` passed in.
//!
//! There are three questions, each with a file of its own: have routes changed ([`arrivals`]), what is left of the
//! requests in flight then ([`remaining`]), and what was cut off ([`cut`]). [`Evidence`] knows each connection and passes
//! on what is new of it.

mod arrivals;
mod cut;
#[cfg(test)]
mod examples;
mod remaining;

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::Settings;
use crate::drain::TrafficSnapshot;
use crate::inflight::sockets::{Connection, LastSpoke, State};
use arrivals::Arrivals;
use cut::Cut;
use remaining::Remaining;

/// The longest `close_notify` of TLS: a record's header, an explicit nonce, the alert, its kind and a tag (RFC 5246 and
/// 8446).
const CLOSE_NOTIFY: u64 = 31;

/// What is known of one drain's traffic.
#[derive(Debug)]
pub struct Evidence {
    settings: Settings,
    /// Connections that are no arrivals any more, since they existed before or were counted, as they were seen last.
    known: HashMap<u64, LastSeen>,
    snapshot: TrafficSnapshot,
    arrivals: Arrivals,
    /// None before routes have changed.
    remaining: Option<Remaining>,
    cut: Cut,
}

/// What a connection was like when it was seen open.
#[derive(Debug, Clone, Copy)]
struct LastSeen {
    brought: u64,
    answered: u64,
    last_spoke: LastSpoke,
    /// One of its requests so far was answered within a tick of the kernel's clock.
    quick: bool,
    /// The client had closed its half.
    gave_up: bool,
}

impl LastSeen {
    fn new(seen: &Connection) -> Self {
        let last_spoke = seen.last_spoke();
        Self {
            brought: seen.brought(),
            answered: seen.answered(),
            last_spoke,
            quick: seen.is_tied() && last_spoke == LastSpoke::App,
            gave_up: seen.state == State::CloseWait,
        }
    }

    /// Nothing but the ends of this connection came and went since. Within TLS an end is said first, which from a client
    /// that waits for nothing is less than any request.
    fn is_of(&self, closed: &Connection) -> bool {
        let goodbye = match self.last_spoke {
            LastSpoke::App => CLOSE_NOTIFY,
            LastSpoke::Client | LastSpoke::Unclear => 0,
        };
        closed.received <= self.brought + goodbye + 1
            && closed.acknowledged <= self.answered + goodbye + 1
    }
}

impl Evidence {
    /// Nothing is known yet of the drain that began then.
    pub fn new(began: Instant, settings: Settings) -> Self {
        Self {
            cut: Cut::new(settings.max_quiet),
            settings,
            known: HashMap::new(),
            snapshot: TrafficSnapshot::default(),
            arrivals: Arrivals::new(began),
            remaining: None,
        }
    }

    /// When the drain began.
    pub fn began(&self) -> Instant {
        self.arrivals.began()
    }

    /// Whether a connection is one of the app's ports'.
    pub fn concerns(&self, connection: &Connection) -> bool {
        self.settings.ports.contains(&connection.port)
    }

    /// A connection that existed before the drain began.
    pub fn existed_before(&mut self, seen: &Connection) {
        self.known.insert(seen.cookie, LastSeen::new(seen));
    }

    /// A connection that has closed and does not count: it did while the drain began, or it was our own.
    pub fn ignore(&mut self, closed: &Connection) {
        self.known.remove(&closed.cookie);
    }

    /// Begins a read of the table. `routes_changed` is when routes are known to have changed, if they are.
    pub fn begin_read(&mut self, routes_changed: Option<Instant>) {
        match (routes_changed, &mut self.remaining) {
            (None, _) => self.remaining = None,
            (Some(_), Some(remaining)) => remaining.begin_read(),
            (Some(_), None) => self.remaining = Some(Remaining::default()),
        }
        self.snapshot = TrafficSnapshot::default();
    }

    /// A connection that this read sees; `kubelet` where it is the kubelet's.
    pub fn sees_open(&mut self, seen: &Connection, kubelet: bool, now: Instant) {
        let now_seen = LastSeen::new(seen);
        let open = !seen.state.app_closed();
        if let Some(known) = self.known.get_mut(&seen.cookie) {
            if open {
                *known = LastSeen {
                    quick: known.quick || now_seen.quick,
                    ..now_seen
                };
            }
        } else if seen.brought() > 0 {
            self.known.insert(seen.cookie, now_seen);
            self.arrivals.add(seen.port, kubelet, now);
        }
        let waits = seen.waits(self.settings.max_quiet);
        let busy = seen.is_busy(self.settings.quiet_period, self.settings.max_quiet);
        self.snapshot.open += u64::from(open);
        self.snapshot.unanswered += u64::from(seen.unanswered() && open);
        self.snapshot.waiting += u64::from(waits && open);
        self.snapshot.active += u64::from(busy);
        if let Some(remaining) = &mut self.remaining {
            remaining.sees(seen, busy, waits);
        }
    }

    /// What the read has seen, once it has seen all, and whether something listens.
    pub fn snapshot(&mut self, listens: bool) -> TrafficSnapshot {
        if listens {
            self.cut.app_listens();
        }
        TrafficSnapshot {
            arrivals: self.arrivals.count(),
            last_arrival: self.arrivals.last(),
            listens,
            remaining: self.remaining.as_mut().map(Remaining::end_read),
            ..self.snapshot
        }
    }

    /// A connection has closed; `kubelet` where it was the kubelet's.
    pub fn closed(&mut self, closed: &Connection, kubelet: bool, now: Instant) {
        let last = self.known.remove(&closed.cookie);
        if last.is_none() && closed.brought() > 0 && self.arrivals.is_new(closed, now) {
            self.arrivals.add(closed.port, kubelet, now);
        }
        self.cut.closed(closed, last, self.is_probe(kubelet));
    }

    /// A connection that the last read sees: one that the app has left will close as it is. `kubelet` where it is the
    /// kubelet's.
    pub fn closing(&mut self, seen: &Connection, kubelet: bool) {
        let last = self.known.get(&seen.cookie).copied();
        self.cut.closing(seen, last, self.is_probe(kubelet));
    }

    /// Whether a connection from the kubelet's address may be a probe. Where more has come from there than probes would,
    /// it stands for clients that came through the node.
    fn is_probe(&self, kubelet: bool) -> bool {
        kubelet && !self.arrivals.clients_at_kubelet()
    }

    /// Whether each connection that was seen is `present`, or known to have closed.
    pub fn accounts_for_all(&self, present: &HashSet<u64>) -> bool {
        self.known.keys().all(|cookie| present.contains(cookie))
    }

    /// Connections have closed of which nothing is known: at least one of them may have been new.
    pub fn notices_lost(&mut self, now: Instant) {
        if !self.cut.notices_lost() {
            self.arrivals.unseen(now);
        }
    }

    /// A connection that is not `present` any more has closed, and if the notice of it was among those that the kernel
    /// did not keep, all that is known is whether a client waited.
    pub fn disappeared(&mut self, present: &HashSet<u64>) {
        if self.cut.has_lost_notices() {
            self.known.retain(|cookie, last| {
                let stays = present.contains(cookie);
                if !stays {
                    self.cut.disappeared(*last);
                }
                stays
            });
        }
    }

    /// The hooks are being answered: a client that waits from now on is cut off; and where the app is `gone`, so was each
    /// that waited when it went.
    pub fn hook_answered(&mut self, gone: bool) {
        self.cut.hook_answered(gone);
    }

    /// Connections that have arrived.
    pub fn arrivals(&self) -> u64 {
        self.arrivals.count()
    }

    /// Requests that have been cut off.
    pub fn cut(&self) -> u64 {
        self.cut.count()
    }
}
