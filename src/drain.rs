//! The drain: which phase the pod is in, when a drain is over, and who is told.
//!
//! One task, the [`Owner`], holds all of it. Each phase is a method that runs until the phase is over and says what
//! comes next; whoever else is concerned holds a [`Handle`], which can ask and watch, and takes [`Event`]s. Nothing here
//! knows of HTTP or of Kubernetes: work is counted by a function that the owner is given.

mod decision;
mod reads;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::config::{self, ConfigErrors};
use decision::{Decision, Facts, SourceHistory, Traffic, decide};
use reads::Reads;
pub use reads::pause;

/// The shortest time between two lines about a drain that goes on.
const PROGRESS: Duration = Duration::from_secs(5);

/// How long a sidecar that is told to stop when the time is up stays to see its app killed, and whom that cuts off. The
/// kubelet gives every container two seconds of its own (`minimumGracePeriodInSeconds` in
/// pkg/kubelet/kuberuntime/kuberuntime_container.go).
const LAST_LOOK: Duration = Duration::from_millis(500);

/// The least time between two reads while serving, where the sidecar has to see its app end.
const EXIT_INTERVAL: Duration = Duration::from_secs(1);

/// Flags that say when a drain is over.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "The drain")]
pub struct Args {
    /// At or below this many requests in flight the app counts as drained
    #[arg(long, value_name = "N", default_value = "0")]
    pub max_inflight: String,

    /// Never answer the hook sooner: routes need time to change
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub min_wait: String,

    /// How long quiet must last before it counts, at least
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub quiet_period: String,

    /// And at most, however seldom requests arrive
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub max_quiet: String,

    /// The pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub grace_period: String,

    /// Kept back from the grace period for the app's own stop
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub reserve: String,

    /// A tighter bound than grace period minus reserve
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,

    /// When readiness fails: now, after=10s (that long after the drain began), never
    #[arg(long, value_name = "POLICY", default_value = "now")]
    pub readiness: String,

    /// What an unreadable source means: wait (busy until the deadline), window=20s (go on after that long), proceed
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    pub when_blind: String,

    /// The least time between two reads of a source; it is read at most 5 % of the time
    #[arg(long, value_name = "DURATION", default_value = "100ms")]
    pub poll_interval: String,

    /// End when the app has ended by itself (all it listens on has refused for max-quiet): for an ordinary sidecar in a
    /// Job
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true
    )]
    pub exit_with_app: bool,
}

/// When a drain is over, and what readiness says meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub max_inflight: f64,
    pub min_wait: Duration,
    pub quiet_period: Duration,
    pub max_quiet: Duration,
    pub grace_period: Duration,
    /// Kept back from the grace period.
    pub reserve: Duration,
    /// The longest a drain may take, whatever the grace period is.
    pub timeout: Option<Duration>,
    pub readiness: Readiness,
    pub when_blind: WhenBlind,
    pub poll_interval: Duration,
    /// End when the app has ended by itself.
    pub exit_with_app: bool,
}

/// When readiness fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The moment a drain begins.
    Now,
    /// That long after it began.
    After(Duration),
    /// Not because of a drain.
    Never,
}

/// What an unreadable source means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBlind {
    /// Busy.
    Wait,
    /// Busy, until it has been unreadable for this long.
    Window(Duration),
    /// Quiet.
    Proceed,
}

