//! What other parts may know of the drain at any time, and the events that tell them what has happened.

use std::sync::Arc;

use tokio::time::Instant;

use super::{AppEnd, Readiness, Trigger, Verdict};

/// Where the pod is between serving and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Serving,
    Draining,
    Drained,
    /// The app's container is being restarted; it has not answered yet.
    Reopening,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Phase; 4] = [
        Phase::Serving,
        Phase::Draining,
        Phase::Drained,
        Phase::Reopening,
    ];

    /// Its name in status, metrics and log.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Serving => "serving",
            Phase::Draining => "draining",
            Phase::Drained => "drained",
            Phase::Reopening => "reopening",
        }
    }
}

/// When a drain began and by when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub trigger: Trigger,
    pub began: Instant,
    pub deadline: Instant,
    /// The end of the grace period: by then the kubelet has killed the app, if it stops it at all.
    pub grace_ends: Instant,
}

/// What every part may know. It changes as a whole.
#[derive(Debug, Clone)]
pub struct State {
    pub phase: Phase,
    /// When the phase began.
    pub since: Instant,
    /// The drain that runs, or the last one that did.
    pub drain: Option<Drain>,
    /// The pod is going, and not only its app's container.
    pub going: bool,
    /// What the drain that runs waits for. A change of it alone wakes no part that watches.
    pub waiting_for: Option<Arc<str>>,
    /// How the last drain went; none while one runs.
    pub verdict: Option<Arc<Verdict>>,
}

impl State {
    /// Whether the pod may get traffic, as far as the drain is concerned.
    pub fn ready(&self, readiness: Readiness, now: Instant) -> bool {
        match (self.phase, readiness) {
            (Phase::Serving, _) => true,
            (Phase::Draining, Readiness::After(wait)) => {
                self.drain.is_some_and(|drain| now < drain.began + wait)
            }
            (Phase::Draining | Phase::Drained, Readiness::Never) => true,
            (Phase::Draining | Phase::Drained | Phase::Reopening, _) => false,
        }
    }
}

/// What happened, in order, for the parts that tell the app, the metrics and the API server.
#[derive(Debug, Clone)]
pub enum Event {
    /// A drain began.
    Began(Drain),
    /// Of the drain that runs, the first sign that the app has to stop: its beginning, or later where that was by hand.
    Stopping(Drain),
    /// The drain that runs has another deadline now.
    DeadlineChanged(Drain),
    /// A drain ended.
    Ended(Drain, Arc<Verdict>),
    /// After a handover the app has ended, or it has not by the end of the grace period.
    AppEnded(Drain, AppEnd),
    /// The pod serves again.
    Serving,
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::drain::Policy;
    use crate::drain::testing::{QUIET, SECOND, TestPod, policy};

    #[tokio::test(start_paused = true)]
    async fn readiness_fails_now_or_later_or_never() {
        for (readiness, at_once, later) in [
            (Readiness::Now, false, false),
            (Readiness::After(3 * SECOND), true, false),
            (Readiness::Never, true, true),
        ] {
            let pod = TestPod::with(
                Policy {
                    readiness,
                    ..policy()
                },
                &[QUIET],
            );
            assert!(pod.ready());
            let verdict = pod.handle.drain(Trigger::AppHook).await;
            assert_eq!(pod.ready(), at_once, "{readiness:?}");
            sleep(3 * SECOND).await;
            assert_eq!(pod.ready(), later, "{readiness:?}");
            verdict.await.unwrap();
            assert_eq!(pod.phase(), Phase::Reopening);
            assert!(!pod.ready(), "the app is down");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_of_a_pod_that_is_going_follows_its_policy_to_the_end() {
        for (readiness, ready) in [
            (Readiness::Now, false),
            (Readiness::After(2 * SECOND), false),
            (Readiness::After(9 * SECOND), false),
            (Readiness::Never, true),
        ] {
            let pod = TestPod::with(
                Policy {
                    readiness,
                    ..policy()
                },
                &[QUIET],
            );
            pod.drain(Trigger::SelfHook).await;
            assert_eq!(pod.phase(), Phase::Drained);
            assert_eq!(pod.ready(), ready, "{readiness:?}");
        }
    }
}
