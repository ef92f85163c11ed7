//! What follows from the connections that live and those that died: pure, with `now` passed in.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use crate::drain::TrafficSnapshot;
use crate::inflight::sockets::{Connection, INTERIM, Order, State};

/// A readiness and a liveness probe at their quickest, one a second each, with jitter.
const PROBES_PER_SECOND: f64 = 2.0;
const PROBES_AT_ONCE: f64 = 5.0;

/// No probe waits for longer, unless its `timeoutSeconds` says so.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// The kernel's clock for sockets goes in steps of up to 4 ms, and what it says of ages is in whole milliseconds.
const TICK: Duration = Duration::from_millis(5);

/// The most that a client sends at once while it takes an answer: a `PING`'s acknowledgement and two `WINDOW_UPDATE`s
/// (RFC 9113, sections 6.7 and 6.9), or a WebSocket's control frame. A request is longer, its headers being what they are.
const FRAMES: u64 = 64;

/// The longest `close_notify` of TLS: a record's header, an explicit nonce, the alert, its kind and a tag (RFC 5246 and
/// 8446).
const CLOSE_NOTIFY: u64 = 31;

/// What is known of one drain's traffic.
#[derive(Debug)]
pub struct Evidence {
    settings: Settings,
    began: Instant,
    /// Connections that are no arrivals any more, there from the start or counted, as they were seen last.
    known: HashMap<u64, LastSeen>,
    sight: TrafficSnapshot,
    /// Probes on each port that are no arrivals.
    arriving: HashMap<u16, ProbeAllowance>,
    /// More has come from the kubelet's address than probes would: it stands for clients that came through the node.
    shared: bool,
    /// Ports on which a probe was under way when the app died.
    probed: HashSet<u16>,
    /// Connections with a request on them when routes had changed.
    held: Option<HashMap<u64, Remaining>>,
    /// Numbers the looks.
    look: u64,
    /// Whether this look is the first since routes changed.
    first: bool,
    answered: bool,
    /// The kernel had more notices than it kept since.
    missed: bool,
    cut: u64,
    /// Connections that ended under somebody who waited, since something was last seen to listen. If the app is gone,
    /// it was by this that they ended.
    early: u64,
    /// Connections that are dying and were counted already.
    counted: HashSet<u64>,
}

/// What a connection was like when it was seen alive.
#[derive(Debug, Clone, Copy)]
struct LastSeen {
    brought: u64,
    answered: u64,
    /// Whether somebody waited.
    order: Order,
    /// One of its requests so far was answered within a tick of the kernel's clock.
    quick: bool,
    /// The client had closed its half.
    gave_up: bool,
}

/// A request that was in flight when routes had changed, as its connection shows it.
#[derive(Debug, Clone, Copy)]
struct Remaining {
    /// The look that saw it last.
    look: u64,
    step: Step,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    /// The answer has not begun; so many bytes of earlier ones had arrived.
    Unanswered { before: u64 },
    /// The answer has begun; so many bytes had come until then, in so many pieces.
    Answering { received: u64, segments: u32 },
}

impl Step {
    fn answering(seen: &Connection) -> Self {
        Step::Answering {
            received: seen.brought(),
            segments: seen.segments,
        }
    }

    /// What has come since the answer began is a newer request: more than what a client has to say of an answer while it
    /// comes. The requests of HTTP/2 cannot be told apart, and so never are over.
    fn is_over(self, seen: &Connection) -> bool {
        let Step::Answering { received, segments } = self else {
            return false;
        };
        let pieces = seen.segments.saturating_sub(segments).max(1);
        seen.brought() > received + FRAMES * u64::from(pieces)
    }
}

impl LastSeen {
    fn new(seen: &Connection) -> Self {
        let order = seen.order();
        Self {
            brought: seen.brought(),
            answered: seen.answered(),
            order,
            quick: seen.is_tied() && order == Order::Answered,
            gave_up: seen.state == State::CloseWait,
        }
    }

