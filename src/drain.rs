//! The drain: which phase the pod is in, when a drain is over, and what other parts are told of it.
//!
//! One task, the [`Owner`], holds all of it. Each phase is a method that runs until the phase is over and says what
//! comes next; other parts hold a [`Handle`], which can ask and watch, and take [`Event`]s. Nothing here knows of HTTP
//! or of Kubernetes: the owner is given functions that count work and look at traffic.
//!
//! `policy` has the flags, `decision` the rule that ends a drain, `draining` the loop of one drain, `owner` the phases,
//! `handle` what others may ask, `state` what they may see, `verdict` how a drain went, `visitors` who calls
//! meanwhile.

mod decision;
mod draining;
mod handle;
mod owner;
mod policy;
mod reads;
mod state;
mod verdict;
mod visitors;

#[cfg(test)]
pub(crate) mod testing;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use decision::{CounterNews, counted_of};
pub use handle::{Handle, PodFacts, Refusal};
pub use owner::{Inputs, Owner, new};
pub use policy::{AppShutdown, Args, Policy, Readiness, WhenBlind, WhenStuck};
pub use reads::pause;
pub use state::{Drain, Event, Phase, State};
pub use verdict::{AppEnd, Outcome, Trigger, Verdict};
pub use visitors::{Arriving, Monitor, NAMED, Visitors};

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    /// The count is of connections that are busy, and not of requests.
    pub connections: bool,
    /// It counts nothing but requests on connections: with no connection open, a count that does not move is no work.
    pub ends_when_stuck: bool,
}

/// What one read of a source tells the drain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    Count(f64),
    /// No count, for whatever reason. It is not zero.
    Unknown,
    /// Nothing listens any more where something used to.
    Gone,
    /// Nothing listens, and nothing has been seen to.
    Absent,
}

/// Reads the source of that index once, when it is polled. It may take as long as it likes: it is dropped when no longer
/// needed.
pub type ReadCount = Arc<dyn Fn(usize) -> BoxFuture<'static, Reading> + Send + Sync>;

/// Looks at the traffic of the drain that began then, as of when routes are known to have changed, if they are; nothing
/// where it cannot be seen. It looks when it is polled, and answers within a second or two.
pub type ReadTraffic = Arc<
    dyn Fn(Instant, Option<Instant>) -> BoxFuture<'static, Option<TrafficSnapshot>> + Send + Sync,
>;

/// Ends when no Service sends requests to this pod any more; false where it cannot be known when that is. It may be
/// dropped before.
pub type EndpointsLeft = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What one look at the traffic on the app's ports saw.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficSnapshot {
    /// Requests that came since the drain began on new connections, or on those that a proxy in the pod keeps. Those of
    /// monitors are left out.
    pub arrivals: u64,
    /// When the last of them was seen.
    pub last_arrival: Option<Instant>,
    /// Connections that clients have kept from before the drain, and on which they have made a request since.
    pub kept_in_use: u64,
    /// Connections that brought something and never got an answer.
    pub unanswered: u64,
    /// Connections whose client waits for an answer.
    pub waiting: u64,
    /// Those, and the ones that moved bytes a moment ago.
    pub active: u64,
    /// Connections that the app holds, idle ones too.
    pub open: u64,
    /// Something listens on one of the ports.
    pub listens: bool,
    /// Of the requests in flight when routes changed, those that have not been seen to end. None before that.
    pub remaining: Option<u64>,
    /// What listened on the ports when the drain began does no more, and something else does: the app was started again.
    pub listener_replaced: bool,
    /// Where nothing listens on the ports: another port of the pod on which something does that is neither ours nor a
    /// well-known sidecar's.
    pub other_port: Option<u16>,
    /// Who calls.
    pub visitors: Arc<Visitors>,
}

impl TrafficSnapshot {
    /// Nothing listens, and no connection is left: there is no app that could answer.
    pub fn app_is_gone(&self) -> bool {
        !self.listens && self.open == 0
    }
}
