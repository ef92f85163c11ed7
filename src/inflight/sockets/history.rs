//! What earlier reads of the table have seen of a connection, and what follows from it for the next read.
//!
//! One read often leaves open which end spoke last. What a connection was like before decides most of that, in one place:
//! the count of busy connections, the drain's view of traffic and the judgement on what was cut off all take it from here.

use std::collections::HashMap;

use tokio::time::Instant;

use super::REPLY_KNOWN;
use super::connection::{Connection, INTERIM, LastSpoke};
use super::control::Control;
use super::frames::Totals;

/// A connection as a read of the table saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// What the kernel had counted.
    totals: Totals,
    /// Of the segments that had come, how many came last, less than half a second apart; 0 where that is not known.
    burst: u32,
    /// How long before the read bytes had come, in milliseconds.
    last_received: u32,
    /// Whether the kernel was asked if the app had replied to what had come, and what it said.
    replied: Option<Option<bool>>,
    /// Which end spoke last.
    last_spoke: LastSpoke,
    /// What is known of its control frames; none where something was on its way at each read.
    control: Option<Control>,
}

impl Past {
    /// What is to be remembered of a connection, which was seen so before.
    fn new(seen: &Connection, past: Option<&Past>) -> Self {
        Self {
            totals: seen.totals(),
            burst: burst(seen, past),
            last_received: seen.last_received,
            replied: None,
            last_spoke: seen.last_spoke(),
            control: past.and_then(|past| past.control),
        }
    }

    /// What the kernel said of the app's reply to what has come by now; none where it was not asked since.
    pub fn replied_to(&self, seen: &Connection) -> Option<Option<bool>> {
        (self.replied).filter(|_| self.totals.received == seen.brought())
    }
}

/// How many segments came last, less than half a second apart; 0 where that is not known.
fn burst(seen: &Connection, past: Option<&Past>) -> u32 {
    let Some(past) = past else {
        return u32::from(seen.segments == 1);
    };
    match seen.totals().since(&past.totals).segments_received {
        0 => past.burst,
        more if past.last_received >= REPLY_KNOWN => more,
        more if past.burst > 0 => past.burst.saturating_add(more),
        _ => 0,
    }
}

/// Which end of a connection spoke last, given how it was seen before; `seen` has no judgement yet.
///
/// Only where this read alone leaves it open does the past decide:
/// - One segment came last, and the kernel says that the app has replied: it was answered. A segment that is not answered
///   is acknowledged by the kernel itself within 200 ms, and the kernel then forgets earlier replies; several segments it
///   may acknowledge at once, and forgets nothing.
/// - Nothing has come or gone since: it is as it was.
/// - Nothing has come since, and more than an interim answer has gone: it was answered.
/// - It was idle, one segment has come since, and something was acknowledged: that segment was answered.
fn judge(seen: &Connection, past: Option<&Past>) -> LastSpoke {
    let by_clock = seen.last_spoke_by_clock();
    if by_clock != LastSpoke::Unclear || !seen.is_quiet() {
        return by_clock;
    }
    let open = !seen.state.client_closed();
    if open && seen.replied == Some(true) && burst(seen, past) == 1 {
        return LastSpoke::App;
    }
    let Some(past) = past else { return by_clock };
    let added = seen.totals().since(&past.totals);
    let one_segment = added.segments_received == 1;
    match (added.received, added.acknowledged) {
        (0, 0) => past.last_spoke,
        (0, went) if went > INTERIM => LastSpoke::App,
        (1.., 1..) if one_segment && past.last_spoke == LastSpoke::App => LastSpoke::App,
        _ => by_clock,
    }
}

/// The connections of a table as the last read saw them.
#[derive(Debug, Default)]
pub struct History {
    known: HashMap<u64, (u32, Past)>,
    /// Numbers the reads.
    read: u32,
    first_read: Option<Instant>,
    /// When this read began, in milliseconds since the first.
    now: i64,
}

