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

/// The same where that program, or the way to it, is slow at that moment. What comes so late can be a control frame, and
/// is more often a request.
const LATE: Duration = Duration::from_secs(2);

/// What reads of the table have shown of a connection's control frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Control {
    known: Known,
    change: Change,
    /// What was known before bytes came or went in one direction alone: these can be the first half of an exchange of
    /// control frames.
    before_half: Option<Known>,
    /// The last change was control frames alone.
    only_control: bool,
}

/// What reads have seen to change on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// Nothing.
    None,
    /// So few bytes of the client's that the first read can have been between a ping and its answer.
    PerhapsPong,
    /// The last change added this.
    Added(Totals),
}

/// What is known of a connection at a moment when nothing is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Known {
    /// What the kernel has counted.
    totals: Totals,
    spoke: Spoke,
    /// When the client's last bytes came, those left out that came in control frames seen as such; in milliseconds of the
    /// clock of [`Control::next`].
    client_at: i64,
}

/// Which end spoke last, control frames left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoke {
    /// The client: it waits for an answer.
    Client,
    /// The client, right after the app. No read has shown whether that was a request or the answer to a ping, so it is
    /// taken for a request until such an exchange is seen.
    ClientPromptly,
    /// The client, some time after the app. What it sent is taken for a request until an exchange of control frames is
    /// seen, which shows that it can have been the late answer to a ping.
    ClientLater,
    /// The client, some time after the app, and what it sent can be the late answer to a ping.
    PerhapsLate,
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
            LastSpoke::PerhapsLate => Spoke::PerhapsLate,
            LastSpoke::Unclear => Spoke::Unclear,
        }
    }
}

impl Spoke {
    /// What it means outside.
    fn last_spoke(self) -> LastSpoke {
        match self {
            Spoke::Client | Spoke::ClientPromptly | Spoke::ClientLater => LastSpoke::Client,
            Spoke::PerhapsLate => LastSpoke::PerhapsLate,
            Spoke::PerhapsIdle => LastSpoke::PerhapsIdle,
            Spoke::App => LastSpoke::App,
            Spoke::Unclear => LastSpoke::Unclear,
        }
    }

    /// What holds once an exchange of control frames has been seen. Where it was open whether the last bytes of the client
    /// were a request, they are taken for such a frame now.
    fn after_control(self) -> Self {
        match self {
            Spoke::Client => Spoke::Client,
            Spoke::ClientLater | Spoke::PerhapsLate => Spoke::PerhapsLate,
            Spoke::ClientPromptly | Spoke::PerhapsIdle | Spoke::App | Spoke::Unclear => Spoke::App,
        }
    }
}

impl Control {
    /// What is known after a read at `now`, in milliseconds of any one clock; `by_clock` is which end spoke last by the
    /// times of this read and of earlier ones.
    pub fn next(
        before: Option<Control>,
        seen: &Connection,
        by_clock: LastSpoke,
        now: i64,
    ) -> Option<Self> {
        // Bytes on their way belong to an exchange that is not complete.
        if !seen.is_quiet() {
            return before;
        }
        let known = |spoke| Known {
            totals: seen.totals(),
            spoke,
            client_at: now.saturating_sub(seen.last_received.into()),
        };
        let Some(before) = before else {
            return Some(Self {
                known: known(first_spoke(seen, by_clock)),
                change: Change::None,
                before_half: None,
                only_control: false,
            });
        };
        Some(if seen.totals() == before.known.totals {
            before.unchanged(seen, by_clock)
        } else {
            before.changed(seen, by_clock, known)
        })
    }

    /// Whether a connection has too few bytes for a request that waits, read by the app or not: it is HTTP/2 that was opened
    /// and not used.
    pub fn is_unused(seen: &Connection) -> bool {
        seen.totals().opening() == Some(Opening::Unused)
    }

    /// Which end spoke last.
    pub fn last_spoke(&self) -> LastSpoke {
        self.known.spoke.last_spoke()
    }

    /// The app's last bytes may be a ping that its client, which waits for an answer, has not answered yet.
    pub fn may_wait_behind_ping(&self, seen: &Connection) -> bool {
        Duration::from_millis(seen.last_sent.into()) < LATE
            && matches!(self.change, Change::Added(added) if added.may_be_ping())
            && (self.before_half).is_some_and(|before| !before.spoke.last_spoke().is_idle())
    }

    /// The last bytes were control frames, as far as reads have seen.
    pub fn only_control(&self) -> bool {
        self.only_control
    }

