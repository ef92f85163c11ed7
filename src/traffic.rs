//! The traffic on the app's ports while a drain runs: requests that still arrive, clients that keep their connections,
//! and, once the hook has been answered, requests that were cut off.
//!
//! One task, the [`Watcher`], holds all of it; a [`Traffic`] is how to ask it. What follows from the connections that it
//! sees is in [`evidence`]: whether routes have changed, what is left of the requests in flight then, and what was cut
//! off.

pub(crate) mod evidence;
mod kubelet;
mod listeners;
mod probes;
mod watcher;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::drain::{TrafficSnapshot, Visitors};
use crate::inflight::{AutoPorts, LocalPeers};
pub use kubelet::KubeletAddresses;
pub use probes::Probe;
pub use watcher::{Watcher, until};

/// What the app's ports are, and how long quiet is.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ports: BTreeSet<u16>,
    /// What calls the app from within the pod.
    pub local_peers: LocalPeers,
    /// Where more ports are found when a drain begins.
    pub auto: Option<AutoPorts>,
    pub quiet_period: Duration,
    pub max_quiet: Duration,
    /// The least time between two reads of the socket table.
    pub poll_interval: Duration,
}

/// Whether a connection's other end is one of our own sockets.
pub type IsOwnSocket = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// What status and metrics show of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Arrivals in the drain that runs, or in the last one.
    pub arrivals: u64,
    /// Requests that were cut off after it.
    pub cut: u64,
    /// Arrivals of all drains.
    pub arrivals_total: u64,
    /// Requests cut off after all drains.
    pub cut_total: u64,
    /// The kernel does not show this container its traffic: none of these is known.
    pub refused: bool,
}

/// Asks the watcher, and watches what it sees.
#[derive(Debug, Clone)]
pub struct Traffic {
    messages: mpsc::UnboundedSender<Message>,
    counts: watch::Receiver<TrafficCounts>,
    visitors: watch::Receiver<Arc<Visitors>>,
}

/// What the watcher is asked or told.
#[derive(Debug)]
enum Message {
    /// Read the traffic of the drain that began then.
    Read {
        began: Instant,
        routes_changed: Option<Instant>,
        reply: oneshot::Sender<Option<TrafficSnapshot>>,
    },
    /// The hooks are being answered: a client that waits from now on is cut off. By `killed_by` the app is dead; it is
    /// already where it is `gone`.
    HookAnswered { killed_by: Instant, gone: bool },
    /// Count what has happened until now; `ending` where the sidecar ends with its app.
    FinalCounts {
        ending: bool,
        reply: oneshot::Sender<TrafficCounts>,
    },
    /// The pod's object has these probes of the kubelet, and no others.
    Probes(Vec<Probe>),
    /// The pod serves again.
    Stop,
}

/// A watcher of the app's ports, and how to ask it.
pub fn new(
    settings: Settings,
    is_own: IsOwnSocket,
    kubelet: KubeletAddresses,
) -> (Watcher, Traffic) {
    let (messages, received) = mpsc::unbounded_channel();
    let (counts, shown) = watch::channel(TrafficCounts::default());
    let (visitors, named) = watch::channel(Arc::default());
    let watcher = Watcher::new(settings, is_own, kubelet, received, counts, visitors);
    let traffic = Traffic {
        messages,
        counts: shown,
        visitors: named,
    };
    (watcher, traffic)
}

impl Traffic {
    /// What is known now.
    pub fn counts(&self) -> TrafficCounts {
        *self.counts.borrow()
    }

    /// Reads the traffic of the drain that began then, as of when routes are known to have changed, if they are. The
    /// first read of a drain begins the watch.
    pub async fn read(
        self,
        began: Instant,
        routes_changed: Option<Instant>,
    ) -> Option<TrafficSnapshot> {
        let (reply, answer) = oneshot::channel();
        let read = Message::Read {
            began,
            routes_changed,
            reply,
        };
        self.messages.send(read).ok()?;
        answer.await.ok()?
    }

    /// The hooks are being answered: from now on, a client that waits for the app is cut off when it dies, which it has
    /// by `killed_by`. Where it is `gone`, each client that waited when it went was cut off.
    pub fn hook_answered(&self, killed_by: Instant, gone: bool) {
        let _ = (self.messages).send(Message::HookAnswered { killed_by, gone });
    }

    /// The pod's object has these probes of the kubelet, and no others, while the drain that runs does.
    pub fn set_probes(&self, probes: Vec<Probe>) {
        let _ = self.messages.send(Message::Probes(probes));
    }

    /// The callers that the last read of the drain that runs has seen, or that of the last drain.
    pub fn visitors(&self) -> Arc<Visitors> {
        self.visitors.borrow().clone()
    }

    /// The pod serves again, and nothing is watched.
    pub fn stop(&self) {
        let _ = self.messages.send(Message::Stop);
    }

    /// What has been seen, what happened a moment ago included. `ending` where the sidecar ends with its app: the kernel
    /// may still be closing what the app has left, and is given the time for it.
    pub async fn final_counts(&self, ending: bool) -> TrafficCounts {
        let (reply, answer) = oneshot::channel();
        let _ = (self.messages).send(Message::FinalCounts { ending, reply });
        answer.await.unwrap_or_else(|_| self.counts())
    }
}
