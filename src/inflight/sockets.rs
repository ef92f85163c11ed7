//! The kernel's table of TCP connections: how many there are on the app's ports, and which are in the middle of a
//! request.
//!
//! An app that says nothing about its work still has sockets, and the kernel knows of each how many bytes came and went
//! and when. That is enough to tell a connection that waits for an answer from one that is merely kept open.

mod auto_ports;
mod connection;
mod control;
mod frames;
mod history;
mod listeners;
mod netlink;
mod procfs;

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use auto_ports::AutoPorts;
pub use connection::{Connection, INTERIM, LastSpoke, State};
pub use frames::is_farewell;
use history::History;
#[cfg(feature = "tools")]
pub use listeners::inodes;
pub use listeners::{Listener, SIDECAR_PORTS, listeners, listeners_of_others};
pub use netlink::{CloseNotice, CloseNotices, RecentlyClosed};
use procfs::Replies;
use tokio::time::Instant;

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

/// Reads the connections of some ports.
#[derive(Debug)]
pub struct Table {
    ports: BTreeSet<u16>,
    history: Mutex<History>,
    /// Those that are found when a drain begins.
    auto: Option<AutoPorts>,
}

impl Table {
    /// The connections of these local ports, over IPv4 and IPv6.
    pub fn new(ports: impl IntoIterator<Item = u16>) -> Self {
        Self {
            ports: ports.into_iter().collect(),
            history: Mutex::default(),
            auto: None,
        }
    }

    /// The connections of the ports on which the pod listens when a drain begins.
    pub fn auto(auto: AutoPorts) -> Self {
        Self {
            auto: Some(auto),
            ..Self::new([])
        }
    }

    /// The ports of this read.
    async fn ports_now(&self) -> Result<Cow<'_, BTreeSet<u16>>, Error> {
        Ok(match &self.auto {
            None => Cow::Borrowed(&self.ports),
            Some(auto) => Cow::Owned((*auto.ports().await?).clone()),
        })
    }

    /// The ports that are known by number.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.ports.iter().copied()
    }

    /// Hands out each connection, judged by what earlier reads of this table saw of it too, and says which sockets listen
    /// on the ports.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or does not answer.
    pub async fn each(&self, each: impl FnMut(Connection)) -> Result<Vec<Listener>, Error> {
        let ports = self.ports_now().await?;
        self.each_of(&ports, each).await
    }

    async fn each_of(
        &self,
        ports: &BTreeSet<u16>,
        mut each: impl FnMut(Connection),
    ) -> Result<Vec<Listener>, Error> {
        if ports.is_empty() {
            return Ok(Vec::new()); // The kernel would take that for all ports.
        }
        let mut tied = Vec::new();
        self.history().begin_read(Instant::now());
        let listeners = netlink::dump(ports, |mut connection| {
            if connection.brought() > 0
                && connection.is_tied()
                && connection.last_received >= REPLY_KNOWN
            {
                tied.push(connection);
            } else {
                self.history().take(&mut connection, None);
                each(connection);
            }
        })
        .await?;
        let said = self.replies_to(&tied, ports).await;
        self.judge_tied(tied, &said, each);
        self.history().end_read();
        Ok(listeners)
    }

    /// What the kernel says of the app's replies on connections whose last request and last answer bear the same tick. It is
    /// asked once for what has come on a connection so far: its other table is slower to read.
    async fn replies_to(&self, tied: &[Connection], ports: &BTreeSet<u16>) -> Replies {
        let ask = {
            let history = self.history();
            tied.iter().any(|of| replied_to(&history, of).is_none())
        };
        match ask && procfs::tells_replies() {
            // Where it cannot be read, the rule does without.
            true => procfs::replies(ports).await.unwrap_or_default(),
            false => Replies::new(),
        }
    }

    /// Judges those connections by what the kernel has said, now or before.
    fn judge_tied(&self, tied: Vec<Connection>, said: &Replies, mut each: impl FnMut(Connection)) {
        let mut history = self.history();
        for mut connection in tied {
            let replied = replied_to(&history, &connection)
                .unwrap_or_else(|| said.get(&(connection.port, connection.peer)).copied());
            history.take(&mut connection, Some(replied));
            each(connection);
        }
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what the kernel remembers of connections that the app has closed first within the last minute.
    ///
    /// # Errors
    /// When the kernel cannot be asked, or does not answer.
    pub async fn recently_closed(&self, each: impl FnMut(RecentlyClosed)) -> Result<(), Error> {
        netlink::recently_closed(&self.ports, each).await
    }

    /// Counts by a rule, `ours` left out; and whether something listens: where there is no port at all, nothing is missing
    /// either. Where netlink is refused, or does not tell enough, connections can still be counted from `/proc`, but not
    /// looked into.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn count(
        &self,
        rule: Rule,
        ours: impl Fn(SocketAddr) -> bool,
    ) -> Result<(u64, bool), Error> {
        let ports = self.ports_now().await?;
        let mut count = 0;
        let read = self
            .each_of(&ports, |connection| {
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
            (Ok(listeners), _) => Ok((count, !listeners.is_empty() || ports.is_empty())),
            (Err(_), Rule::Open) => procfs::count(&ports, ours).await.map_err(Error::Refused),
            (Err(e), _) => Err(e),
        }
    }
}

/// What the kernel has said before of the app's reply to what has come on a connection by now.
fn replied_to(history: &History, of: &Connection) -> Option<Option<bool>> {
    history.of(of.cookie)?.replied_to(of)
}

/// Takes netlink's datagrams for reads of the table, one after the other, and judges each connection: for the fuzz target.
/// Says how many messages there were on sockets, and how many of them were called busy and not.
///
/// # Errors
/// When one of them makes no sense.
#[doc(hidden)]
pub fn judged_of(datagrams: &[&[u8]]) -> Result<(usize, usize), Error> {
    let (mut messages, mut busy) = (0, 0);
    let mut history = History::default();
    for datagram in datagrams {
        history.begin_read(Instant::now());
        netlink::connections_of(datagram, |mut connection, _| {
            let replied = connection.is_tied().then_some(None);
            history.take(&mut connection, replied);
            messages += 1;
            busy +=
                usize::from(connection.is_busy(Duration::from_secs(1), Duration::from_secs(10)));
        })?;
        history.end_read();
    }
    Ok((messages, busy))
}

/// The ends and the state of each socket of a table in `/proc/net`: for the fuzz target.
#[doc(hidden)]
pub fn sockets_of(table: &str) -> Vec<(SocketAddr, SocketAddr, String)> {
    procfs::sockets_of(table)
}

#[cfg(test)]
mod tests;
