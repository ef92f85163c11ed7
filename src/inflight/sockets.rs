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
use std::collections::{BTreeSet, HashMap};
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
        self.history().begin_read();
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
        self.judge_tied(ports, tied, each);
        self.history().end_read();
        Ok(listeners)
    }

    /// Judges those whose last request and last answer bear the same tick. The kernel is asked whether the app has
    /// replied, once for what has come on a connection so far: its other table is slower to read.
    fn judge_tied(
        &self,
        ports: &BTreeSet<u16>,
        mut tied: Vec<Connection>,
        mut each: impl FnMut(Connection),
    ) {
        let mut history = self.history();
        let known = |history: &History, of: &Connection| {
            (history.of(of.cookie)).and_then(|past| past.replied_to(of))
        };
        let ask = tied.iter().any(|of| known(&history, of).is_none());
        let said = if ask && procfs::tells_replies() {
            // Where it cannot be read, the rule does without.
            procfs::replies(ports).unwrap_or_default()
        } else {
            HashMap::new()
        };
        for mut connection in tied.drain(..) {
            let replied = known(&history, &connection)
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
            (Err(_), Rule::Open) => procfs::count(&ports, ours).map_err(Error::Refused),
            (Err(e), _) => Err(e),
        }
    }
}

#[cfg(test)]
mod tests;
