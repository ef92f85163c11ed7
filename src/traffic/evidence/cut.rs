//! What was cut off: requests whose connection ended, without an answer, once the app was let go.

use std::collections::HashSet;
use std::time::Duration;

use super::LastSeen;
use crate::inflight::sockets::{Connection, LastSpoke};

/// No probe waits for longer, unless its `timeoutSeconds` says so.
const PROBE_LIMIT: Duration = Duration::from_secs(1);

/// Counts requests that were cut off.
#[derive(Debug)]
pub struct Cut {
    max_quiet: Duration,
    hook_answered: bool,
    count: u64,
    /// Connections that closed while a client waited, since something was last seen to listen. If the app is gone, it was
    /// by this that they closed.
    early: u64,
    /// Connections that are closing and were judged already.
    judged: HashSet<u64>,
    /// Ports on which a probe was under way when the app died.
    probed: HashSet<u16>,
    /// The kernel had more notices than it kept since the hook was answered.
    lost_notices: bool,
}

impl Cut {
    /// None yet. It may be unclear for as long as `max_quiet` whether a client waits.
    pub fn new(max_quiet: Duration) -> Self {
        Self {
            max_quiet,
            hook_answered: false,
            count: 0,
            early: 0,
            judged: HashSet::new(),
            probed: HashSet::new(),
            lost_notices: false,
        }
    }

    /// How many were cut off.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The hooks are being answered: a client that waits from now on is cut off; and where the app is `gone`, so was each
    /// that waited when it went.
    pub fn hook_answered(&mut self, gone: bool) {
        if !self.hook_answered && gone {
            self.count += self.early;
        }
        self.hook_answered = true;
    }

    /// Something listens: what closed until now did while the app lived.
    pub fn app_listens(&mut self) {
        self.early = 0;
    }

    /// Notices of connections that closed were lost. Whether that concerns requests that were cut off: not before the
    /// hook was answered.
    pub fn notices_lost(&mut self) -> bool {
        self.lost_notices |= self.hook_answered;
        self.hook_answered
    }

    /// Whether notices were lost since the hook was answered.
    pub fn has_lost_notices(&self) -> bool {
        self.lost_notices
    }

    /// A connection that was last seen so closed, and no notice tells how.
    pub fn disappeared(&mut self, last: LastSeen) {
        self.count += u64::from(last.last_spoke == LastSpoke::Client);
    }

    /// A connection has closed; `last` is how it was seen before, and `probe` where it may be a probe's.
    pub fn closed(&mut self, closed: &Connection, last: Option<LastSeen>, probe: bool) {
        if !self.judged.remove(&closed.cookie) {
            self.judge(closed, last, probe);
        }
    }

    /// A connection that is still there; one that the app has left will close as it is.
    pub fn closing(&mut self, seen: &Connection, last: Option<LastSeen>, probe: bool) {
        if seen.state.app_closed() && self.judged.insert(seen.cookie) {
            self.judge(seen, last, probe);
        }
    }

    /// Whether a connection that closes looks like that of a probe without an answer. In plain HTTP that has a connection of
    /// its own and one segment to say, and nothing has come back but the app's end. In TLS it looks like any client.
    pub fn is_like_probe(closed: &Connection) -> bool {
        closed.segments <= 1 && closed.acknowledged <= 1
    }

    /// Counts a connection on which a client waited, except for probes: those whose time was over, as a hung app leaves
    /// them behind, and on each port one that was under way. Readiness is asked for until the containers have stopped.
    fn judge(&mut self, closed: &Connection, last: Option<LastSeen>, probe: bool) {
        if !waited(closed, last, self.max_quiet) {
            return;
        }
        let gave_up = last.is_some_and(|last| last.gave_up);
        let lately = Duration::from_millis(closed.last_received.into()) < PROBE_LIMIT;
        // `probe` is said of what looks like one alone. One that closes before the hooks are answered need not be the last.
        if probe && (gave_up || lately && (!self.hook_answered || self.probed.insert(closed.port)))
        {
            return;
        }
        if self.hook_answered {
            self.count += 1;
        } else {
            self.early += 1;
        }
    }
}