impl Args {
    /// Checks the flags, each and together.
    pub fn validate(&self, errors: &mut ConfigErrors) -> Policy {
        let max_inflight = self
            .max_inflight
            .parse::<u32>()
            .map_err(|_| "it is not a whole number from 0 up; write 0");
        let readiness = match self.readiness.as_str() {
            "now" => Ok(Readiness::Now),
            "never" => Ok(Readiness::Never),
            other => with_duration(other, "after")
                .map(Readiness::After)
                .ok_or("write now, after=10s or never"),
        };
        let when_blind = match self.when_blind.as_str() {
            "wait" => Ok(WhenBlind::Wait),
            "proceed" => Ok(WhenBlind::Proceed),
            other => with_duration(other, "window")
                .map(WhenBlind::Window)
                .ok_or("write wait, window=20s or proceed"),
        };
        let grace_period = errors.positive_duration("grace-period", &self.grace_period);
        let reserve = errors.duration("reserve", &self.reserve);
        if !grace_period.is_zero() && reserve >= grace_period {
            let message = format!(
                "it leaves nothing of --grace-period {}; write less",
                self.grace_period
            );
            errors.add("reserve", &self.reserve, message);
        }
        let quiet_period = errors.duration("quiet-period", &self.quiet_period);
        let max_quiet = errors.duration("max-quiet", &self.max_quiet);
        if max_quiet < quiet_period {
            let message = format!(
                "it is less than --quiet-period {}; write as much or more",
                self.quiet_period
            );
            errors.add("max-quiet", &self.max_quiet, message);
        }
        let timeout = self
            .timeout
            .as_ref()
            .map(|timeout| errors.positive_duration("timeout", timeout));
        Policy {
            max_inflight: f64::from(
                errors
                    .check("max-inflight", &self.max_inflight, max_inflight)
                    .unwrap_or(0),
            ),
            min_wait: errors.duration("min-wait", &self.min_wait),
            quiet_period,
            max_quiet,
            grace_period,
            reserve,
            timeout,
            readiness: errors
                .check("readiness", &self.readiness, readiness)
                .unwrap_or(Readiness::Now),
            when_blind: errors
                .check("when-blind", &self.when_blind, when_blind)
                .unwrap_or(WhenBlind::Wait),
            poll_interval: errors.positive_duration("poll-interval", &self.poll_interval),
            exit_with_app: self.exit_with_app,
        }
    }
}

impl Policy {
    /// The longest that a drain may take, as far as the flags know.
    pub fn budget(&self) -> Duration {
        self.budget_of(self.grace_period)
    }

    /// The longest that a drain may take of a grace period.
    ///
    /// Of one that is shorter than the flags say, the app keeps no larger part than they give it, or half: a reserve of
    /// 5 s must not leave a pod that is deleted with `--grace-period=5` without any drain.
    pub fn budget_of(&self, granted: Duration) -> Duration {
        let by_flags = self.reserve.as_secs_f64() / self.grace_period.as_secs_f64();
        let part = if by_flags > 0.5 {
            by_flags.min(1.0)
        } else {
            0.5
        };
        let reserve = self.reserve.min(granted.mul_f64(part));
        let budget = granted.saturating_sub(reserve);
        self.timeout.map_or(budget, |timeout| budget.min(timeout))
    }
}

/// The duration of `WORD=DURATION`.
fn with_duration(text: &str, word: &str) -> Option<Duration> {
    config::duration(text.strip_prefix(word)?.strip_prefix('=')?).ok()
}

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

/// What makes a drain start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The app container's preStop hook: the container stops, for good or to be restarted.
    AppHook,
    /// The sidecar's own preStop hook: the pod is going.
    SelfHook,
    /// A SIGTERM to the sidecar: the pod is going.
    Signal,
    /// Somebody asked for it.
    Manual,
}

impl Trigger {
    /// Its name in verdict and log.
    pub fn name(self) -> &'static str {
        match self {
            Trigger::AppHook => "app hook",
            Trigger::SelfHook => "self hook",
            Trigger::Signal => "signal",
            Trigger::Manual => "manual",
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
    /// Somebody ended the waiting.
    Released,
    /// The app has stopped listening.
    AppGone,
    /// A source was unreadable, and the policy says to go on.
    Blind,
    /// Only clients that keep their connections were left.
    Persistent,
    /// Somebody undid the drain.
    Undone,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 7] = [
        Outcome::Drained,
        Outcome::Deadline,
        Outcome::Released,
        Outcome::AppGone,
        Outcome::Blind,
        Outcome::Persistent,
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
            Outcome::Undone => "undone",
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: String,
    /// The count is of connections that are busy, and not of requests.
    pub connections: bool,
}

/// What one read of a source tells the drain.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    Count(f64),
    /// No count, for whatever reason. It is not zero.
    Unknown,
    /// Nothing listens any more where something used to.
    Gone,
}

/// Reads the source of that index once, when it is polled. It may take as long as it likes: it is dropped when no longer
/// needed.
pub type ReadCount = Arc<dyn Fn(usize) -> BoxFuture<'static, Reading> + Send + Sync>;

/// Looks at the traffic of the drain that began then, as of when routes are known to have changed, if they are; nothing
/// where it cannot be seen. It looks when it is polled, and answers within a second or two.
pub type ReadTraffic = Arc<
    dyn Fn(Instant, Option<Instant>) -> BoxFuture<'static, Option<TrafficSnapshot>> + Send + Sync,
