//! Asks the Kubernetes API about our own pod for the drain, and writes Events about what happens.
//!
//! One task does both, in order, and nothing waits for it: it gets messages, and gives [`drain::PodFacts`]. Per drain it
//! asks for the own pod once, or a few times where that fails, and writes three Events at most. Thousands of pods may end
//! at once, so what is not urgent is spread over a few seconds.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::clock;
use crate::cluster::{Cluster, Error, NewEvent, OwnPod, Reason};
use crate::drain::{self, Drain, EndpointsLeft, Event, Handle, Outcome, Trigger, Verdict};
use crate::report::{self, Aftermath, NOT_GRACEFUL};
use crate::traffic::{Traffic, until};

/// How long after the first hook the pod is asked for: by then its other hook has come too, which tells whether a pod
/// that was not deleted is going.
const ASK_AFTER: Duration = Duration::from_millis(200);
/// And how far that is spread.
const ASK_SPREAD: Duration = Duration::from_millis(300);

/// How long after a failure it is asked for again, and each time twice as long after the one before. A drain lasts for
/// seconds more, in which the pod's object still tells much: the probes, the real deadline. Of ten thousand pods that a
/// busy API server has turned away, a tenth ask in the same second.
///
/// Each of these waits is spread over as long again.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How often, after the first time.
const AGAIN_AT_MOST: u32 = 3;

/// How far the Events of drains that start at once are spread. The ends of drains are spread by themselves.
const START_SPREAD: Duration = Duration::from_secs(3);

/// The longest that min-wait waits until no Service sends requests here any more.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// The kubelet's name for a termination that it decided itself (`PodReasonTerminationByKubelet` in staging/src/k8s.io/api/core/v1).
const BY_KUBELET: &str = "TerminationByKubelet";

/// What the API may have to hear of.
#[derive(Debug)]
pub enum Occurrence {
    /// Something happened to a drain.
    Event(Event),
    /// Nothing more comes of the drain, and so many requests were cut off; the pod serves again, or the sidecar ends.
    Over {
        cut: u64,
        /// The app had been handed its work.
        handed_over: bool,
        serving: bool,
    },
    /// A source that cannot work.
    Unreadable { source: String, problem: Arc<str> },
    /// Mistakes in the configuration, for which defaults were taken.
    Mistakes(Vec<String>),
}

/// Asks and writes. Made by [`Reporter::new`], driven by [`Reporter::run`].
pub struct Reporter {
    /// None where the API is not asked.
    cluster: Option<Cluster>,
    drain: Handle,
    /// None where it is not watched.
    traffic: Option<Traffic>,
    occurrences: mpsc::UnboundedReceiver<Occurrence>,
    /// Calls that failed, which is said once.
    failed: HashSet<&'static str>,
}

/// An Event that is not urgent.
struct Later {
    due: Instant,
    event: NewEvent,
}

impl Reporter {
    /// A reporter, and where to send it what happens.
    pub fn new(
        cluster: Option<Cluster>,
        drain: Handle,
        traffic: Option<Traffic>,
    ) -> (Self, mpsc::UnboundedSender<Occurrence>) {
        let (report, occurrences) = mpsc::unbounded_channel();
        let reporter = Self {
            cluster,
            drain,
            traffic,
            occurrences,
            failed: HashSet::new(),
        };
        (reporter, report)
    }

    /// Asks and writes until all senders are gone.
    pub async fn run(mut self) {
        let mut asking: JoinSet<Result<(), (Question, Error)>> = JoinSet::new();
        let mut later: Option<Later> = None;
        let mut unreadable = false;
        loop {
            let occurrence = tokio::select! {
                biased;
                occurrence = self.occurrences.recv() => occurrence,
                Some(asked) = asking.join_next() => {
                    if let Ok(Err((question, e))) = asked {
                        self.log_failure("the pod", &e);
                        if let Some(again) = question.again(&e) {
                            asking.spawn(again.ask());
                        }
                    }
                    continue;
                }
                () = until(later.as_ref().map(|later| later.due)) => {
                    self.write_late(&mut later).await;
                    continue;
                }
            };
            let Some(cluster) = self.cluster.clone() else {
                match occurrence {
                    Some(_) => continue,
                    None => return,
                }
            };
            match occurrence {
                None => {
                    self.write_late(&mut later).await;
                    return;
                }
                Some(Occurrence::Event(Event::Began(drain))) => {
                    let due = Instant::now() + spread(&cluster, START_SPREAD);
                    let event = started(drain);
                    later = Some(Later { due, event });
                    if drain.trigger == Trigger::Manual {
                        asking.spawn(self.question(cluster, None).ask());
                    }
                }
                Some(Occurrence::Event(Event::Stopping(drain))) => {
                    asking.spawn(self.question(cluster, Some(drain)).ask());
                }
                Some(Occurrence::Event(
                    Event::DeadlineChanged(_) | Event::AppEnded(..) | Event::Serving,
                )) => {}
                Some(Occurrence::Event(Event::Ended(_, verdict))) => {
                    self.write_late(&mut later).await;
                    if let Some(event) = ended(&verdict) {
                        self.write(&event).await;
                    }
                }
                Some(Occurrence::Over {
                    cut,
                    handed_over,
                    serving,
                }) => {
                    self.write_late(&mut later).await;
                    if let Some(event) = over(cut, handed_over, serving) {
                        self.write(&event).await;
                    }
                    // While the pod serves, no connection is kept and nothing is asked.
                    asking.abort_all();
                    cluster.close();
                }
                Some(Occurrence::Mistakes(mistakes)) => {
                    let text = format!("defaults are used: {}", mistakes.join("; "));
                    self.write(&new_event(Reason::ConfigurationMistake, text))
                        .await;
                    cluster.close();
                }
                Some(Occurrence::Unreadable { source, problem }) => {
                    // Once for each start of the sidecar.
                    if !std::mem::replace(&mut unreadable, true) {
                        let text = format!("{source}: {problem}");
                        self.write(&new_event(Reason::SourceUnreadable, text)).await;
                        if self.drain.state().phase == drain::Phase::Serving {
                            cluster.close();
                        }
                    }
                }
            }
        }
    }