impl History {
    /// Begins a read of the table.
    pub fn begin_read(&mut self, now: Instant) {
        let first = *self.first_read.get_or_insert(now);
        let since = now.saturating_duration_since(first).as_millis();
        self.now = i64::try_from(since).unwrap_or(i64::MAX);
        self.read = self.read.wrapping_add(1);
    }

    /// How a connection was seen before.
    pub fn of(&self, cookie: u64) -> Option<&Past> {
        self.known.get(&cookie).map(|(_, past)| past)
    }

    /// Judges a connection by this read and by what was known, and remembers it. `replied` is what the kernel said of the
    /// app's reply to what has come so far, if it was asked.
    pub fn take(&mut self, seen: &mut Connection, replied: Option<Option<bool>>) {
        seen.replied = replied.flatten();
        let before = self.of(seen.cookie);
        let by_clock = judge(seen, before);
        let control = before.and_then(|past| past.control);
        let control = Control::next(control, seen, by_clock, self.now);
        let known = control.filter(|_| seen.is_quiet());
        let last_spoke = match known {
            Some(control) => control.last_spoke(),
            None if Control::is_unused(seen) => LastSpoke::App,
            None => by_clock,
        };
        let behind_ping = known.is_some_and(|control| control.may_wait_behind_ping(seen));
        seen.judged = Some(match behind_ping {
            true => LastSpoke::Client,
            false => last_spoke,
        });
        seen.only_control = known.is_some_and(|control| control.only_control());
        seen.last_request = known.map(|control| control.last_request(self.now));
        let past = Past {
            replied,
            last_spoke,
            control,
            ..Past::new(seen, before)
        };
        self.known.insert(seen.cookie, (self.read, past));
    }

