//! What started a drain, how it ended, and the log line that says so.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Visitors;

/// What makes a drain start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The app container's preStop hook: the container stops, for good or to be restarted.
    AppHook,
    /// The sidecar's own preStop hook: the pod is going.
    SelfHook,
    /// A SIGTERM to the sidecar: the pod is going.
    Signal,
    /// An operator or a program asked for it with `POST /drain`.
    Manual,
    /// The sidecar's container was restarted in the middle of a drain, which goes on.
    Restart,
}

impl Trigger {
    /// Its name in verdict and log.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::AppHook => "app hook",
            Trigger::SelfHook => "self hook",
            Trigger::Signal => "signal",
            Trigger::Manual => "manual",
            Trigger::Restart => "sidecar restart",
        }
    }
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The work was seen to be done.
    Drained,
    /// The time was up.
    Deadline,
    /// `POST /release` ended the waiting.
    Released,
    /// The app has stopped listening.
    AppGone,
    /// A source was unreadable, and the policy says to go on.
    Blind,
    /// Only clients that keep their connections were left.
    Persistent,
    /// Routes have changed, and the app finishes its work by itself.
    HandedOver,
    /// The count had not moved since the drain began, with no connection open, and the policy says to go on.
    Stuck,
    /// `DELETE /drain` undid the drain.
    Undone,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 9] = [
        Outcome::Drained,
        Outcome::Deadline,
        Outcome::Released,
        Outcome::AppGone,
        Outcome::Blind,
        Outcome::Persistent,
        Outcome::HandedOver,
        Outcome::Stuck,
        Outcome::Undone,
    ];

    /// Its name in verdict, metrics and log.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Drained => "drained",
            Outcome::Deadline => "deadline",
            Outcome::Released => "released",
            Outcome::AppGone => "app-gone",
            Outcome::Blind => "blind",
            Outcome::Persistent => "persistent",
            Outcome::HandedOver => "handed-over",
            Outcome::Stuck => "stuck",
            Outcome::Undone => "undone",
        }
    }
}

/// How the app ended after it was handed its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppEnd {
    /// From the answer to the hook until the app was seen to be gone.
    pub took: Duration,
    /// It had not finished by the end of the grace period, so the kubelet kills it.
    pub killed: bool,
}

/// How a drain went.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    pub took: Duration,
    /// The largest of the sources' counts; none where one of them is unknown.
    pub inflight: Option<f64>,
    pub trigger: Trigger,
    pub going: bool,
    /// The longest it could have taken.
    pub deadline: Duration,
    /// Each source's name and last count.
    pub sources: Vec<(String, Option<f64>)>,
    /// Connections that arrived; none where the traffic cannot be watched.
    pub arrivals: Option<u64>,
    /// From the beginning of the drain to the last arrival; none where there was no arrival, or no watch.
    pub last_arrival: Option<Duration>,
    /// Requests that the counters counted; none where there is no counter, or one cannot be read.
    pub requests: Option<u64>,
    /// For how long no connection had been open, where the count seems stuck.
    pub stuck: Option<Duration>,
    /// Clients that kept using their connections, where these were all that was left.
    pub persistent: Option<u64>,
    /// Why the pod has to go, where the API says so.
    pub reason: Option<Arc<str>>,
    /// What the drain still waited for, where it did not end by itself.
    pub waiting_for: Option<Arc<str>>,
    /// Who called; none where the traffic cannot be watched.
    pub visitors: Option<Arc<Visitors>>,
}

impl Verdict {
    /// Logs it, once, when the drain ends.
    pub fn log(&self) {
        let (outcome, trigger, going) = (self.outcome.name(), self.trigger.name(), self.going);
        let inflight = self
            .inflight
            .map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let took_seconds = self.took.as_secs_f64();
        let (arrivals, persistent) = (self.arrivals, self.persistent);
        let last_arrival_seconds = self.last_arrival.map(|after| after.as_secs_f64());
        let requests = self.requests;
        let stuck_seconds = self.stuck.map(|stuck| stuck.as_secs_f64());
        let reason = self.reason.as_deref();
        let waiting_for = self.waiting_for.as_deref();
        let monitors = (self.visitors.as_deref()).and_then(Visitors::monitors_text);
        // A level has to be known when the program is built. What is none is not logged.
        macro_rules! ended {
            ($log:ident) => {
                $log!(
                    outcome,
                    took_seconds,
                    inflight,
                    trigger,
                    going,
                    arrivals,
                    last_arrival_seconds,
                    requests,
                    stuck_seconds,
                    persistent,
                    reason,
                    waiting_for,
                    monitors,
                    "drain ended"
                )
            };
        }
        match self.outcome {
            Outcome::Deadline | Outcome::Blind | Outcome::Persistent | Outcome::Stuck => {
                ended!(warn);
            }
            _ => ended!(info),
        }
        if self.outcome == Outcome::Persistent {
            warn!(
                "clients keep using connections from before the drain, and only the app can tell them to go: let it \
                 answer with Connection: close while it drains, see --notify and --drain-file"
            );
        }
    }
}