    fn question(&self, cluster: Cluster, stopping: Option<Drain>) -> Question {
        Question {
            cluster,
            drain: self.drain.clone(),
            traffic: self.traffic.clone(),
            stopping,
            since: Instant::now(),
            failures: 0,
        }
    }

    async fn write_late(&mut self, later: &mut Option<Later>) {
        if let Some(later) = later.take() {
            self.write(&later.event).await;
        }
    }

    async fn write(&mut self, event: &NewEvent) {
        let Some(cluster) = &self.cluster else { return };
        if let Err(e) = cluster.write(event).await {
            self.log_failure("an Event", &e);
        }
    }

    /// Warns that a call failed, the first time.
    fn log_failure(&mut self, what: &'static str, e: &Error) {
        if self.failed.insert(what) {
            warn!("Kubernetes knows nothing of {what}, and the drain goes on without: {e}");
        } else {
            debug!("Kubernetes knows nothing of {what}: {e}");
        }
    }
}

/// A time from zero to this, always the same for a pod.
fn spread(cluster: &Cluster, over: Duration) -> Duration {
    let mut hasher = DefaultHasher::new();
    cluster.identity().hash(&mut hasher);
    over.mul_f64((hasher.finish() % 1000) as f64 / 1000.0)
}

/// The question what the own pod's object says, for one drain.
struct Question {
    cluster: Cluster,
    drain: Handle,
    traffic: Option<Traffic>,
    /// The drain of an app that has to stop, which the pod's object may give another deadline; none for a drain by hand,
    /// for which the probes alone matter.
    stopping: Option<Drain>,
    /// When the drain's first sign came.
    since: Instant,
    /// How often it was asked in vain.
    failures: u32,
}

impl Question {
    /// Waits until it is time, asks, and gives the drain and the watch on traffic the facts.
    async fn ask(self) -> Result<(), (Self, Error)> {
        sleep(self.wait()).await;
        let going = self.drain.state().going;
        let pod = match self.cluster.own_pod().await {
            Ok(pod) => pod,
            Err(e) => return Err((self, e)),
        };
        if let Some(traffic) = &self.traffic {
            traffic.set_probes(pod.probes.during(going || pod.deletion.is_some()));
        }
        let Some(stopping) = self.stopping else {
            return Ok(());
        };
        let facts = pod_facts(pod, going, clock::now(), self.since.elapsed());
        let granted_seconds = facts.granted.map(|granted| granted.as_secs_f64());
        info!(
            reason = facts.reason.as_deref(),
            going = facts.going,
            granted_seconds,
            "the pod, as Kubernetes knows it"
        );
        self.drain.pod_facts(stopping.began, facts).await;
        Ok(())
    }

    /// The same once more, after this failure; nothing where it would fail again, or was asked often enough.
    fn again(self, e: &Error) -> Option<Self> {
        let failures = self.failures + 1;
        (e.may_pass() && failures <= AGAIN_AT_MOST).then_some(Self { failures, ..self })
    }

    /// How long to wait before it is asked.
    fn wait(&self) -> Duration {
        match self.failures.checked_sub(1) {
            None => ASK_AFTER + spread(&self.cluster, ASK_SPREAD),
            Some(before) => {
                let least = ASK_AGAIN * 2_u32.pow(before);
                least + spread(&self.cluster, least)
            }
        }
    }
}

/// What the pod's object means to a drain whose first sign was `passed` ago; `going` is what was known before.
fn pod_facts(pod: OwnPod, going: bool, now: Timestamp, passed: Duration) -> drain::PodFacts {
    let granted = match &pod.deletion {
        Some(deletion) => clock::left(deletion.granted, deletion.deadline, now, passed),
        None => pod.grace,
    };
    // An eviction by the kubelet and a node's shutdown are no deletions, but all hooks come.
    let by_kubelet = (going && pod.deletion.is_none()).then(|| BY_KUBELET.to_owned());
    drain::PodFacts {
        going: pod.deletion.is_some(),
        granted: Some(granted),
        reason: pod.reason.or(by_kubelet).map(Into::into),
        app_is_stopped: pod.app_is_stopped,
    }
}

