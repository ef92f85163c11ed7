//! The kernel's table of TCP connections: how many there are on the app's ports, and which are in the middle of a
//! request.
//!
//! An app that says nothing about its work still has sockets, and the kernel knows of each how many bytes came and went
//! and when. That is enough to tell a connection that waits for an answer from one that is merely kept open.

mod netlink;
mod procfs;

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use netlink::{CloseNotice, CloseNotices};

/// The longest that an interim answer is: `HTTP/1.1 100 Continue` and its two line ends. It is no answer.
pub const INTERIM: u64 = 25;

/// How old something must be, in milliseconds, for the kernel to know whether the app replied to it. It delays what it
/// acknowledges by 40 to 200 ms, for the reply to go with it.
const REPLY_KNOWN: u32 = 500;

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
    fn new(number: u8) -> Self {
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
    fn bit(self) -> u32 {
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
    fn client_closed(self) -> bool {
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

/// Which came last on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// A request.
    Asked,
    /// An answer, or nothing ever.
    Answered,
    /// Nobody can tell.
    Unclear,
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
    /// Who has closed it.
    pub state: State,
    /// Bytes that came and were not read by the app.
    pub unread: u32,
    /// Bytes the app wrote that were not acknowledged.
    pub unacknowledged: u32,
    /// Bytes that came; the end of the client's half counts as one.
    pub received: u64,
    /// Pieces in which bytes came; none where the kernel is too old to say.
    pub segments: u32,
    /// Bytes of the app's that were acknowledged; the end of its half counts as one.
    pub acknowledged: u64,
    /// How long ago bytes came.
    pub last_received: u32,
    /// How long ago the app sent bytes.
    pub last_sent: u32,
    /// How long ago the client acknowledged something.
    pub last_acknowledgement: u32,
    /// Whether the app has replied to what came last; none where nobody asked, or the kernel cannot say.
    pub replied: Option<bool>,
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

    /// It brought something and never got anything.
    pub fn unanswered(&self) -> bool {
        self.brought() > 0 && self.answered() == 0
    }

    /// Somebody waits for an answer on it, as far as one look can tell: [`Connection::is_busy`] without what only moves
    /// bytes. Where the kernel's clock leaves it open, somebody is taken to wait for as long as `max_quiet`.
    pub fn waits(&self, max_quiet: Duration) -> bool {
        match self.order() {
            Order::Asked => true,
            Order::Answered => false,
            Order::Unclear => u128::from(self.last_received) < max_quiet.as_millis(),
        }
    }

    /// Which came last, a request or an answer.
    ///
    /// Both times are of the kernel's ticks, 1 to 4 ms apart, so a request and the answer just before or after it can
    /// bear the same one. Then the kernel may know that the app has not [replied](Connection::replied). Else an
    /// acknowledgement later than both was the client's, of the answer; and where there has only been one piece to
    /// answer, the answer came after it.
    pub fn order(&self) -> Order {
        if self.brought() == 0 {
            return Order::Answered;
        }
        let unread = (self.unread).saturating_sub(u32::from(self.state.client_closed()));
        let unacknowledged =
            (self.unacknowledged).saturating_sub(u32::from(self.state.app_closed()));
        if self.answered() == 0 || unread > 0 || unacknowledged > 0 {
            return Order::Asked;
        }
        match self.last_received.cmp(&self.last_sent) {
            Ordering::Less => Order::Asked,
            Ordering::Greater => Order::Answered,
            Ordering::Equal if self.replied == Some(false) => Order::Asked,
            Ordering::Equal => {
                let acknowledged = self.last_acknowledgement < self.last_received;
                let only_one = self.segments == 1 && self.answered() > INTERIM;
                if acknowledged || only_one {
                    Order::Answered
                } else {
                    Order::Unclear
                }
            }
        }
    }

    /// The last request and the last answer bear the same tick, in whichever order they came.
    pub fn is_tied(&self) -> bool {
        self.last_received == self.last_sent
    }

    /// It is in the middle of a request: somebody [waits](Connection::waits) on it, or it moved bytes within the quiet
    /// period, as a stream or an upload does.
    pub fn is_busy(&self, quiet_period: Duration, max_quiet: Duration) -> bool {
        let moved = u128::from(self.last_received.min(self.last_sent)) < quiet_period.as_millis();
        self.brought() > 0 && (moved || self.waits(max_quiet))
    }
}

/// Why the table cannot be read.
#[derive(Debug)]
pub enum Error {
    /// The kernel, or whoever guards it, lets nobody ask.
    Refused(io::Error),
    /// The kernel's answer makes no sense.
    Broken(io::Error),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Refused(e) => write!(f, "netlink sock_diag is refused: {e}"),
            Error::Broken(e) => write!(f, "netlink sock_diag does not answer as it should: {e}"),
        }
    }
}