    /// Nothing but the ends of this connection came and went since. Within TLS an end is said first, which from a client
    /// that waits for nothing is less than any request.
    fn is_of(&self, died: &Connection) -> bool {
        let goodbye = match self.order {
            Order::Answered => CLOSE_NOTIFY,
            Order::Asked | Order::Unclear => 0,
        };
        died.received <= self.brought + goodbye + 1
            && died.acknowledged <= self.answered + goodbye + 1
    }
}

impl Evidence {
    /// Nothing is known yet of the drain that began then.
    pub fn new(began: Instant, settings: Settings) -> Self {
        Self {
            settings,
            began,
            known: HashMap::new(),
            sight: TrafficSnapshot::default(),
            arriving: HashMap::new(),
            shared: false,
            probed: HashSet::new(),
            held: None,
            look: 0,
            first: false,
            answered: false,
            missed: false,
            cut: 0,
            early: 0,
            counted: HashSet::new(),
        }
    }

    /// When the drain began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Whether a connection is one of the app's ports'.
    pub fn concerns(&self, connection: &Connection) -> bool {
        self.settings.ports.contains(&connection.port)
    }

    /// A connection that was there when the drain began.
    pub fn was_there(&mut self, there: &Connection) {
        self.known.insert(there.cookie, LastSeen::new(there));
    }

    /// A connection that has ended and is of no account: it did while the drain began, or it was our own.
    pub fn was_gone(&mut self, died: &Connection) {
        self.known.remove(&died.cookie);
    }

    /// Begins a look. `settled` is when routes are known to have changed, if they are.
    pub fn look(&mut self, settled: Option<Instant>) {
        self.look += 1;
        self.first = settled.is_some() && self.held.is_none();
        match settled {
            None => self.held = None,
            Some(_) => {
                self.held.get_or_insert_default();
            }
        }
        self.sight = TrafficSnapshot {
            arrivals: self.sight.arrivals,
            last_arrival: self.sight.last_arrival,
            ..TrafficSnapshot::default()
        };
    }

    /// A connection that this look sees; `probe` where it is the kubelet's.
    pub fn lives(&mut self, seen: &Connection, probe: bool, now: Instant) {
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
            self.arrives(seen.port, probe, now);
        }
        let waits = seen.waits(self.settings.max_quiet);
        let busy = seen.is_busy(self.settings.quiet_period, self.settings.max_quiet);
        self.sight.open += u64::from(open);
        self.sight.unanswered += u64::from(seen.unanswered() && open);
        self.sight.waiting += u64::from(waits && open);
        self.sight.active += u64::from(busy);