>;

/// Ends when no Service sends anybody here any more; false where nobody can say when that is. It may be dropped before.
pub type EndpointsLeft = Arc<dyn Fn() -> BoxFuture<'static, bool> + Send + Sync>;

/// What one look at the traffic on the app's ports saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficSnapshot {
    /// Connections made since the drain began that brought something.
    pub arrivals: u64,
    /// When the last of them was seen.
    pub last_arrival: Option<Instant>,
    /// Connections that brought something and never got an answer.
    pub unanswered: u64,
    /// Connections on which somebody waits for an answer.
    pub waiting: u64,
    /// Those, and the ones that moved bytes a moment ago.
    pub active: u64,
    /// Connections that the app holds, idle ones too.
    pub open: u64,
    /// Something listens on one of the ports.
    pub listens: bool,
    /// Of the requests in flight when routes changed, those that have not been seen to end. None before that.
    pub held: Option<u64>,
}

impl TrafficSnapshot {
    /// Nobody is left who could answer.
    pub fn is_deserted(&self) -> bool {
        !self.listens && self.open == 0
    }
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
    /// Connections that arrived; none where nobody saw.
    pub arrivals: Option<u64>,
    /// Clients that kept using their connections, where these were all that was left.
    pub persistent: Option<u64>,
    /// Why the pod has to go, where somebody said.
    pub reason: Option<Arc<str>>,
}

/// What somebody else says of the drain that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodFacts {
    /// The pod is going, and not only its app's container.
    pub going: bool,
    /// The pod's grace period, from the first hook or SIGTERM on.
    pub granted: Option<Duration>,
    /// Why the pod has to go.
    pub reason: Option<Arc<str>>,
}

/// What everybody may know. It changes as a whole.
#[derive(Debug, Clone)]
pub struct State {
    pub phase: Phase,
    /// When the phase began.
    pub since: Instant,
    /// The drain that runs, or the last one that did.
    pub drain: Option<Drain>,
    /// The pod is going, and not only its app's container.
    pub going: bool,
    /// How the last drain went; none while one runs.
    pub verdict: Option<Arc<Verdict>>,
}

/// When a drain began and by when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    pub trigger: Trigger,
    pub began: Instant,
    pub deadline: Instant,
    /// By then the kubelet has killed the app, if it stops it at all.
    pub killed: Instant,
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

/// What happened, in order, for whoever has to tell others.
#[derive(Debug, Clone)]
pub enum Event {
    /// A drain began.
    Began(Drain),
    /// Of the drain that runs, the first sign that the app has to stop: its beginning, or later where that was by hand.
    Stopping(Drain),
    /// The drain that runs has another deadline now.
    Bounded(Drain),
    /// A drain ended.
    Ended(Drain, Arc<Verdict>),
    /// The pod serves again.
    Serving,
}

/// Why what was asked is not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The pod is going: nothing brings it back.
    Going,
    /// The kubelet waits to stop the app's container: an answer to its hook now would cut requests off.
    Stopping,
    /// No drain runs.
    NotDraining,
    /// The sidecar itself is ending.
    Ending,
}

#[derive(Debug)]
enum Command {
    Drain {
        trigger: Trigger,
        caller: Caller,
    },
    Undo {
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Release {
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    PodFacts {
        /// Which drain it is about.
        began: Instant,
        pod: PodFacts,
    },
}

/// Who asked for a drain.
#[derive(Debug)]
struct Caller {
    /// Told, by its end, that the drain runs.
    joined: oneshot::Sender<()>,
    verdict: oneshot::Sender<Arc<Verdict>>,
}

impl Caller {
    fn join(self) -> oneshot::Sender<Arc<Verdict>> {
        answer(self.joined, ());
        self.verdict
    }
}

/// Asks the owner, and watches what it does.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

/// The verdict of a drain that may still run.
pub type Pending = oneshot::Receiver<Arc<Verdict>>;

impl Handle {
    /// What is known now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Starts a drain or joins the one that runs, and returns as soon as that is done. It goes on whether or not anybody
    /// waits for the verdict.
    pub async fn drain(&self, trigger: Trigger) -> Pending {
        let (joined, has_joined) = oneshot::channel();
        let (verdict, pending) = oneshot::channel();
        // Where the owner has ended, both channels close, which is the answer.
        let _ = self
            .commands
            .send(Command::Drain {
                trigger,
                caller: Caller { joined, verdict },
            })
            .await;
        let _ = has_joined.await;
        pending
    }

    /// Undoes a drain: serving again.
    ///
    /// # Errors
    /// [`Refusal::Going`] and [`Refusal::Stopping`] where it is too late.
    pub async fn undo(&self) -> Result<(), Refusal> {
        self.ask(|reply| Command::Undo { reply }).await
    }

    /// Ends the waiting of the drain that runs.
    ///
    /// # Errors
    /// [`Refusal::NotDraining`] where none runs.
    pub async fn release(&self) -> Result<(), Refusal> {
        self.ask(|reply| Command::Release { reply }).await
    }

    /// Says something of the drain that began then. It is passed over once that one is history.
    pub async fn pod_facts(&self, began: Instant, pod: PodFacts) {
        let _ = self.commands.send(Command::PodFacts { began, pod }).await;
    }

    async fn ask(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), Refusal>>) -> Command,
    ) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        let _ = self.commands.send(command(reply)).await;
        answer.await.unwrap_or(Err(Refusal::Ending))
    }
}