/// Whether a client waited for an answer on a connection that has closed; `last` is how it was seen before.
///
/// The end of a connection is acknowledged too, which hides whether an answer was. So it is what it was seen to be where
/// nothing else has come and gone since. Else what is left open by the kernel's clock is taken for a request that came
/// right after an answer, as those of a busy client do, unless this client got answers within a tick. A client of HTTP/2
/// that leaves because the app said GOAWAY may have spoken last, and waits for nothing.
fn waited(closed: &Connection, last: Option<LastSeen>, max_quiet: Duration) -> bool {
    let recent = u128::from(closed.last_received) < max_quiet.as_millis();
    match last {
        Some(last) if last.is_of(closed) => match last.last_spoke {
            LastSpoke::Client => true,
            LastSpoke::App | LastSpoke::PerhapsIdle | LastSpoke::PerhapsLate => false,
            LastSpoke::Unclear => recent && !last.quick,
        },
        Some(last) if last.is_farewell(closed) => false,
        last if closed.is_tied() && closed.last_spoke() != LastSpoke::Client => {
            recent && last.is_some_and(|last| !last.quick)
        }
        _ => closed.waits(max_quiet),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::examples::{MS, closed, evidence, fresh, idle, read, waiting};
    use super::*;
    use crate::inflight::sockets::State;

    #[test]
    fn a_client_that_waited_when_the_app_went_was_cut_off_though_no_hook_was_answered() {
        let mut evidence = evidence();
        let now = evidence.began() + 9000 * MS;
        evidence.closed(&closed(waiting(1, 50)), false, now);
        read(&mut evidence, false, &[]);
        evidence.closed(&closed(waiting(2, 50)), false, now);
        evidence.begin_read(None);
        assert!(evidence.snapshot(false, now).app_is_gone());
        evidence.hook_answered(true);
        evidence.hook_answered(true);
        assert_eq!(evidence.cut(), 1, "the first had left while the app lived");
    }

    #[test]
    fn a_connection_that_disappeared_with_notices_that_were_lost_is_judged_by_what_was_seen() {
        let mut evidence = evidence();
        let seen = [waiting(1, 50), waiting(2, 50), idle(3)];
        read(&mut evidence, false, &seen);
        evidence.hook_answered(false);
        let there = HashSet::from([2]);
        evidence.disappeared(&there);
        assert_eq!(evidence.cut(), 0, "its notice may be on its way");
        evidence.notices_lost(evidence.began());
        assert_eq!(
            evidence.arrivals(),
            3,
            "nothing arrives at an app that ends"
        );
        evidence.disappeared(&there);
        evidence.disappeared(&there);
        assert_eq!(evidence.cut(), 1, "once");
    }

    #[test]
    fn a_client_is_cut_off_that_waits_when_the_app_dies_after_the_hooks_were_answered() {
        let mut evidence = evidence();
        let now = evidence.began() + 9000 * MS;
        evidence.closed(&closed(waiting(1, 50)), false, now);
        assert_eq!(evidence.cut(), 0, "the drain was still going on");
        evidence.hook_answered(false);
        evidence.closed(&closed(waiting(2, 50)), false, now);
        evidence.closed(&closed(idle(3)), false, now);
        assert_eq!(evidence.cut(), 1, "an idle one is no loss");
        let orphan = Connection {
            state: State::FinWait1,
            ..waiting(5, 50)
        };
        evidence.closing(&orphan, false, evidence.began() + 9000 * MS);
        evidence.closing(&waiting(6, 50), false, evidence.began() + 9000 * MS);
        evidence.closed(&closed(waiting(5, 50)), false, now);
        assert_eq!(
            evidence.cut(),
            2,
            "once, and only those that the app has left"
        );
    }

    #[test]
    fn a_probe_that_the_app_left_unanswered_is_not_cut_off() {
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
                evidence.closed(&fresh(cookie), true, now);
            }
            evidence.hook_answered(false);
            for probe in probes {
                evidence.closed(probe, true, now);
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
        evidence.hook_answered(false);
        let left = Connection {
            state: State::FinWait1,
            acknowledged: 0,
            ..asks(1, 50)
        };
        evidence.closing(&left, true, evidence.began() + 9000 * MS);
        assert_eq!(evidence.cut(), 0);
        evidence.closed(&asks(1, 60), true, evidence.began() + 7000 * MS);
        assert_eq!(evidence.cut(), 0, "once");
    }

    #[test]
    fn probes_that_a_hung_app_let_run_out_are_not_cut_off() {
        let cut = |probes: bool, state: State| {
            let mut evidence = evidence();
            let hung = |cookie: u64| Connection {
                state,
                segments: 1,
                acknowledged: 0,
                ..waiting(cookie, 3000)
            };
            read(&mut evidence, false, &[hung(1), hung(2), hung(3)]);
            evidence.hook_answered(false);
            for cookie in 1..=3 {
                evidence.closed(&closed(hung(cookie)), probes, evidence.began() + 7000 * MS);
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
    fn a_client_of_http2_that_leaves_because_of_a_goaway_is_not_cut_off() {
        let leaves = |before: &Connection, came: u64, went: u64| {
            let mut evidence = evidence();
            read(&mut evidence, false, std::slice::from_ref(before));
            evidence.hook_answered(false);
            let left = Connection {
                received: before.received + came,
                acknowledged: before.acknowledged + went,
                last_received: 0,
                last_sent: 20,
                ..closed(before.clone())
            };
            evidence.closed(&left, false, evidence.began() + 7000 * MS);
            evidence.cut()
        };
        // The app's GOAWAY and PING; the acknowledgement, the client's own GOAWAY, and both ends.
        assert_eq!(leaves(&idle(1), 17 + 1, 34 + 1), 0);
        assert_eq!(leaves(&idle(1), 34 + 1, 34 + 1), 0);
        assert_eq!(leaves(&idle(1), 17, 34), 0, "its end has not come");
        assert_eq!(leaves(&idle(1), 71 + 1, 34 + 1), 1, "a call came too");
        assert_eq!(leaves(&waiting(1, 50), 17 + 1, 34 + 1), 1, "it waited");
    }

    #[test]
    fn the_end_of_a_connection_does_not_hide_whether_a_client_waited() {
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
                read(&mut evidence, false, std::slice::from_ref(each));
            }
            evidence.hook_answered(false);
            evidence.closed(&died, false, evidence.began() + 7000 * MS);
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