    /// How many milliseconds before `now` the client's last bytes came that may be a request.
    pub fn last_request(&self, now: i64) -> u32 {
        let ago = now.saturating_sub(self.known.client_at);
        u32::try_from(ago.max(0)).unwrap_or(u32::MAX)
    }

    /// The kernel may tell more of the same bytes half a second later.
    fn unchanged(self, seen: &Connection, by_clock: LastSpoke) -> Self {
        if self.only_control {
            return self;
        }
        let spoke = match &self.change {
            Change::None => first_spoke(seen, by_clock),
            Change::PerhapsPong => spoke_after_perhaps_pong(seen, by_clock),
            Change::Added(added) => later_spoke(seen, by_clock, added),
        };
        let known = Known {
            spoke,
            ..self.known
        };
        Self { known, ..self }
    }

    fn changed(
        self,
        seen: &Connection,
        by_clock: LastSpoke,
        known: impl Fn(Spoke) -> Known,
    ) -> Self {
        for from in [Some(self.known), self.before_half].into_iter().flatten() {
            let added = seen.totals().since(&from.totals);
            // A client may answer a ping as late as it likes, and answers it before it asks for more. The app is never late.
            let client_was_last = seen.last_received <= seen.last_sent;
            if added.is_control() && (client_was_last || came_within(seen, PROMPT)) {
                return Self {
                    known: Known {
                        client_at: from.client_at,
                        ..known(from.spoke.after_control())
                    },
                    change: Change::Added(added),
                    before_half: None,
                    only_control: true,
                };
            }
        }
        let added = seen.totals().since(&self.known.totals);
        if self.change == Change::None && added.may_be_pong() {
            return Self {
                known: known(spoke_after_perhaps_pong(seen, by_clock)),
                change: Change::PerhapsPong,
                ..self
            };
        }
        let half = (added.segments_received == 0) != (added.segments_sent == 0);
        Self {
            known: known(later_spoke(seen, by_clock, &added)),
            change: Change::Added(added),
            before_half: half.then_some(self.known),
            only_control: false,
        }
    }
}

/// Which end spoke last, of a connection of which no read has seen a change.
fn first_spoke(seen: &Connection, by_clock: LastSpoke) -> Spoke {
    let totals = seen.totals();
    match (by_clock, totals.opening()) {
        (LastSpoke::App, _) | (_, Some(Opening::Unused)) => return Spoke::App,
        (_, Some(Opening::Unclear)) => return Spoke::PerhapsIdle,
        (LastSpoke::Client, None) if totals.acknowledged > 0 => {}
        (by_clock, None) => return by_clock.into(),
    }
    if totals.segments_sent < totals.segments_received {
        Spoke::Client // One of its segments is not answered.
    } else if came_within(seen, PROMPT) {
        match totals.may_end_in_control(seen.largest_segment) {
            true => Spoke::PerhapsIdle,
            false => Spoke::ClientPromptly,
        }
    } else if came_within(seen, LATE) {
        match totals.may_be_pings_alone(seen.largest_segment) {
            true => Spoke::PerhapsLate,
            false => Spoke::ClientLater,
        }
    } else {
        Spoke::Client
    }
}

/// Which end spoke last, where the first read can have been between a ping and its answer: the totals tell no more than if
/// this were the first, and a request that has just come is more likely than there.
fn spoke_after_perhaps_pong(seen: &Connection, by_clock: LastSpoke) -> Spoke {
    match first_spoke(seen, by_clock) {
        spoke if seen.totals().opening().is_some() => spoke,
        Spoke::PerhapsIdle => Spoke::PerhapsLate,
        Spoke::ClientPromptly => Spoke::ClientLater,
        spoke => spoke,
    }
}

/// Which end spoke last, where `added` has come and gone and is more than control frames.
fn later_spoke(seen: &Connection, by_clock: LastSpoke, added: &Totals) -> Spoke {
    if added.is_unanswered_http2() {
        return Spoke::Client;
    }
    let follows = added.acknowledged > 0 && frames::follows_the_app(added.received);
    match by_clock {
        LastSpoke::Client if follows && came_within(seen, PROMPT) => Spoke::PerhapsIdle,
        LastSpoke::Client if follows && came_within(seen, LATE) => Spoke::PerhapsLate,
        by_clock => by_clock.into(),
    }
}

/// The last bytes of one end came so soon after the other's, beyond twice the round trip.
fn came_within(seen: &Connection, delay: Duration) -> bool {
    let apart = seen.last_sent.abs_diff(seen.last_received);
    Duration::from_millis(apart.into()) <= 2 * seen.round_trip + delay
}

#[cfg(test)]
mod tests;