        let Some(held) = &mut self.held else { return };
        if self.first && busy {
            let step = if waits {
                Step::Unanswered {
                    before: seen.answered(),
                }
            } else {
                Step::answering(seen)
            };
            let look = self.look;
            held.insert(seen.cookie, Remaining { look, step });
        } else if busy && let Some(of) = held.get_mut(&seen.cookie) {
            match of.step {
                Step::Unanswered { before } if seen.answered() > before + INTERIM => {
                    of.step = Step::answering(seen);
                }
                // Not seen again in this look, it is over.
                Step::Answering { .. } if of.step.is_over(seen) => return,
                _ => {}
            }
            of.look = self.look;
        }
    }

    /// What the look has seen, once it has seen all, and whether something listens.
    pub fn sight(&mut self, listens: bool) -> TrafficSnapshot {
        self.sight.listens = listens;
        if listens {
            self.early = 0;
        }
        if let Some(held) = &mut self.held {
            held.retain(|_, of| of.look == self.look);
            self.sight.held = Some(held.len() as u64);
        }
        self.sight
    }

    /// A connection has ended; `probe` where it was the kubelet's.
    pub fn died(&mut self, died: &Connection, probe: bool, now: Instant) {
        let last = self.known.remove(&died.cookie);
        // The kernel is behind with its notices: this one may have ended before the drain began. Then what it brought is
        // older than the drain.
        let heard = Duration::from_millis(died.last_received.into());
        let new = heard <= now.saturating_duration_since(self.began) + TICK;
        if last.is_none() && died.brought() > 0 && new {
            self.arrives(died.port, probe, now);
        }
        if !self.counted.remove(&died.cookie) {
            self.cuts(died, last, probe);
        }
    }

    /// A connection that the last look sees: one that the app has left will die as it is. `probe` where it is the
    /// kubelet's.
    pub fn dies(&mut self, seen: &Connection, probe: bool) {
        if seen.state.app_closed() && self.counted.insert(seen.cookie) {
            let last = self.known.get(&seen.cookie).copied();
            self.cuts(seen, last, probe);
        }
    }

    /// Whether nobody is missing: each connection that was seen is there, or known to have ended.
    pub fn accounts_for_all(&self, there: &HashSet<u64>) -> bool {
        self.known.keys().all(|cookie| there.contains(cookie))
    }

    /// Connections have ended of which nothing is known: at least one of them may have been new.
    pub fn missed(&mut self, now: Instant) {
        if self.answered {
            self.missed = true;
            return;
        }
        self.sight.arrivals += 1;
        self.sight.last_arrival = Some(now);
    }

    /// Whoever is not there any more has ended, and if the notice of it was among those that the kernel did not keep, all
    /// that is known is whether somebody waited.
    pub fn vanished(&mut self, there: &HashSet<u64>) {
        if !self.missed {
            return;
        }
        self.known.retain(|cookie, last| {
            let vanished = !there.contains(cookie);
            self.cut += u64::from(vanished && last.order == Order::Asked);
            !vanished
        });
    }

    /// The hooks are being answered: whoever waits from now on is cut off; and where the app is `gone`, so was whoever
    /// waited when it went.
    pub fn answered(&mut self, gone: bool) {
        if !self.answered && gone {
            self.cut += self.early;
        }
        self.answered = true;
    }

    /// Connections that have arrived.
    pub fn arrivals(&self) -> u64 {
        self.sight.arrivals
    }

    /// Requests that have been cut off.
    pub fn cut(&self) -> u64 {
        self.cut
    }

    fn arrives(&mut self, port: u16, probe: bool, now: Instant) {
        if probe && take(&mut self.arriving, port, now) {
            return;
        }
        self.shared |= probe;
        self.sight.arrivals += 1;
        self.sight.last_arrival = Some(now);
    }

    /// Counts who waited, except for probes: those whose time was over, as a hung app leaves them behind, and on each
    /// port one that was under way. Readiness is asked for until the containers have stopped.
    fn cuts(&mut self, died: &Connection, last: Option<LastSeen>, probe: bool) {
        if !waited(died, last, self.settings.max_quiet) {
            return;
        }
        // A probe in plain HTTP has a connection of its own and one piece to say, and nothing has come back but the
        // app's end. In TLS it looks like anybody.
        let like_one = probe && !self.shared && died.segments <= 1 && died.acknowledged <= 1;
        let gave_up = last.is_some_and(|last| last.gave_up);
        let lately = Duration::from_millis(died.last_received.into()) < PROBE_LIMIT;
        // One that dies before the hooks are answered need not be the last.
        if like_one && (gave_up || lately && (!self.answered || self.probed.insert(died.port))) {
            return;
        }
        if self.answered {
            self.cut += 1;
        } else {
            self.early += 1;
        }
    }
}

/// Whether somebody waited for an answer on a connection that has ended; `last` is how it was seen before.
///
/// The end of a connection is acknowledged too, which hides whether an answer was. So it is what it was seen to be where
/// nothing else has come and gone since. Else what is left open by the kernel's clock is taken for a request that came
/// right after an answer, as those of a busy client do, unless this client got answers within a tick.
fn waited(died: &Connection, last: Option<LastSeen>, max_quiet: Duration) -> bool {
    let recent = u128::from(died.last_received) < max_quiet.as_millis();
    match last {
        Some(last) if last.is_of(died) => match last.order {
            Order::Asked => true,
            Order::Answered => false,
            Order::Unclear => recent && !last.quick,
        },
        last if died.is_tied() && died.order() != Order::Asked => {
            recent && last.is_some_and(|last| !last.quick)
        }
        _ => died.waits(max_quiet),
    }
}