/// Owns the phase. Made by [`new`], driven by [`Owner::run`].
pub struct Owner {
    policy: Policy,
    sources: Vec<Source>,
    count: ReadCount,
    look: Option<ReadTraffic>,
    leave: Option<EndpointsLeft>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
    events: mpsc::UnboundedSender<Event>,
    /// The sidecar has been told to stop.
    signalled: bool,
    /// Somebody wants the pod drained until they say otherwise.
    held: bool,
}

/// A drain's owner, its handle and what will happen in it. `sources` are what `count` counts; `look` looks at
/// the traffic, where that can be done; `leave` tells when Services send nobody any more, where that is to be awaited.
pub fn new(
    policy: Policy,
    sources: Vec<Source>,
    count: ReadCount,
    look: Option<ReadTraffic>,
    leave: Option<EndpointsLeft>,
) -> (Owner, Handle, mpsc::UnboundedReceiver<Event>) {
    let (commands, asked) = mpsc::channel(64);
    let (events, happened) = mpsc::unbounded_channel();
    let (state, watched) = watch::channel(State {
        phase: Phase::Serving,
        since: Instant::now(),
        drain: None,
        going: false,
        verdict: None,
    });
    let owner = Owner {
        policy,
        sources,
        count,
        look,
        leave,
        commands: asked,
        state,
        events,
        signalled: false,
        held: false,
    };
    (
        owner,
        Handle {
            commands,
            state: watched,
        },
        happened,
    )
}

/// What comes after a phase.
enum Next {
    Serve,
    Drain(Trigger, Caller),
    Rest(Drain, Arc<Verdict>),
    Reopen(Drain, Arc<Verdict>),
    End,
}

impl Owner {
    /// Goes from phase to phase, until the sidecar has been told to stop and nothing needs it any more.
    pub async fn run(mut self) {
        let mut next = Next::Serve;
        loop {
            next = match next {
                Next::Serve => self.serving().await,
                Next::Drain(trigger, caller) => self.draining(trigger, caller).await,
                Next::Rest(drain, verdict) => self.drained(drain, verdict).await,
                Next::Reopen(drain, verdict) => self.reopening(drain, verdict).await,
                Next::End => return,
            }
        }
    }