    /// Forgets the connections that this read has not seen.
    pub fn end_read(&mut self) {
        self.known.retain(|_, (read, _)| *read == self.read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inflight::sockets::State;

    /// A connection whose last request and last answer bear the same tick, and nothing tells which came first.
    fn tie(brought: u64, answered: u64, segments: u32) -> Connection {
        Connection {
            received: brought,
            segments,
            acknowledged: answered,
            last_received: 900,
            last_sent: 900,
            last_acknowledgement: 900,
            ..Connection::example(1)
        }
    }

    fn past(last_spoke: LastSpoke) -> Past {
        Past {
            last_spoke,
            ..Past::new(&tie(100, 200, 2), None)
        }
    }

    #[test]
    fn counts_that_no_kernel_has_are_no_overflow() {
        let mut history = History::default();
        for segments in [1, u32::MAX, 1, u32::MAX] {
            let mut seen = Connection {
                last_received: 0,
                ..tie(u64::MAX, u64::MAX, segments)
            };
            seen.segments_sent = segments;
            history.take(&mut seen, None);
        }
    }

    #[test]
    fn one_segment_on_an_idle_connection_and_an_answer_is_answered() {
        let idle = past(LastSpoke::App);
        assert_eq!(judge(&tie(180, 280, 3), Some(&idle)), LastSpoke::App);
        let two = tie(180, 280, 4);
        assert_eq!(
            judge(&two, Some(&idle)),
            LastSpoke::Unclear,
            "the second may be unanswered"
        );
        let unanswered = tie(180, 200, 3);
        assert_eq!(judge(&unanswered, Some(&idle)), LastSpoke::Unclear);
        for other in [LastSpoke::Client, LastSpoke::Unclear] {
            let before = past(other);
            assert_eq!(
                judge(&tie(180, 280, 3), Some(&before)),
                LastSpoke::Unclear,
                "the answer may be to the request before"
            );
        }
        assert_eq!(judge(&tie(180, 280, 3), None), LastSpoke::Unclear);
    }

    #[test]
    fn the_kernel_knows_of_a_reply_to_one_segment() {
        let replied = |segments, replied| Connection {
            replied: Some(replied),
            ..tie(180, 280, segments)
        };
        let before = past(LastSpoke::Unclear);
        assert_eq!(judge(&replied(3, true), Some(&before)), LastSpoke::App);
        assert_eq!(judge(&replied(3, false), Some(&before)), LastSpoke::Client);
        assert_eq!(
            judge(&replied(4, true), Some(&before)),
            LastSpoke::Unclear,
            "several segments are acknowledged at once"
        );
        assert_eq!(judge(&replied(3, true), None), LastSpoke::Unclear);
        let left = Connection {
            state: State::CloseWait,
            received: 181,
            ..replied(3, true)
        };
        assert_eq!(
            judge(&left, Some(&before)),
            LastSpoke::Unclear,
            "the end of the client's half looks like a reply"
        );
    }

    #[test]
    fn the_kernel_knows_of_a_reply_half_a_second_later() {
        let mut history = History::default();
        let mut read = |segments: u32, ago: u32, replied: Option<bool>| {
            let bytes = u64::from(segments) * 80;
            let mut seen = Connection {
                last_received: ago,
                last_sent: ago,
                last_acknowledgement: ago,
                ..tie(bytes, bytes, segments)
            };
            history.begin_read(Instant::now());
            history.take(&mut seen, replied.map(Some));
            history.end_read();
            seen.last_spoke()
        };
        assert_eq!(read(5, 700, Some(true)), LastSpoke::Unclear);
        assert_eq!(read(6, 50, None), LastSpoke::Unclear, "too soon to know");
        assert_eq!(read(6, 600, Some(true)), LastSpoke::App);
        assert_eq!(read(7, 50, None), LastSpoke::App, "it was idle before");
        assert_eq!(read(9, 50, None), LastSpoke::Unclear);
        assert_eq!(
            read(9, 600, Some(true)),
            LastSpoke::Unclear,
            "three came at once"
        );
    }

    #[test]
    fn where_nothing_has_come_since_it_is_as_it_was_or_answered() {
        for before in [LastSpoke::App, LastSpoke::Client, LastSpoke::Unclear] {
            assert_eq!(judge(&tie(100, 200, 2), Some(&past(before))), before);
        }
        let waited = past(LastSpoke::Client);
        assert_eq!(judge(&tie(100, 300, 2), Some(&waited)), LastSpoke::App);
        assert_eq!(
            judge(&tie(100, 225, 2), Some(&waited)),
            LastSpoke::Unclear,
            "an interim answer is none"
        );
    }

    #[test]
    fn a_client_that_left_after_its_answer_waits_for_nothing() {
        let left = Connection {
            state: State::CloseWait,
            received: 101,
            last_acknowledgement: 100,
            ..tie(100, 200, 2)
        };
        let idle = past(LastSpoke::App);
        assert_eq!(judge(&left, Some(&idle)), LastSpoke::App);
        assert_eq!(
            judge(&left, None),
            LastSpoke::Unclear,
            "its end acknowledges everything"
        );
    }

    #[test]
    fn what_one_read_tells_the_past_does_not_change() {
        let waiting = Connection {
            last_received: 100,
            ..tie(180, 280, 3)
        };
        let idle = past(LastSpoke::App);
        assert_eq!(judge(&waiting, Some(&idle)), LastSpoke::Client);
        let unread = Connection {
            unread: 80,
            ..tie(180, 280, 3)
        };
        assert_eq!(judge(&unread, Some(&idle)), LastSpoke::Client);
    }

    #[test]
    fn a_connection_that_a_read_does_not_see_is_forgotten() {
        let mut history = History::default();
        history.begin_read(Instant::now());
        history.take(&mut tie(100, 200, 2), None);
        history.end_read();
        assert!(history.of(1).is_some());
        history.begin_read(Instant::now());
        history.end_read();
        assert!(history.of(1).is_none());
    }
}