/// So many a second, and so many at once.
#[derive(Debug)]
struct ProbeAllowance {
    left: f64,
    at: Instant,
}

/// Takes one from a port's bucket, if there is one left.
fn take(buckets: &mut HashMap<u16, ProbeAllowance>, port: u16, now: Instant) -> bool {
    let bucket = buckets.entry(port).or_insert(ProbeAllowance {
        left: PROBES_AT_ONCE,
        at: now,
    });
    let since: Duration = now.saturating_duration_since(bucket.at);
    bucket.left = (bucket.left + since.as_secs_f64() * PROBES_PER_SECOND).min(PROBES_AT_ONCE);
    bucket.at = now;
    let taken = bucket.left >= 1.0;
    if taken {
        bucket.left -= 1.0;
    }
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn evidence() -> Evidence {
        let settings = Settings {
            ports: [8000].into(),
            quiet_period: 1000 * MS,
            max_quiet: 10_000 * MS,
            poll_interval: 100 * MS,
        };
        Evidence::new(Instant::now(), settings)
    }

    /// A connection that was answered some time ago.
    fn idle(cookie: u64) -> Connection {
        Connection {
            cookie,
            port: 8000,
            peer: "10.0.0.1:1234".parse().unwrap(),
            state: State::Established,
            unread: 0,
            unacknowledged: 0,
            received: 100,
            segments: 2,
            acknowledged: 200,
            last_received: 5000,
            last_sent: 4000,
            last_acknowledgement: 3990,
            replied: None,
        }
    }

    /// One that was answered just now.
    fn fresh(cookie: u64) -> Connection {
        Connection {
            last_received: 0,
            last_sent: 0,
            last_acknowledgement: 0,
            ..idle(cookie)
        }
    }

    /// One that waits for its answer since then.
    fn waiting(cookie: u64, since: u32) -> Connection {
        Connection {
            last_received: since,
            ..idle(cookie)
        }
    }

    /// One that has ended.
    fn dead(of: Connection) -> Connection {
        Connection {
            state: State::Other,
            ..of
        }
    }

    fn look(evidence: &mut Evidence, settled: bool, seen: &[Connection]) -> TrafficSnapshot {
        let now = evidence.began() + 6000 * MS;
        evidence.look(settled.then_some(now));
        for each in seen {
            evidence.lives(each, false, now);
        }
        evidence.sight(true)
    }

    #[test]
    fn only_new_connections_that_bring_something_arrive_and_each_once() {
        let mut evidence = evidence();
        evidence.was_there(&idle(1));
        let silent = Connection {
            received: 0,
            acknowledged: 0,
            ..idle(2)
        };
        assert_eq!(
            look(&mut evidence, false, &[idle(1), silent.clone()]).arrivals,
            0
        );
        assert_eq!(
            look(&mut evidence, false, &[idle(1), idle(2), idle(3)]).arrivals,
            2
        );
        assert_eq!(
            look(&mut evidence, false, &[idle(1), idle(2), idle(3)]).arrivals,
            2
        );
        let now = evidence.began() + 7000 * MS;
        for cookie in 1..=3 {
            evidence.died(&idle(cookie), false, now);
        }
        assert_eq!(evidence.arrivals(), 2);
    }

    #[test]
    fn one_that_came_and_went_between_two_looks_arrived() {
        let mut evidence = evidence();
        let now = evidence.began() + 3000 * MS;
        evidence.died(&fresh(7), false, now);
        let probed = Connection {
            received: 1, // Only its end.
            state: State::Other,
            ..idle(8)
        };
        evidence.died(&probed, false, now + MS);
        let sight = look(&mut evidence, false, &[]);
        assert_eq!((sight.arrivals, sight.last_arrival), (1, Some(now)));
    }

    #[test]
    fn one_that_ended_before_the_drain_began_did_not_arrive() {
        let mut evidence = evidence();
        let now = evidence.began() + 20 * MS;
        let earlier = Connection {
            last_received: 30,
            ..idle(1)
        };
        evidence.died(&earlier, false, now);
        let in_its_first_tick = Connection {
            last_received: 23,
            ..idle(3)
        };
        evidence.died(&in_its_first_tick, false, now);
        assert_eq!(evidence.arrivals(), 1);
        let later = Connection {
            last_received: 10,
            ..idle(2)
        };
        evidence.died(&later, false, now);
        assert_eq!(evidence.arrivals(), 2);
    }

    #[test]
    fn deaths_that_were_missed_count_as_an_arrival() {
        let mut evidence = evidence();
        let now = evidence.began() + 3000 * MS;
        evidence.missed(now);
        assert_eq!(look(&mut evidence, false, &[]).last_arrival, Some(now));
    }

    #[test]
    fn two_probes_a_second_are_no_traffic_and_more_are() {
        let mut evidence = evidence();
        let began = evidence.began();
        for n in 0..60 {
            // Two probes each second, with jitter: now and then three within one.
            let at = began + n * 500 * MS + (n % 3) * 130 * MS;
            evidence.died(&fresh(u64::from(n)), true, at);
        }
        assert_eq!(evidence.arrivals(), 0);
        for n in 100..200 {
            let at = began + 30_000 * MS + (n - 100) * 100 * MS;
            evidence.died(&fresh(u64::from(n)), true, at);
        }
        let arrivals = evidence.arrivals();
        assert!(
            (70..=80).contains(&arrivals),
            "{arrivals} of 100 within 10 s"
        );
    }

    #[test]
    fn a_request_in_flight_is_held_until_it_ends_or_a_newer_one_comes() {
        for (told, end) in [
            ("it is gone", None),
            ("it is idle", Some(idle(1))),
            (
                "its answer came, and then more bytes",
                Some(Connection {
                    received: 200,
                    acknowledged: 300,
                    ..waiting(1, 10)
                }),
            ),
        ] {
            let mut evidence = evidence();
            let long = waiting(1, 2000);
            assert_eq!(
                look(&mut evidence, false, std::slice::from_ref(&long)).held,
                None
            );
            let sight = look(&mut evidence, true, std::slice::from_ref(&long));
            assert_eq!((sight.held, sight.waiting), (Some(1), 1));
            assert_eq!(
                look(&mut evidence, true, &[long, waiting(2, 5)]).held,
                Some(1)
            );
            let answering = Connection {
                acknowledged: 300,
                last_sent: 10,
                ..idle(1)
            };
            assert_eq!(look(&mut evidence, true, &[answering]).held, Some(1));
            let rest: Vec<_> = end.into_iter().collect();
            assert_eq!(look(&mut evidence, true, &rest).held, Some(0), "{told}");
        }
    }

    #[test]
    fn what_a_client_says_while_it_takes_its_answer_is_no_request() {
        let mut evidence = evidence();
        look(&mut evidence, true, &[waiting(1, 2000)]);
        // A stream, and what HTTP/2 has a client say of it.
        let mut stream = Connection {
            acknowledged: 300,
            ..fresh(1)
        };
        for _ in 0..100 {
            assert_eq!(
                look(&mut evidence, true, std::slice::from_ref(&stream)).held,
                Some(1)
            );
            stream.received += 13 + 13 + 17;
            stream.segments += 1;
            stream.acknowledged += 1000;
        }
    }

    #[test]
    fn who_waited_when_the_app_went_was_cut_off_though_no_hook_was_answered() {
        let mut evidence = evidence();
        let now = evidence.began() + 9000 * MS;
        evidence.died(&dead(waiting(1, 50)), false, now);
        look(&mut evidence, false, &[]);
        evidence.died(&dead(waiting(2, 50)), false, now);
        evidence.look(None);
        assert!(evidence.sight(false).is_deserted());
        evidence.answered(true);
        evidence.answered(true);
        assert_eq!(evidence.cut(), 1, "the first had left while the app lived");
    }

    #[test]
    fn who_vanished_with_notices_that_were_lost_is_judged_by_what_was_seen() {
        let mut evidence = evidence();
        let seen = [waiting(1, 50), waiting(2, 50), idle(3)];
        look(&mut evidence, false, &seen);
        evidence.answered(false);
        let there = HashSet::from([2]);
        evidence.vanished(&there);
        assert_eq!(evidence.cut(), 0, "its notice may be on its way");
        evidence.missed(evidence.began());
        assert_eq!(evidence.arrivals(), 3, "nobody arrives at an app that ends");
        evidence.vanished(&there);
        evidence.vanished(&there);
        assert_eq!(evidence.cut(), 1, "once");
    }

    #[test]
    fn an_interim_answer_is_none() {
        let mut evidence = evidence();
        let upload = |received: u64, acknowledged: u64| Connection {
            received,
            acknowledged,
            ..waiting(1, 10)
        };
        look(&mut evidence, true, &[upload(200, 0)]);
        // 100 Continue, and then the body.
        for received in (1000..100_000).step_by(1000) {
            assert_eq!(
                look(&mut evidence, true, &[upload(received, 25)]).held,
                Some(1)
            );
        }
        // The answer, at the end of the body.
        assert_eq!(
            look(&mut evidence, true, &[upload(100_000, 225)]).held,
            Some(1)
        );
        assert_eq!(
            look(&mut evidence, true, &[upload(100_200, 225)]).held,
            Some(0)
        );
    }

    #[test]
    fn when_routes_have_not_changed_after_all_what_was_held_is_forgotten() {
        let mut evidence = evidence();
        look(&mut evidence, true, &[waiting(1, 2000)]);
        assert_eq!(look(&mut evidence, false, &[waiting(1, 2000)]).held, None);
        assert_eq!(look(&mut evidence, true, &[waiting(2, 2000)]).held, Some(1));
    }

    #[test]
    fn cut_is_who_waits_when_the_app_dies_after_the_hooks_were_answered() {
        let mut evidence = evidence();
        let now = evidence.began() + 9000 * MS;
        evidence.died(&dead(waiting(1, 50)), false, now);
        assert_eq!(evidence.cut(), 0, "the drain was still going on");
        evidence.answered(false);
        evidence.died(&dead(waiting(2, 50)), false, now);
        evidence.died(&dead(idle(3)), false, now);
        assert_eq!(evidence.cut(), 1, "an idle one is nobody's loss");
        let orphan = Connection {
            state: State::FinWait1,
            ..waiting(5, 50)
        };
        evidence.dies(&orphan, false);
        evidence.dies(&waiting(6, 50), false);
        evidence.died(&dead(waiting(5, 50)), false, now);
        assert_eq!(
            evidence.cut(),
            2,
            "once, and only those that the app has left"
        );
    }

    #[test]
    fn a_probe_that_the_app_left_unanswered_is_nobody_cut_off() {
        let asks = |cookie: u64, since: u32| Connection {
            state: State::Other,
            segments: 1,
            acknowledged: 1, // The app's end.
            ..waiting(cookie, since)
        };
        let cut = |already: u64, probes: &[Connection]| {
            let mut evidence = evidence();
            let now = evidence.began() + 7000 * MS;
            for cookie in 100..100 + already {
                evidence.died(&fresh(cookie), true, now);
            }
            evidence.answered(false);
            for probe in probes {
                evidence.died(probe, true, now);
            }
            evidence.cut()
        };
        assert_eq!(cut(0, &[asks(1, 50)]), 0, "one is a probe");
        assert_eq!(cut(0, &[asks(1, 50), asks(2, 50)]), 1, "not two at once");
        assert_eq!(cut(0, &[asks(1, 1000)]), 1, "nor one that waits for longer");
        let again = Connection {
            acknowledged: 201,
            ..asks(1, 50)
        };
        assert_eq!(cut(0, &[again]), 1, "nor one that was answered before");
        assert_eq!(
            cut(20, &[asks(1, 50)]),
            1,
            "nor where clients come from there"
        );
        let mut evidence = evidence();
        evidence.answered(false);
        let left = Connection {
            state: State::FinWait1,
            acknowledged: 0,
            ..asks(1, 50)
        };
        evidence.dies(&left, true);
        assert_eq!(evidence.cut(), 0);
        evidence.died(&asks(1, 60), true, evidence.began() + 7000 * MS);
        assert_eq!(evidence.cut(), 0, "once");
    }

    #[test]
    fn probes_that_a_hung_app_let_run_out_are_nobody_cut_off() {
        let cut = |probes: bool, state: State| {
            let mut evidence = evidence();
            let hung = |cookie: u64| Connection {
                state,
                segments: 1,
                acknowledged: 0,
                ..waiting(cookie, 3000)
            };
            look(&mut evidence, false, &[hung(1), hung(2), hung(3)]);
            evidence.answered(false);
            for cookie in 1..=3 {
                evidence.died(&dead(hung(cookie)), probes, evidence.began() + 7000 * MS);
            }
            evidence.cut()
        };
        assert_eq!(cut(true, State::CloseWait), 0);
        assert_eq!(cut(true, State::Established), 3, "they wait still");
        assert_eq!(
            cut(false, State::CloseWait),
            3,
            "others may have more patience"
        );
    }

    #[test]
    fn the_end_of_a_connection_does_not_hide_whether_somebody_waited() {
        // Of one tick with the answer before it, which the request acknowledged; or acknowledged later.
        let tie = |acknowledged: u32| Connection {
            last_sent: 500,
            last_received: 500,
            last_acknowledgement: acknowledged,
            ..idle(1)
        };
        // The app's end was acknowledged, and the client's may have come.
        let end = |of: Connection, came: u64, arrived: u64| Connection {
            state: State::Other,
            received: of.received + came,
            acknowledged: of.acknowledged + arrived,
            last_acknowledgement: 0,
            ..of
        };
        let dies = |seen: &[Connection], died: Connection| {
            let mut evidence = evidence();
            for each in seen {
                look(&mut evidence, false, std::slice::from_ref(each));
            }
            evidence.answered(false);
            evidence.died(&died, false, evidence.began() + 7000 * MS);
            evidence.cut()
        };
        for came in [0, 1] {
            assert_eq!(dies(&[tie(500)], end(tie(500), came, 1)), 1, "it waited");
            assert_eq!(dies(&[tie(460)], end(tie(460), came, 1)), 0, "it was idle");
        }
        let answered = Connection {
            last_sent: 100,
            ..end(tie(500), 1, 80)
        };
        assert_eq!(dies(&[tie(500)], answered), 0, "the answer came after all");
        let asked = Connection {
            last_received: 100,
            ..end(tie(460), 80, 1)
        };
        assert_eq!(dies(&[tie(460)], asked), 1, "a request came since");
        let goodbye = Connection {
            last_received: 100,
            last_sent: 100,
            last_acknowledgement: 100,
            ..end(idle(1), 25, 25)
        };
        assert_eq!(dies(&[idle(1)], goodbye), 0, "TLS says goodbye first");
        let both = end(tie(500), 80, 80);
        assert_eq!(
            dies(&[waiting(1, 50)], both.clone()),
            1,
            "an answer, and a request right after it"
        );
        assert_eq!(
            dies(&[tie(460), waiting(1, 50)], both.clone()),
            0,
            "one whose answers take no time"
        );
        assert_eq!(dies(&[], both), 0, "it came and went");
    }
}
