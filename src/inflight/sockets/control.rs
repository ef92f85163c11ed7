//! Which end of a connection spoke last, control frames of WebSocket and HTTP/2 left out.
//!
//! An idle WebSocket whose server pings ends in the client's pong, and an idle channel of gRPC in whatever frame came
//! last. By the order alone, both look like a request that waits. The sizes of what came and went between two reads of the
//! table tell more, see [`super::frames`]. The first read of a drain has only sums, and leaves more open than later ones.

use std::time::Duration;

use super::connection::{Connection, LastSpoke};
use super::frames::{self, Opening, Totals};

/// How long after the bytes of one end the other's control frame may come, beyond twice the round trip: the delay of a
/// program on a loaded machine.
const PROMPT: Duration = Duration::from_millis(100);

/// What reads of the table have shown of a connection's control frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    /// What the kernel had counted when nothing was on its way last.
    totals: Totals,
    spoke: Spoke,
    /// What the last change added; none where no read has seen a change.
    added: Option<Totals>,
    /// What was known before bytes came or went in one direction alone: these can be the first half of an exchange of
    /// control frames.
    before_half: Option<(Totals, Spoke)>,
    /// The last change was control frames alone.
    only_control: bool,
}

/// Which end spoke last, control frames left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoke {
    /// The client: it waits for an answer.
    Client,
    /// The client, right after the app. No read has shown whether that was a request or the answer to a ping, so it is
    /// taken for a request until such an exchange is seen.
    ClientPromptly,
    /// The client, and what it sent is most likely a control frame, or it has left.
    PerhapsIdle,
    /// The app, or neither end ever.
    App,
    /// The kernel's clock leaves it open.
    Unclear,
}

impl From<LastSpoke> for Spoke {
    fn from(by_clock: LastSpoke) -> Self {
        match by_clock {
            LastSpoke::Client => Spoke::Client,
            LastSpoke::App => Spoke::App,
            LastSpoke::PerhapsIdle => Spoke::PerhapsIdle,
            LastSpoke::Unclear => Spoke::Unclear,
        }
    }
}

impl Spoke {
    /// What holds once an exchange of control frames has been seen. Where it was open whether the last bytes of the client
    /// were a request, they are taken for such a frame now.
    fn after_control(self) -> Self {
        match self {
            Spoke::Client => Spoke::Client,
            Spoke::ClientPromptly | Spoke::PerhapsIdle | Spoke::App | Spoke::Unclear => Spoke::App,
        }
    }
}

impl Control {
    /// What is known after a read; `by_clock` is which end spoke last by the times of this read and of earlier ones.
    pub fn next(before: Option<Control>, seen: &Connection, by_clock: LastSpoke) -> Option<Self> {
        // Bytes on their way belong to an exchange that is not complete.
        if !seen.is_quiet() {
            return before;
        }
        let totals = seen.totals();
        let Some(before) = before else {
            return Some(Self {
                totals,
                spoke: first_spoke(seen, by_clock, &totals),
                added: None,
                before_half: None,
                only_control: false,
            });
        };
        Some(if totals == before.totals {
            before.unchanged(seen, by_clock)
        } else {
            before.changed(seen, by_clock, totals)
        })
    }

    /// Whether a connection has too few bytes for a request that waits, read by the app or not: it is HTTP/2 that was opened
    /// and not used.
    pub fn is_unused(seen: &Connection) -> bool {
        seen.totals().opening() == Some(Opening::Unused)
    }

    /// Which end spoke last.
    pub fn last_spoke(&self) -> LastSpoke {
        match self.spoke {
            Spoke::Client | Spoke::ClientPromptly => LastSpoke::Client,
            Spoke::PerhapsIdle => LastSpoke::PerhapsIdle,
            Spoke::App => LastSpoke::App,
            Spoke::Unclear => LastSpoke::Unclear,
        }
    }

    /// The last bytes were control frames, as far as reads have seen.
    pub fn only_control(&self) -> bool {
        self.only_control
    }

    /// The kernel may tell more of the same bytes half a second later.
    fn unchanged(self, seen: &Connection, by_clock: LastSpoke) -> Self {
        if self.only_control {
            return self;
        }
        let spoke = match &self.added {
            None => first_spoke(seen, by_clock, &self.totals),
            Some(added) => later_spoke(seen, by_clock, added),
        };
        Self { spoke, ..self }
    }

    fn changed(self, seen: &Connection, by_clock: LastSpoke, totals: Totals) -> Self {
        let candidates = [Some((self.totals, self.spoke)), self.before_half];
        for (from, spoke) in candidates.into_iter().flatten() {
            let added = totals.since(&from);
            if is_prompt(seen) && added.is_control() {
                return Self {
                    totals,
                    spoke: spoke.after_control(),
                    added: Some(added),
                    before_half: None,
                    only_control: true,
                };
            }
        }
        let added = totals.since(&self.totals);
        let half = (added.segments_received == 0) != (added.segments_sent == 0);
        Self {
            totals,
            spoke: later_spoke(seen, by_clock, &added),
            added: Some(added),
            before_half: half.then_some((self.totals, self.spoke)),
            only_control: false,
        }
    }
}

/// Which end spoke last, of a connection of which no read has seen a change.
fn first_spoke(seen: &Connection, by_clock: LastSpoke, totals: &Totals) -> Spoke {
    match (by_clock, totals.opening()) {
        (LastSpoke::App, _) | (_, Some(Opening::Unused)) => Spoke::App,
        (_, Some(Opening::Unclear)) => Spoke::PerhapsIdle,
        (LastSpoke::Client, None) if totals.acknowledged > 0 && is_prompt(seen) => {
            if totals.segments_sent < totals.segments_received {
                Spoke::Client // One of its segments is not answered.
            } else if totals.may_end_in_control(seen.largest_segment) {
                Spoke::PerhapsIdle
            } else {
                Spoke::ClientPromptly
            }
        }
        (by_clock, None) => by_clock.into(),
    }
}

/// Which end spoke last, where `added` has come and gone and is more than control frames.
fn later_spoke(seen: &Connection, by_clock: LastSpoke, added: &Totals) -> Spoke {
    if added.is_unanswered_http2() {
        return Spoke::Client;
    }
    let follows = added.acknowledged > 0 && frames::follows_the_app(added.received);
    match by_clock {
        LastSpoke::Client if follows && is_prompt(seen) => Spoke::PerhapsIdle,
        by_clock => by_clock.into(),
    }
}

/// The last bytes of one end came right after the other's.
fn is_prompt(seen: &Connection) -> bool {
    let apart = seen.last_sent.abs_diff(seen.last_received);
    Duration::from_millis(apart.into()) <= 2 * seen.round_trip + PROMPT
}

#[cfg(test)]
mod tests;
