//! What follows from the connections that a drain sees: pure, with `now` passed in.
//!
//! There are three questions, each with a file of its own: have routes changed ([`arrivals`], which leaves [`monitors`]
//! out), what is left of the requests in flight then ([`remaining`]), and what was cut off ([`cut`]). [`Evidence`] knows each connection and passes
//! on what is new of it.

mod arrivals;
mod cut;
#[cfg(test)]
mod examples;
mod monitors;
mod remaining;

use std::collections::{HashMap, HashSet};

use tokio::time::Instant;

use super::{Probe, Settings};
use crate::drain::{TrafficSnapshot, Visitors};
use crate::inflight::LocalPeers;
use crate::inflight::sockets::{Connection, LastSpoke, RecentlyClosed, State, is_farewell};
use arrivals::Arrivals;
use cut::Cut;
use remaining::Remaining;

/// The longest `close_notify` of TLS: a record's header, an explicit nonce, the alert, its kind and a tag (RFC 5246 and
/// 8446).
const CLOSE_NOTIFY: u64 = 31;

/// The most that a proxy says in a segment on a kept connection without asking for anything: a `PING`'s acknowledgement
/// and two `WINDOW_UPDATE`s of HTTP/2 (RFC 9113, sections 6.7 and 6.9).
const FRAMES: u64 = 17 + 2 * 13;

/// How long nothing must have come or gone, in milliseconds, for what comes next to be no word on what went before.
const CALM: u32 = 500;