/// Waits until no Service sends requests here any more.
pub fn endpoints_left(cluster: Cluster, services: Arc<[String]>) -> EndpointsLeft {
    Arc::new(move || {
        let (cluster, services) = (cluster.clone(), services.clone());
        Box::pin(async move {
            let began = Instant::now();
            match timeout(LEAVE_LIMIT, cluster.left(&services)).await {
                Ok(Ok(())) => {
                    let after_seconds = began.elapsed().as_secs_f64();
                    info!(after_seconds, "the pod has left its Services");
                    true
                }
                Ok(Err(e)) => {
                    warn!(
                        "the Kubernetes API does not say when the pod leaves its Services, so min-wait does not wait for that: {e}"
                    );
                    false
                }
                Err(_) => {
                    let limit = humantime::format_duration(LEAVE_LIMIT);
                    warn!(
                        "the pod has not left its Services within {limit}; min-wait begins all the same"
                    );
                    true
                }
            }
        })
    })
}

fn new_event(reason: Reason, text: String) -> NewEvent {
    let at = clock::now();
    NewEvent { reason, text, at }
}

fn started(drain: Drain) -> NewEvent {
    let longest = (drain.deadline - drain.began).as_secs_f64();
    let text = format!(
        "Waiting for the work in flight, for at most {longest:.0} s; started by: {}",
        drain.trigger.name()
    );
    new_event(Reason::DrainStarted, text)
}

/// The Event of a verdict. That a drain was undone shows by what comes next.
fn ended(verdict: &Verdict) -> Option<NewEvent> {
    let reason = match verdict.outcome {
        Outcome::Drained | Outcome::AppGone | Outcome::Persistent | Outcome::HandedOver => {
            Reason::Drained
        }
        Outcome::Deadline => Reason::DrainDeadlineExceeded,
        Outcome::Released => Reason::DrainReleased,
        Outcome::Blind => Reason::DrainBlind,
        Outcome::Stuck => Reason::DrainStuck,
        Outcome::Undone => return None,
    };
    Some(new_event(
        reason,
        report::line(verdict, Aftermath::default()),
    ))
}

/// The Event of what follows a drain: the more important one, where there are two.
fn over(cut: u64, handed_over: bool, serving: bool) -> Option<NewEvent> {
    match (cut, serving) {
        (0, false) => None,
        (0, true) => Some(new_event(
            Reason::Reopened,
            "The pod serves again".to_owned(),
        )),
        (cut, _) => {
            let again = if serving {
                "; the pod serves again"
            } else {
                ""
            };
            let what = match cut {
                1 => "A request was cut off: its connection".to_owned(),
                _ => format!("{cut} requests were cut off: their connections"),
            };
            let why = match handed_over {
                true => format!("; {NOT_GRACEFUL}"),
                false => String::new(),
            };
            let text = format!("{what} ended without an answer after the drain{again}{why}");
            Some(new_event(Reason::RequestsCut, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Deletion, Probes};

    const SECOND: Duration = Duration::from_secs(1);

    fn pod() -> OwnPod {
        OwnPod {
            deletion: None,
            grace: 30 * SECOND,
            reason: None,
            probes: Probes::default(),
            app_is_stopped: false,
        }
    }

    #[test]
    fn a_deletion_means_that_the_pod_is_going_and_grants_what_it_says() {
        let now = clock::now();
        let deleted = OwnPod {
            deletion: Some(Deletion {
                granted: 8 * SECOND,
                deadline: now + 3600 * SECOND, // A clock that is an hour off.
            }),
            reason: Some("EvictionByEvictionAPI".to_owned()),
            ..pod()
        };
        for going in [false, true] {
            let facts = pod_facts(deleted.clone(), going, now, Duration::ZERO);
            assert!(facts.going);
            assert_eq!(facts.granted, Some(8 * SECOND));
            assert_eq!(facts.reason.as_deref(), Some("EvictionByEvictionAPI"));
        }
    }

    #[test]
    fn a_pod_that_goes_and_was_not_deleted_is_the_kubelets_doing() {
        let now = clock::now();
        let restart = pod_facts(pod(), false, now, SECOND);
        assert_eq!((restart.going, restart.reason), (false, None));
        assert_eq!(restart.granted, Some(30 * SECOND));
        let evicted = pod_facts(pod(), true, now, SECOND);
        assert_eq!(evicted.reason.as_deref(), Some(BY_KUBELET));
    }

    #[test]
    fn what_follows_a_drain_is_at_most_one_event() {
        assert!(over(0, false, false).is_none());
        assert_eq!(over(0, false, true).unwrap().reason, Reason::Reopened);
        let cut = over(3, false, true).unwrap();
        assert_eq!(cut.reason, Reason::RequestsCut);
        assert!(cut.text.starts_with("3 requests") && cut.text.ends_with("serves again"));
        let cut = over(1, true, false).unwrap();
        assert!(
            cut.text.contains("does not finish its work on SIGTERM"),
            "{}",
            cut.text
        );
    }
}