    /// Serves until somebody wants a drain. No timer runs, unless the sidecar has to see its app end.
    async fn serving(&mut self) -> Next {
        let mut reads = self.policy.exit_with_app.then(|| self.reads());
        let mut histories = self.histories(Instant::now());
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return Next::End,
                    Some(Command::Drain { trigger, caller }) => return Next::Drain(trigger, caller),
                    Some(Command::Undo { reply }) => answer(reply, Ok(())),
                    Some(Command::Release { reply }) => answer(reply, Err(Refusal::NotDraining)),
                    Some(Command::PodFacts { .. }) => {}
                },
                read = next_of(&mut reads) => {
                    histories[read.source].take(&read, self.policy.max_inflight);
                    if histories.iter().all(|history| history.is_gone_for(self.policy.max_quiet)) {
                        info!("the app has ended by itself, and the sidecar ends with it");
                        return Next::End;
                    }
                    if let Some(reads) = &mut reads {
                        let least = self.policy.poll_interval.max(EXIT_INTERVAL);
                        reads.again((self.count)(read.source), &read, least, None);
                    }
                }
            }
        }
    }

    /// Waits for the work to be done, by the deadline at the latest.
    async fn draining(&mut self, trigger: Trigger, caller: Caller) -> Next {
        let began = Instant::now();
        let mut drain = Drain {
            trigger,
            began,
            deadline: began + self.policy.budget(),
            killed: began + self.policy.grace_period,
        };
        // When the first hook or SIGTERM came.
        let mut stopping = self.note(trigger).then_some(began);
        let mut reason = None;
        self.state.send_modify(|state| {
            state.drain = Some(drain);
            state.verdict = None;
        });
        self.enter(Phase::Draining);
        let mut waiting = vec![caller.join()];
        self.tell(Event::Began(drain));
        if stopping.is_some() {
            self.tell(Event::Stopping(drain));
        }
        info!(
            trigger = trigger.name(),
            budget_seconds = self.policy.budget().as_secs_f64(),
            "draining"
        );

        let mut facts = Facts {
            began,
            deadline: drain.deadline,
            signalled: self.signalled,
            left: self.leave.is_none().then_some(began),
            sources: self.histories(began),
            traffic: match self.look {
                Some(_) => Traffic::Awaited,
                None => Traffic::Unwatched,
            },
        };
        let look = self.look.clone();
        let look = |settled| look.as_ref().map(|look| look(began, settled));
        let mut looks = match look(None) {
            Some(first) => Reads::start_one(first),
            None => Reads::none(),
        };
        let mut reads = self.reads();
        let mut leaving = self.leave.as_ref().map(|leave| leave());
        let mut progress = began + PROGRESS;
        let (outcome, undo) = loop {
            let now = Instant::now();
            let until = match decide(&self.policy, &facts, now) {
                Decision::End(outcome) => break (outcome, None),
                Decision::Wait(until) => until,
            };
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return Next::End,
                    Some(Command::Drain { trigger, caller }) => {
                        if self.note(trigger) && stopping.is_none() {
                            // The time before was somebody else's, and not the kubelet's.
                            let since = Instant::now();
                            stopping = Some(since);
                            self.tell(Event::Stopping(drain));
                            // A drain by hand need not have kept anybody away, nor asked Services of a pod that goes.
                            leaving = self.leave.as_ref().map(|leave| leave());
                            facts.left = leaving.is_none().then_some(since);
                            self.bound(&mut drain, since, self.policy.grace_period);
                            facts.deadline = drain.deadline;
                        }
                        facts.signalled = self.signalled;
                        waiting.retain(|waiter| !waiter.is_closed());
                        waiting.push(caller.join());
                    }
                    Some(Command::Undo { reply }) if self.going() => answer(reply, Err(Refusal::Going)),
                    Some(Command::Undo { reply }) if stopping.is_some() => answer(reply, Err(Refusal::Stopping)),
                    Some(Command::Undo { reply }) => break (Outcome::Undone, Some(reply)),
                    Some(Command::Release { reply }) => {
                        answer(reply, Ok(()));
                        break (Outcome::Released, None);
                    }
                    Some(Command::PodFacts { began: of, pod }) if of == began => {
                        if let (Some(granted), Some(since)) = (pod.granted, stopping) {
                            self.bound(&mut drain, since, granted);
                            facts.deadline = drain.deadline;
                        }
                        if pod.going {
                            self.note_going();
                        }
                        reason = pod.reason.or(reason);
                    }
                    Some(Command::PodFacts { .. }) => {}
                },
                known = ended(&mut leaving) => {
                    leaving = None;
                    facts.left = Some(if known { Instant::now() } else { stopping.unwrap_or(began) });
                }
                read = reads.next() => {
                    let open_until = facts.open_until(&self.policy);
                    let history = &mut facts.sources[read.source];
                    history.take(&read, self.policy.max_inflight);
                    let wanted = history.settles_at(&self.policy, open_until);
                    reads.again((self.count)(read.source), &read, self.policy.poll_interval, wanted);
                }
                seen = looks.next() => {
                    facts.look(&self.policy, seen.began, seen.seen);
                    if let Some(next) = look(facts.settled()) {
                        let wanted = facts.look_wanted(&self.policy);
                        looks.again(next, &seen, self.policy.poll_interval, wanted);
                    }
                }
                () = sleep_until(until.min(progress)) => {
                    let now = Instant::now();
                    if now >= progress && now < drain.deadline {
                        progress = now + PROGRESS;
                        let inflight = facts.inflight().map_or_else(|| "unknown".to_owned(), |n| n.to_string());
                        let left = drain.deadline - now;
                        let arrivals = facts.arrivals();
                        info!(inflight, arrivals, left_seconds = left.as_secs(), "still draining");
                    }
                }
            }
        };
        drop((reads, looks));

        let verdict = Arc::new(Verdict {
            outcome,
            took: began.elapsed(),
            inflight: facts.inflight(),
            trigger,
            going: self.going(),
            deadline: drain.deadline - began,
            sources: self
                .sources
                .iter()
                .map(|source| source.name.clone())
                .zip(facts.sources.iter().map(SourceHistory::count))
                .collect(),
            arrivals: facts.arrivals(),
            persistent: facts
                .sight()
                .filter(|_| outcome == Outcome::Persistent)
                .map(|sight| sight.active),
            reason,
        });
        let next = if self.going() {
            Next::Rest(drain, verdict.clone())
        } else if outcome == Outcome::Undone {
            self.held = false;
            Next::Serve
        } else if self.held {
            Next::Rest(drain, verdict.clone())
        } else {
            Next::Reopen(drain, verdict.clone())
        };
        log(&verdict);
        self.state
            .send_modify(|state| state.verdict = Some(verdict.clone()));
        self.tell(Event::Ended(drain, verdict.clone()));
        match &next {
            Next::Rest(..) => self.enter(Phase::Drained),
            Next::Reopen(..) => self.enter(Phase::Reopening),
            _ => self.serve_again(),
        }
        // Last: whoever is answered may stop the app at once, and must see the phase that holds now.
        for waiter in waiting {
            answer(waiter, verdict.clone());
        }
        if let Some(reply) = undo {
            answer(reply, Ok(()));
        }
        next
    }

    /// Stays drained: for good where the pod is going, else until somebody undoes it or a new drain is due.
    async fn drained(&mut self, drain: Drain, verdict: Arc<Verdict>) -> Next {
        let mut reads = self.signalled.then(|| self.reads());
        let mut enough = drain.deadline;
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return Next::End,
                    Some(Command::Drain { trigger, caller }) => {
                        let known = self.going() || trigger == Trigger::Manual;
                        if !known {
                            return Next::Drain(trigger, caller);
                        }
                        self.note(trigger);
                        answer(caller.join(), verdict.clone());
                        if self.signalled && reads.is_none() {
                            reads = Some(self.reads());
                            enough = enough.max(Instant::now() + LAST_LOOK);
                        }
                    }
                    Some(Command::Undo { reply }) if self.going() => answer(reply, Err(Refusal::Going)),
                    Some(Command::Undo { reply }) => {
                        self.held = false;
                        self.serve_again();
                        answer(reply, Ok(()));
                        return Next::Serve;
                    }
                    Some(Command::Release { reply }) => answer(reply, Err(Refusal::NotDraining)),
                    Some(Command::PodFacts { began, pod }) => {
                        if pod.going && began == drain.began {
                            self.note_going();
                        }
                    }
                },
                read = next_of(&mut reads) => {
                    if read.seen == Reading::Gone && self.is_deserted(drain).await {
                        info!("the app is gone, and the sidecar follows");
                        return Next::End;
                    }
                    if let Some(reads) = &mut reads {
                        reads.again((self.count)(read.source), &read, self.policy.poll_interval, None);
                    }
                }
                () = sleep_until(enough), if self.signalled => {
                    info!("the time is up, and the sidecar ends");
                    return Next::End;
                }
            }
        }
    }

    /// Waits for the app to answer again.
    ///
    /// The hook was answered, but the old process may answer reads for as long as it takes to stop. So it has come back
    /// when it was seen to be gone first, or once the grace period is over, by when the kubelet has killed it.
    async fn reopening(&mut self, drain: Drain, verdict: Arc<Verdict>) -> Next {
        let mut was_gone = verdict.outcome == Outcome::AppGone;
        let mut gone = vec![was_gone; self.sources.len()];
        let mut reads = self.reads();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    None => return Next::End,
                    Some(Command::Drain { trigger, caller }) => return Next::Drain(trigger, caller),
                    Some(Command::Undo { reply }) => {
                        self.serve_again();
                        answer(reply, Ok(()));
                        return Next::Serve;
                    }
                    Some(Command::Release { reply }) => answer(reply, Err(Refusal::NotDraining)),
                    Some(Command::PodFacts { began, pod }) => {
                        if pod.going && began == drain.began {
                            self.note_going();
                            self.enter(Phase::Drained);
                            return Next::Rest(drain, verdict);
                        }
                    }
                },
                read = reads.next() => {
                    gone[read.source] = read.seen == Reading::Gone;
                    was_gone |= gone[read.source];
                    if !gone.contains(&true) && (was_gone || read.began >= drain.killed) {
                        self.serve_again();
                        return Next::Serve;
                    }
                    reads.again((self.count)(read.source), &read, self.policy.poll_interval, None);
                }
            }
        }
    }

    /// Whether nobody is left at the app's ports, as far as anybody sees: an app that ends what it has begun listens no
    /// more.
    async fn is_deserted(&self, drain: Drain) -> bool {
        match &self.look {
            Some(look) => look(drain.began, None)
                .await
                .is_none_or(|sight| sight.is_deserted()),
            None => true,
        }
    }

    /// What is known of every source: nothing yet.
    fn histories(&self, now: Instant) -> Vec<SourceHistory> {
        (self.sources.iter())
            .map(|source| SourceHistory::new(now, source.connections))
            .collect()
    }

    /// Reads of every source, from now on.
    fn reads(&self) -> Reads<Reading> {
        Reads::start(self.sources.len(), |source| (self.count)(source))
    }

    /// Takes in what a trigger says, and whether it means that the app's container stops.
    fn note(&mut self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::AppHook => {}
            Trigger::Manual => self.held = true,
            Trigger::SelfHook | Trigger::Signal => {
                self.signalled |= trigger == Trigger::Signal;
                self.note_going();
            }
        }
        trigger != Trigger::Manual
    }

    fn note_going(&self) {
        self.state.send_modify(|state| state.going = true);
    }

    /// Bounds a drain by the grace period that runs since then, and says so if that is news.
    fn bound(&self, drain: &mut Drain, since: Instant, granted: Duration) {
        drain.killed = since + granted;
        let deadline = since + self.policy.budget_of(granted);
        if deadline == drain.deadline {
            return;
        }
        drain.deadline = deadline;
        self.state.send_modify(|state| state.drain = Some(*drain));
        self.tell(Event::Bounded(*drain));
        let budget_seconds = (deadline - drain.began).as_secs_f64();
        info!(budget_seconds, "the deadline has changed");
    }

    fn going(&self) -> bool {
        self.state.borrow().going
    }

    fn enter(&self, phase: Phase) {
        self.state.send_modify(|state| {
            state.phase = phase;
            state.since = Instant::now();
        });
    }

    fn serve_again(&self) {
        info!(from = self.state.borrow().phase.name(), "serving");
        self.enter(Phase::Serving);
        self.tell(Event::Serving);
    }

    fn tell(&self, event: Event) {
        // Nobody has to listen.
        let _ = self.events.send(event);
    }
}

