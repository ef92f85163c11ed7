//! One connection as the kernel shows it, and the rule on whether it is in the middle of a request.

use std::cmp::Ordering;
use std::net::SocketAddr;
use std::time::Duration;

use super::frames::Totals;

/// The longest that an interim answer is: `HTTP/1.1 100 Continue` and its two line ends. It is no answer.
pub const INTERIM: u64 = 25;

/// A connection's state, as the kernel numbers them (`include/net/tcp_states.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Open at both ends.
    Established,
    /// The app has closed, and not all it wrote is acknowledged.
    FinWait1,
    /// The app has closed, and waits for the client to do the same.
    FinWait2,
    /// The client has closed its half, and may still wait for an answer.
    CloseWait,
    /// Both have closed, and the app's part is not acknowledged.
    LastAck,
    /// Both have closed at the same moment, and the app's part is not acknowledged.
    Closing,
    /// Takes connections.
    Listen,
    /// Being made, dying or dead.
    Other,
}

impl State {
    pub(super) fn new(number: u8) -> Self {
        match number {
            1 => State::Established,
            4 => State::FinWait1,
            5 => State::FinWait2,
            8 => State::CloseWait,
            9 => State::LastAck,
            10 => State::Listen,
            11 => State::Closing,
            _ => State::Other,
        }
    }

    /// The bit that asks the kernel for sockets in this state.
    pub(super) fn bit(self) -> u32 {
        match self {
            State::Established => 1 << 1,
            State::FinWait1 => 1 << 4,
            State::FinWait2 => 1 << 5,
            State::CloseWait => 1 << 8,
            State::LastAck => 1 << 9,
            State::Listen => 1 << 10,
            State::Closing => 1 << 11,
            State::Other => 0,
        }
    }

    /// The client may have closed its half, which the kernel counts as a byte received.
    pub(super) fn client_closed(self) -> bool {
        matches!(
            self,
            State::CloseWait | State::LastAck | State::Closing | State::Other
        )
    }

    /// The app may have closed its half, which the kernel counts as a byte sent.
    pub fn app_closed(self) -> bool {
        !matches!(self, State::Established | State::CloseWait)
    }

    /// The end of the app's half may have been acknowledged, which the kernel counts as a byte.
    fn app_close_acknowledged(self) -> bool {
        matches!(self, State::FinWait2 | State::Other)
    }
}

/// Which end of a connection sent bytes last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LastSpoke {
    /// The client: it waits for an answer.
    Client,
    /// The app, or neither end ever.
    App,
    /// The client, but most likely it waits for nothing: it sent a control frame of WebSocket or HTTP/2, or it has left.
    PerhapsIdle,
    /// The same, but the frame would have come late, so that a request is more likely than there.
    PerhapsLate,
    /// The kernel's clock leaves it open.
    Unclear,
}

impl LastSpoke {
    /// No client waits, or most likely none.
    pub fn is_idle(self) -> bool {
        match self {
            LastSpoke::App | LastSpoke::PerhapsIdle | LastSpoke::PerhapsLate => true,
            LastSpoke::Client | LastSpoke::Unclear => false,
        }
    }
}