/// What is counted on the ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Every established connection.
    Open,
    /// Those in the middle of a request.
    Busy {
        /// See [`Connection::is_busy`].
        quiet_period: Duration,
        /// See [`Connection::waits`].
        max_quiet: Duration,
    },
}

/// What the kernel had said of a connection's bytes when so many had come: whether the app replied.
type Replies = HashMap<u64, (u64, Option<bool>)>;

/// Reads the connections of some ports.
#[derive(Debug)]
pub struct Table {
    ports: BTreeSet<u16>,
    /// Of those that are tied.
    replies: Mutex<Replies>,
}

impl Table {
    /// The connections of these local ports, over IPv4 and IPv6.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            ports: ports.into_iter().collect(),
            replies: Mutex::default(),
        }
    }

    /// The ports.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied()
    }

    /// Hands out each connection, and says whether something listens on one of the ports.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or does not answer.
    pub async fn each(&self, mut each: impl FnMut(Connection)) -> Result<bool, Error> {
        let mut listens = false;
        let mut tied = Vec::new();
        netlink::dump(&self.ports, |connection| match connection.state {
            State::Listen => listens = true,
            _ if connection.brought() > 0
                && connection.is_tied()
                && connection.last_received >= REPLY_KNOWN =>
            {
                tied.push(connection);
            }
            _ => each(connection),
        })
        .await?;
        self.ask_for_replies(&mut tied);
        tied.into_iter().for_each(each);
        Ok(listens)
    }

    /// Fills in whether the app has replied. The kernel is asked once for what has come on a connection so far: its other
    /// table is slower to read.
    fn ask_for_replies(&self, tied: &mut [Connection]) {
        let mut known = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        let news =
            |of: &Connection| (known.get(&of.cookie)).is_none_or(|(at, _)| *at != of.received);
        let said = if tied.iter().any(news) && procfs::tells_replies() {
            // As good as nobody asked.
            procfs::replies(&self.ports).unwrap_or_default()
        } else {
            HashMap::new()
        };
        let mut kept = Replies::with_capacity(tied.len());
        for each in tied {
            let replied = match known.get(&each.cookie) {
                Some(&(at, replied)) if at == each.received => replied,
                _ => said.get(&(each.port, each.peer)).copied(),
            };
            each.replied = replied;
            kept.insert(each.cookie, (each.received, replied));
        }
        *known = kept;
    }

    /// Counts by a rule, `ours` left out; and whether something listens. Where netlink is refused, connections can
    /// still be counted from `/proc`, but not looked into.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn count(
        &self,
        rule: Rule,
        ours: impl Fn(SocketAddr) -> bool,
    ) -> Result<(u64, bool), Error> {
        let mut count = 0;
        let read = self
            .each(|connection| {
                let counts = match rule {
                    Rule::Open => connection.state == State::Established,
                    Rule::Busy {
                        quiet_period,
                        max_quiet,
                    } => connection.is_busy(quiet_period, max_quiet),
                };
                count += u64::from(counts && !ours(connection.peer));
            })
            .await;
        match (read, rule) {
            (Ok(listens), _) => Ok((count, listens)),
            (Err(Error::Refused(_)), Rule::Open) => {
                procfs::count(&self.ports, ours).map_err(Error::Refused)
            }
            (Err(e), _) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