fn log(verdict: &Verdict) {
    let (outcome, trigger, going) = (
        verdict.outcome.name(),
        verdict.trigger.name(),
        verdict.going,
    );
    let inflight = verdict
        .inflight
        .map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let took_seconds = verdict.took.as_secs_f64();
    let (arrivals, persistent) = (verdict.arrivals, verdict.persistent);
    let reason = verdict.reason.as_deref();
    match verdict.outcome {
        Outcome::Deadline | Outcome::Blind | Outcome::Persistent => warn!(
            outcome,
            took_seconds, inflight, trigger, going, arrivals, persistent, reason, "drain ended"
        ),
        _ => info!(
            outcome,
            took_seconds, inflight, trigger, going, arrivals, reason, "drain ended"
        ),
    }
    if verdict.outcome == Outcome::Persistent {
        warn!(
            "clients keep using connections from before the drain, and only the app can tell them to go: let it answer \
             with Connection: close while it drains, see --notify and --drain-file"
        );
    }
}

/// Answers somebody who may have gone.
fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}

/// The end of what may not have begun; then it never comes.
async fn ended<T>(what: &mut Option<BoxFuture<'static, T>>) -> T {
    match what {
        Some(what) => what.await,
        None => std::future::pending().await,
    }
}

async fn next_of(reads: &mut Option<Reads<Reading>>) -> reads::Read<Reading> {
    match reads {
        Some(reads) => reads.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