/// What the kernel says of one connection. Ages are in milliseconds, counted from when it said so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The kernel's own number of this connection, never given twice while the machine runs.
    pub cookie: u64,
    /// The app's port.
    pub port: u16,
    /// The other end. An IPv4 address is one also where the app's socket is an IPv6 one.
    pub peer: SocketAddr,
    /// The other end is in the pod too: a loopback address, or the address that the app's end has.
    pub from_pod: bool,
    /// Which ends have closed it.
    pub state: State,
    /// Bytes that came and were not read by the app.
    pub unread: u32,
    /// Bytes the app wrote that were not acknowledged.
    pub unacknowledged: u32,
    /// Bytes that came; the end of the client's half counts as one.
    pub received: u64,
    /// Segments in which bytes came; none where the kernel is too old to say.
    pub segments: u32,
    /// Bytes of the app's that were acknowledged; the end of its half counts as one.
    pub acknowledged: u64,
    /// Segments in which the app's bytes went, those sent twice included; none where the kernel is too old to say.
    pub segments_sent: u32,
    /// The largest segment that came, in bytes; 536 where all were smaller (`tcpi_rcv_mss`).
    pub largest_segment: u32,
    /// The time from bytes of the app's to their acknowledgement, smoothed (`tcpi_rtt`).
    pub round_trip: Duration,
    /// How long ago bytes came.
    pub last_received: u32,
    /// How long ago the app sent bytes.
    pub last_sent: u32,
    /// How long ago the client acknowledged something.
    pub last_acknowledgement: u32,
    /// Whether the app has replied to what came last; none where it was not asked for, or the kernel cannot say.
    pub replied: Option<bool>,
    /// Which end spoke last, where earlier reads of the table tell more than this one.
    pub judged: Option<LastSpoke>,
    /// How long ago the client's bytes came that may be a request, where earlier reads have told control frames apart.
    pub last_request: Option<u32>,
    /// The bytes that moved last were control frames, as far as earlier reads have seen.
    pub only_control: bool,
}

impl Connection {
    /// Bytes that came, the end of the client's half not counted.
    pub fn brought(&self) -> u64 {
        (self.received).saturating_sub(u64::from(self.state.client_closed()))
    }

    /// Bytes of the app's that have arrived, the end of its half not counted.
    pub fn answered(&self) -> u64 {
        let end = u64::from(self.state.app_close_acknowledged());
        self.acknowledged.saturating_sub(end)
    }

    /// What the kernel keeps for a while after a connection has ended: its name, and no fact of it.
    pub fn is_remnant(&self) -> bool {
        self.state.app_closed() && self.received == 0 && self.acknowledged == 0
    }

    /// What the kernel has counted.
    pub(super) fn totals(&self) -> Totals {
        Totals {
            received: self.brought(),
            acknowledged: self.answered(),
            segments_received: self.segments,
            segments_sent: self.segments_sent,
        }
    }

    /// It brought something and never got anything.
    pub fn unanswered(&self) -> bool {
        self.brought() > 0 && self.answered() == 0
    }

    /// A client waits for an answer on it, as far as one read can tell: [`Connection::is_busy`] without what only moves
    /// bytes. Where the kernel's clock leaves it open, a client is taken to wait for as long as `max_quiet`; where it most
    /// likely does not, for three quarters of that, so that connections that are idle hold a drain for no more than about
    /// 3 s beyond min-wait; and where it may have answered a ping late, for twice `max_quiet`.
    pub fn waits(&self, max_quiet: Duration) -> bool {
        let limit = match self.last_spoke() {
            LastSpoke::Client => return true,
            LastSpoke::App => return false,
            LastSpoke::PerhapsIdle => max_quiet * 3 / 4,
            LastSpoke::Unclear => max_quiet,
            LastSpoke::PerhapsLate => max_quiet * 2,
        };
        let request = self.last_request.unwrap_or(self.last_received);
        u128::from(request) < limit.as_millis()
    }

    /// Which end sent bytes last, as far as this read and earlier ones tell.
    pub fn last_spoke(&self) -> LastSpoke {
        self.judged.unwrap_or_else(|| self.last_spoke_by_clock())
    }

