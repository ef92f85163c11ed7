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

use crate::mistake::{self, Mistakes};
use decision::{Decision, Facts, Track, Traffic, decide};
use reads::Reads;
pub use reads::pause;

/// The shortest time between two lines about a drain that goes on.
const PROGRESS: Duration = Duration::from_secs(5);

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
}

/// When a drain is over, and what readiness says meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub max_inflight: f64,
    pub min_wait: Duration,
    pub quiet_period: Duration,
    pub max_quiet: Duration,
    pub grace_period: Duration,
    /// The longest a drain may take.
    pub budget: Duration,
    pub readiness: Readiness,
    pub when_blind: WhenBlind,
    pub poll_interval: Duration,
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
    pub fn settle(&self, mistakes: &mut Mistakes) -> Policy {
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
        let grace_period = mistakes.positive_duration("grace-period", &self.grace_period);
        let reserve = mistakes.duration("reserve", &self.reserve);
        if !grace_period.is_zero() && reserve >= grace_period {
            let message = format!(
                "it leaves nothing of --grace-period {}; write less",
                self.grace_period
            );
            mistakes.add("reserve", &self.reserve, message);
        }
        let budget = grace_period.saturating_sub(reserve);
        let quiet_period = mistakes.duration("quiet-period", &self.quiet_period);
        let max_quiet = mistakes.duration("max-quiet", &self.max_quiet);
        if max_quiet < quiet_period {
            let message = format!(
                "it is less than --quiet-period {}; write as much or more",
                self.quiet_period
            );
            mistakes.add("max-quiet", &self.max_quiet, message);
        }
        let timeout = self
            .timeout
            .as_ref()
            .map(|timeout| mistakes.positive_duration("timeout", timeout));
        Policy {
            max_inflight: f64::from(
                mistakes
                    .check("max-inflight", &self.max_inflight, max_inflight)
                    .unwrap_or(0),
            ),
            min_wait: mistakes.duration("min-wait", &self.min_wait),
            quiet_period,
            max_quiet,
            grace_period,
            budget: timeout.map_or(budget, |timeout| budget.min(timeout)),
            readiness: mistakes
                .check("readiness", &self.readiness, readiness)
                .unwrap_or(Readiness::Now),
            when_blind: mistakes
                .check("when-blind", &self.when_blind, when_blind)
                .unwrap_or(WhenBlind::Wait),
            poll_interval: mistakes.positive_duration("poll-interval", &self.poll_interval),
        }
    }
}

/// The duration of `WORD=DURATION`.
fn with_duration(text: &str, word: &str) -> Option<Duration> {
    mistake::duration(text.strip_prefix(word)?.strip_prefix('=')?).ok()
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
pub type Count = Arc<dyn Fn(usize) -> BoxFuture<'static, Reading> + Send + Sync>;

/// Looks at the traffic of the drain that began then, as of when routes are known to have changed, if they are; nothing
/// where it cannot be seen. It looks when it is polled, and answers within a second or two.
pub type Look =
    Arc<dyn Fn(Instant, Option<Instant>) -> BoxFuture<'static, Option<Sight>> + Send + Sync>;

/// What one look at the traffic on the app's ports saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sight {
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
    /// Of the requests in flight when routes changed, those that have not been seen to end. None before that.
    pub held: Option<u64>,
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
    Began,
    /// A drain ended.
    Ended(Arc<Verdict>),
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
    count: Count,
    look: Option<Look>,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<State>,
    events: mpsc::UnboundedSender<Event>,
    /// The sidecar has been told to stop.
    signalled: bool,
    /// Somebody wants the pod drained until they say otherwise.
    held: bool,
}