/// What is known of one drain's traffic.
#[derive(Debug)]
pub struct Evidence {
    settings: Settings,
    /// Connections that are no arrivals any more, since they existed before or were counted, as they were seen last.
    known: HashMap<u64, LastSeen>,
    snapshot: TrafficSnapshot,
    arrivals: Arrivals,
    /// Connections that clients have kept from before the drain, and on which they have made a request since.
    kept_in_use: u64,
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
    segments: u32,
    /// Nothing had come or gone for a moment.
    calm: bool,
    /// It was made since the drain began.
    arrived: bool,
    /// It was made before, and its client has made a request on it since.
    kept_in_use: bool,
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
            segments: seen.segments,
            calm: seen.last_received.min(seen.last_sent) >= CALM,
            arrived: false,
            kept_in_use: false,
        }
    }

    /// A request is the first of this drain on a connection that a client has kept from before. Requests on those of a proxy
    /// in the pod arrive.
    fn is_first_on_kept(&self, request: Option<u64>, from_proxy: bool) -> bool {
        request.is_some() && !self.kept_in_use && !self.arrived && !from_proxy
    }

    /// How many bytes of a request have come since, if one has. It takes more than frames of HTTP/2 that ask for nothing,
    /// or an answer longer than those.
    fn request(&self, seen: &Connection) -> Option<u64> {
        let came = seen.brought().saturating_sub(self.brought);
        let went = seen.answered().saturating_sub(self.answered);
        let segments = seen.segments.saturating_sub(self.segments).max(1);
        let asks = came > FRAMES * u64::from(segments) || self.calm && went > FRAMES;
        (came > 0 && asks).then_some(came)
    }

    /// It waited for nothing, the app has sent more since, and the client has sent nothing more than a client of HTTP/2 does
    /// that leaves because of a GOAWAY. Whether the kernel counts the end of the client's half is not known, so both
    /// sizes are tried.
    fn is_farewell(&self, closed: &Connection) -> bool {
        let idle = self.last_spoke.is_idle();
        let came = closed.brought().saturating_sub(self.brought);
        let went = closed.answered().saturating_sub(self.answered);
        idle && went > 0 && (is_farewell(came) || is_farewell(came + 1))
    }

    /// Nothing but the ends of this connection came and went since. Within TLS an end is said first, which from a client
    /// that waits for nothing is less than any request.
    fn is_of(&self, closed: &Connection) -> bool {
        let goodbye = match self.last_spoke.is_idle() {
            true => CLOSE_NOTIFY,
            false => 0,
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
            kept_in_use: 0,
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

    /// Whether a connection is that of a proxy in the pod.
    pub fn is_from_proxy(&self, seen: &Connection) -> bool {
        seen.from_pod && self.settings.local_peers == LocalPeers::Proxy
    }

    /// A connection that existed before the drain began.
    pub fn existed_before(&mut self, seen: &Connection) {
        self.known.insert(seen.cookie, LastSeen::new(seen));
    }

    /// A connection that has closed and does not count: it did while the drain began, or it was our own.
    pub fn ignore(&mut self, closed: &Connection) {
        self.known.remove(&closed.cookie);
    }

    /// The kernel remembers this connection of before the drain.
    pub fn remember(&mut self, closed: &RecentlyClosed, now: Instant) {
        self.arrivals.remember(closed, now);
    }

    /// The pod's object has these probes of the kubelet, and no others.
    pub fn set_probes(&mut self, probes: Vec<Probe>) {
        let has_proxy = self.settings.local_peers == LocalPeers::Proxy;
        self.arrivals.set_probes(probes, has_proxy);
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
        let from_proxy = self.is_from_proxy(seen);
        let now_seen = LastSeen::new(seen);
        let open = !seen.state.app_closed();
        let waits = seen.waits(self.settings.max_quiet);
        if let Some(known) = self.known.get_mut(&seen.cookie) {
            let request = known.request(seen);
            let is_first = known.is_first_on_kept(request, from_proxy);
            self.kept_in_use += u64::from(is_first);
            known.kept_in_use |= is_first;
            let request = request.filter(|_| from_proxy);
            if open {
                *known = LastSeen {
                    quick: known.quick || now_seen.quick,
                    arrived: known.arrived || request.is_some(),
                    kept_in_use: known.kept_in_use,
                    ..now_seen
                };
            }
            if let Some(bytes) = request {
                // A proxy in the pod keeps its connections: its requests arrive, and not they.
                self.arrivals.add(seen, bytes, kubelet, now);
            } else if known.arrived {
                self.arrivals.goes_on(seen, waits, now);
            }
        } else if seen.brought() > 0 {
            let arrived = true;
            (self.known).insert(
                seen.cookie,
                LastSeen {
                    arrived,
                    ..now_seen
                },
            );
            self.arrivals.add(seen, seen.brought(), kubelet, now);
        }
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
    pub fn snapshot(&mut self, listens: bool, now: Instant) -> TrafficSnapshot {
        if listens {
            self.cut.app_listens();
        }
        self.arrivals.judge(now);
        TrafficSnapshot {
            arrivals: self.arrivals.count(),
            last_arrival: self.arrivals.last(),
            kept_in_use: self.kept_in_use,
            listens,
            remaining: self.remaining.as_mut().map(Remaining::end_read),
            ..self.snapshot.clone()
        }
    }

    /// A connection has closed; `kubelet` where it was the kubelet's.
    pub fn closed(&mut self, closed: &Connection, kubelet: bool, now: Instant) {
        let from_proxy = self.is_from_proxy(closed);
        let last = self.known.remove(&closed.cookie);
        match &last {
            None if closed.brought() > 0 && self.arrivals.is_new(closed, now) => {
                self.arrivals.add(closed, closed.brought(), kubelet, now);
            }
            Some(last) => {
                let request = last.request(closed);
                self.kept_in_use += u64::from(last.is_first_on_kept(request, from_proxy));
                match request.filter(|_| from_proxy) {
                    Some(bytes) => self.arrivals.add(closed, bytes, kubelet, now),
                    None if last.arrived => self.arrivals.goes_on(closed, false, now),
                    None => {}
                }
            }
            None => {}
        }
        let probe = self.is_probe(closed, kubelet, now);
        self.cut.closed(closed, last, probe);
    }

    /// A connection that the last read sees: one that the app has left will close as it is. `kubelet` where it is the
    /// kubelet's.
    pub fn closing(&mut self, seen: &Connection, kubelet: bool, now: Instant) {
        let last = self.known.get(&seen.cookie).copied();
        let probe = self.is_probe(seen, kubelet, now);
        self.cut.closing(seen, last, probe);
    }

    /// Whether a connection from the kubelet's address may be a probe. Where more has come from there than probes would,
    /// it stands for clients that came through the node.
    /// That is asked only of what looks like one: to judge all visits of an address takes a while, and a node's address may
    /// stand for many clients.
    fn is_probe(&mut self, closed: &Connection, kubelet: bool, now: Instant) -> bool {
        kubelet && Cut::is_like_probe(closed) && {
            self.arrivals.judge(now);
            !self.arrivals.clients_at_kubelet(now)
        }
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

    /// Requests that have arrived.
    pub fn arrivals(&mut self) -> u64 {
        self.arrivals.judge_latest();
        self.arrivals.count()
    }

    /// Who calls, as of the last snapshot.
    pub fn visitors(&mut self, now: Instant) -> Visitors {
        self.arrivals.judge(now);
        self.arrivals.visitors(self.settings.max_quiet, now)
    }

    /// Requests that have been cut off.
    pub fn cut(&self) -> u64 {
        self.cut.count()
    }
}