    /// Which end sent bytes last, as far as this read alone tells.
    ///
    /// Both times are of the kernel's ticks, 1 to 4 ms apart, so a request and the answer just before or after it can
    /// bear the same one. Then the kernel may know that the app has not [replied](Connection::replied). Else an
    /// acknowledgement later than both was the client's, of the answer; and where there has only been one segment to
    /// answer, the answer came after it.
    ///
    /// A client that has closed its half may have left altogether or may still read; the kernel does not know. If the app
    /// has not even read what it sent, it is taken to have left, which is unclear and so is waited for no longer than
    /// max-quiet. The end of its half acknowledges what came before it, and makes the kernel forget whether the app has
    /// replied, so neither tells anything.
    pub(super) fn last_spoke_by_clock(&self) -> LastSpoke {
        if self.brought() == 0 {
            return LastSpoke::App;
        }
        let half_closed = self.state == State::CloseWait;
        let unread = (self.unread).saturating_sub(u32::from(self.state.client_closed()));
        let unacknowledged =
            (self.unacknowledged).saturating_sub(u32::from(self.state.app_closed()));
        if half_closed && unread > 0 {
            return match self.answered() {
                0 => LastSpoke::Unclear,
                _ => LastSpoke::PerhapsIdle,
            };
        }
        if self.answered() == 0 || unread > 0 || unacknowledged > 0 {
            return LastSpoke::Client;
        }
        match self.last_received.cmp(&self.last_sent) {
            Ordering::Less => LastSpoke::Client,
            Ordering::Greater => LastSpoke::App,
            Ordering::Equal if self.replied == Some(false) && !half_closed => LastSpoke::Client,
            Ordering::Equal => {
                let acknowledged = self.last_acknowledgement < self.last_received && !half_closed;
                let only_one = self.segments == 1 && self.answered() > INTERIM;
                if acknowledged || only_one {
                    LastSpoke::App
                } else {
                    LastSpoke::Unclear
                }
            }
        }
    }

    /// The app has read all that came, and all that it wrote is acknowledged.
    pub(super) fn is_quiet(&self) -> bool {
        self.unread <= u32::from(self.state.client_closed())
            && self.unacknowledged <= u32::from(self.state.app_closed())
    }

    /// The last request and the last answer bear the same tick, in whichever order they came.
    pub fn is_tied(&self) -> bool {
        self.last_received == self.last_sent
    }

    /// It is in the middle of a request: a client [waits](Connection::waits) on it, or it moved bytes within the quiet
    /// period, as a stream or an upload does.
    pub fn is_busy(&self, quiet_period: Duration, max_quiet: Duration) -> bool {
        let moved = !self.only_control
            && u128::from(self.last_received.min(self.last_sent)) < quiet_period.as_millis();
        self.brought() > 0 && (moved || self.waits(max_quiet))
    }
}

#[cfg(test)]
impl Connection {
    /// An idle one that was answered some time ago.
    pub fn example(cookie: u64) -> Self {
        Self {
            cookie,
            port: 8000,
            peer: "10.0.0.1:1234".parse().unwrap(),
            from_pod: false,
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
            judged: None,
            last_request: None,
            only_control: false,
            segments_sent: 2,
            largest_segment: 536,
            round_trip: Duration::ZERO,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_millis(300);
    const MAX_QUIET: Duration = Duration::from_secs(1);

    fn answered() -> Connection {
        Connection::example(1)
    }

    #[test]
    fn a_request_and_an_answer_of_one_tick_are_told_apart_by_the_acknowledgement() {
        let tie = |acknowledged_before: u32, ago: u32| Connection {
            last_received: ago,
            last_sent: ago,
            last_acknowledgement: acknowledged_before,
            ..answered()
        };
        assert!(
            !tie(890, 900).waits(MAX_QUIET),
            "the answer was acknowledged"
        );
        assert!(
            tie(900, 900).waits(MAX_QUIET),
            "it is unclear which came first"
        );
        assert!(!tie(1000, 1000).waits(MAX_QUIET), "but not for ever");
        let unreplied = Connection {
            replied: Some(false),
            ..tie(1000, 1000)
        };
        assert!(unreplied.waits(MAX_QUIET), "the kernel knows");
        let first = Connection {
            segments: 1,
            ..tie(900, 900)
        };
        assert!(
            !first.waits(MAX_QUIET),
            "there was nothing to answer before it"
        );
        let interim = Connection {
            acknowledged: 25,
            ..first
        };
        assert!(interim.waits(MAX_QUIET), "100 Continue is no answer");
    }

    #[test]
    fn what_moves_bytes_is_busy_and_what_has_not_for_a_quiet_period_is_not() {
        let streams = Connection {
            last_sent: 100,
            ..answered()
        };
        assert!(streams.is_busy(QUIET, MAX_QUIET) && !streams.waits(MAX_QUIET));
        assert!(!answered().is_busy(QUIET, MAX_QUIET));
        let writing = Connection {
            unacknowledged: 1,
            ..answered()
        };
        assert!(writing.waits(MAX_QUIET));
    }
}
