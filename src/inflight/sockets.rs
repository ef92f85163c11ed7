//! The kernel's table of TCP connections: how many there are on the app's ports, and which are in the middle of a
//! request.
//!
//! An app that says nothing about its work still has sockets, and the kernel knows of each how many bytes came and went
//! and when. That is enough to tell a connection that waits for an answer from one that is merely kept open.

mod connection;
mod netlink;
mod procfs;

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use connection::{Connection, INTERIM, LastSpoke, State};
pub use netlink::{CloseNotice, CloseNotices, RecentlyClosed};

/// How old something must be, in milliseconds, for the kernel to know whether the app replied to it. It delays what it
/// acknowledges by 40 to 200 ms, for the reply to go with it.
const REPLY_KNOWN: u32 = 500;

/// Why the table cannot be read.
#[derive(Debug)]
pub enum Error {
    /// The kernel, or a policy such as seccomp, does not let us ask.
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

/// Whether the app had replied to what had come on a connection, when so many bytes had.
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
            // Where it cannot be read, the rule does without.
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

    /// Hands out what the kernel remembers of connections that the app has closed first within the last minute.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or does not answer.
    pub async fn recently_closed(&self, each: impl FnMut(RecentlyClosed)) -> Result<(), Error> {
        netlink::recently_closed(&self.ports, each).await
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
