//! How other parts ask the drain's owner for something, and watch its state.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::{State, Trigger, Verdict};

/// Asks the owner, and watches what it does.
#[derive(Debug, Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<State>,
}

/// The verdict of a drain that may still run.
pub type Pending = oneshot::Receiver<Arc<Verdict>>;

/// What the pod's object says of the drain that runs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PodFacts {
    /// The pod is going, and not only its app's container.
    pub going: bool,
    /// The pod's grace period, from the first hook or SIGTERM on.
    pub granted: Option<Duration>,
    /// Why the pod has to go.
    pub reason: Option<Arc<str>>,
    /// None of the app's containers runs.
    pub app_is_stopped: bool,
}

/// Why the owner does not do what it was asked.
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

/// What the owner is asked to do.
#[derive(Debug)]
pub(super) enum Command {
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

/// The one that asked for a drain.
#[derive(Debug)]
pub(super) struct Caller {
    /// Told, by its end, that the drain runs.
    joined: oneshot::Sender<()>,
    verdict: oneshot::Sender<Arc<Verdict>>,
}

impl Handle {
    pub(super) fn new(commands: mpsc::Sender<Command>, state: watch::Receiver<State>) -> Self {
        Self { commands, state }
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Starts a drain or joins the one that runs, and returns as soon as that is done. The drain goes on whether or not
    /// the caller waits for the verdict.
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

    /// Tells the drain that began then what the pod's object says. It changes nothing once that drain is over.
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

impl Caller {
    /// Tells the caller that the drain runs, and keeps the way to its verdict.
    pub(super) fn join(self) -> oneshot::Sender<Arc<Verdict>> {
        answer(self.joined, ());
        self.verdict
    }
}

/// Answers a caller, which may have gone.
pub(super) fn answer<T>(reply: oneshot::Sender<T>, answer: T) {
    let _ = reply.send(answer);
}