/// A drain's owner, its handle and what will happen in it. `sources` are what `count` counts; `look` looks at
/// the traffic, where that can be done.
pub fn new(
    policy: Policy,
    sources: Vec<Source>,
    count: Count,
    look: Option<Look>,
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
    Reopen(Drain, Outcome),
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
                Next::Reopen(drain, outcome) => self.reopening(drain, outcome).await,
                Next::End => return,
            }
        }
    }

    /// Serves until somebody wants a drain. No timer runs.
    async fn serving(&mut self) -> Next {
        loop {
            match self.commands.recv().await {
                None => return Next::End,
                Some(Command::Drain { trigger, caller }) => return Next::Drain(trigger, caller),
                Some(Command::Undo { reply }) => answer(reply, Ok(())),
                Some(Command::Release { reply }) => answer(reply, Err(Refusal::NotDraining)),
            }
        }
    }

    /// Waits for the work to be done, by the deadline at the latest.
    async fn draining(&mut self, trigger: Trigger, caller: Caller) -> Next {
        let began = Instant::now();
        let drain = Drain {
            trigger,
            began,
            deadline: began + self.policy.budget,
        };
        let mut stopping = self.note(trigger);
        self.state.send_modify(|state| {
            state.drain = Some(drain);
            state.verdict = None;
        });
        self.enter(Phase::Draining);
        let mut waiting = vec![caller.join()];
        self.tell(Event::Began);
        info!(
            trigger = trigger.name(),
            budget_seconds = self.policy.budget.as_secs_f64(),
            "draining"
        );

        let mut facts = Facts {
            began,
            deadline: drain.deadline,
            signalled: self.signalled,
            sources: (self.sources.iter())
                .map(|source| Track::new(began, source.connections))
                .collect(),
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
                        stopping |= self.note(trigger);
                        facts.signalled = self.signalled;
                        waiting.retain(|waiter| !waiter.is_closed());
                        waiting.push(caller.join());
                    }
                    Some(Command::Undo { reply }) if self.going() => answer(reply, Err(Refusal::Going)),
                    Some(Command::Undo { reply }) if stopping => answer(reply, Err(Refusal::Stopping)),
                    Some(Command::Undo { reply }) => break (Outcome::Undone, Some(reply)),
                    Some(Command::Release { reply }) => {
                        answer(reply, Ok(()));
                        break (Outcome::Released, None);
                    }
                },
                read = reads.next() => {
                    let track = &mut facts.sources[read.source];
                    track.take(&read, self.policy.max_inflight);
                    let wanted = track.settles_at(&self.policy, began);
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
            deadline: self.policy.budget,
            sources: self
                .sources
                .iter()
                .map(|source| source.name.clone())
                .zip(facts.sources.iter().map(Track::count))
                .collect(),
            arrivals: facts.arrivals(),
            persistent: facts
                .sight()
                .filter(|_| outcome == Outcome::Persistent)
                .map(|sight| sight.active),
        });
        let next = if self.going() {
            Next::Rest(drain, verdict.clone())
        } else if outcome == Outcome::Undone {
            self.held = false;
            Next::Serve
        } else if self.held {
            Next::Rest(drain, verdict.clone())
        } else {
            Next::Reopen(drain, outcome)
        };
        log(&verdict);
        self.state
            .send_modify(|state| state.verdict = Some(verdict.clone()));
        self.tell(Event::Ended(verdict.clone()));
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
                },
                read = next_of(&mut reads) => {
                    if read.seen == Reading::Gone {
                        info!("the app is gone, and the sidecar follows");
                        return Next::End;
                    }
                    if let Some(reads) = &mut reads {
                        reads.again((self.count)(read.source), &read, self.policy.poll_interval, None);
                    }
                }
                () = sleep_until(drain.deadline), if self.signalled => {
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
    async fn reopening(&mut self, drain: Drain, outcome: Outcome) -> Next {
        let killed = drain.began + self.policy.grace_period;
        let mut was_gone = outcome == Outcome::AppGone;
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
                },
                read = reads.next() => {
                    gone[read.source] = read.seen == Reading::Gone;
                    was_gone |= gone[read.source];
                    if !gone.contains(&true) && (was_gone || read.began >= killed) {
                        self.serve_again();
                        return Next::Serve;
                    }
                    reads.again((self.count)(read.source), &read, self.policy.poll_interval, None);
                }
            }
        }
    }

    /// Reads of every source, from now on.
    fn reads(&self) -> Reads<Reading> {
        Reads::start(self.sources.len(), |source| (self.count)(source))
    }

    /// Takes in what a trigger says, and whether it means that the app's container stops.
    fn note(&mut self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::AppHook => return true,
            Trigger::Manual => self.held = true,
            Trigger::SelfHook | Trigger::Signal => {
                self.signalled |= trigger == Trigger::Signal;
                self.state.send_modify(|state| state.going = true);
            }
        }
        false
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
    match verdict.outcome {
        Outcome::Deadline | Outcome::Blind | Outcome::Persistent => warn!(
            outcome,
            took_seconds, inflight, trigger, going, arrivals, persistent, "drain ended"
        ),
        _ => info!(
            outcome,
            took_seconds, inflight, trigger, going, arrivals, "drain ended"
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

async fn next_of(reads: &mut Option<Reads<Reading>>) -> reads::Read<Reading> {
    match reads {
        Some(reads) => reads.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
