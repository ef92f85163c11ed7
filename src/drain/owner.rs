//! The owner of the phase: it goes from serving to draining, drained or reopening, and back.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::decision::SourceHistory;
use super::draining::Draining;
use super::handle::{Caller, Command, answer};
use super::reads::{Read, Reads};
use super::{
    AppEnd, Drain, EndpointsLeft, Event, Handle, Outcome, Phase, Policy, ReadCount, ReadTraffic,
    Reading, Refusal, Source, State, Trigger, Verdict,
};

/// How long a sidecar that is told to stop when the time is up stays to see its app killed, and which requests that
/// cuts off. The kubelet gives every container two seconds of its own (`minimumGracePeriodInSeconds` in
/// pkg/kubelet/kuberuntime/kuberuntime_container.go).
const FINAL_READ: Duration = Duration::from_millis(500);

/// What the kubelet gives a container after its hook at least, however little of the grace period is left.
const MINIMUM_GRACE: Duration = Duration::from_secs(2);

/// How long before the kubelet kills it an ordinary sidecar says that its app has not finished.
const KILL_MARGIN: Duration = Duration::from_secs(1);

/// The least time between two reads while serving, where the sidecar has to see its app end.
const EXIT_INTERVAL: Duration = Duration::from_secs(1);

/// Owns the phase. Made by [`new`], driven by [`Owner::run`].
pub struct Owner {
    pub(super) policy: Policy,
    pub(super) inputs: Inputs,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) state: watch::Sender<State>,
    events: mpsc::UnboundedSender<Event>,
    /// The sidecar has been told to stop.
    pub(super) signalled: bool,
    /// A drain was asked for by hand, and the pod stays drained until that is undone.
    pub(super) drained_by_hand: bool,
}

/// What a drain goes by.
pub struct Inputs {
    /// What `read_count` counts.
    pub sources: Vec<Source>,
    pub read_count: ReadCount,
    /// The names of the counters of requests that `read_counter` reads.
    pub counters: Vec<String>,
    pub read_counter: ReadCount,
    /// Looks at the traffic, where that can be done.
    pub read_traffic: Option<ReadTraffic>,
    /// Tells when Services send nothing here any more, where that is to be awaited.
    pub endpoints_left: Option<EndpointsLeft>,
}

#[cfg(test)]
impl Inputs {
    /// Nothing but sources.
    pub fn new(sources: Vec<Source>, read_count: ReadCount) -> Self {
        Self {
            sources,
            read_count: read_count.clone(),
            counters: Vec::new(),
            read_counter: read_count,
            read_traffic: None,
            endpoints_left: None,
        }
    }
}

/// A drain's owner, its handle, and the events of what happens.
pub fn new(policy: Policy, inputs: Inputs) -> (Owner, Handle, mpsc::UnboundedReceiver<Event>) {
    let (send_commands, commands) = mpsc::channel(64);
    let (events, receive_events) = mpsc::unbounded_channel();
    let (state, watch_state) = watch::channel(State {
        phase: Phase::Serving,
        since: Instant::now(),
        drain: None,
        going: false,
        waiting_for: None,
        verdict: None,
    });
    let owner = Owner {
        policy,
        inputs,
        commands,
        state,
        events,
        signalled: false,
        drained_by_hand: false,
    };
    let handle = Handle::new(send_commands, watch_state);
    (owner, handle, receive_events)
}

/// What comes after a phase.
pub(super) enum NextPhase {
    Serve,
    Drain(Trigger, Caller),
    Drained(PastDrain),
    Reopen(PastDrain),
    End,
}

/// A drain that is over, and how it went.
pub(super) struct PastDrain {
    pub drain: Drain,
    pub verdict: Arc<Verdict>,
    pub ended: Instant,
}

impl PastDrain {
    /// The app was handed its work, and its end is awaited.
    fn handed_over(&self) -> bool {
        self.verdict.outcome == Outcome::HandedOver
    }
}

impl Owner {
    /// Goes from phase to phase, until the sidecar has been told to stop and nothing needs it any more.
    pub async fn run(mut self) {
        let mut next = NextPhase::Serve;
        loop {
            next = match next {
                NextPhase::Serve => self.serving().await,
                NextPhase::Drain(trigger, caller) => {
                    Draining::start(&mut self, trigger, caller).run().await
                }
                NextPhase::Drained(past) => self.drained(past).await,
                NextPhase::Reopen(past) => self.reopening(past).await,
                NextPhase::End => return,
            }
        }
    }

    /// Serves until a drain is asked for. No timer runs, unless the sidecar has to see its app end.
    async fn serving(&mut self) -> NextPhase {
        let mut reads = self.policy.exit_with_app.then(|| self.start_reads());
        let mut histories: Vec<_> = (self.inputs.sources.iter())
            .map(|source| SourceHistory::new(Instant::now(), source))
            .collect();
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if let Some(next) = self.answer_between_drains(command, None) {
                        return next;
                    }
                }
                read = next_of(&mut reads) => {
                    histories[read.source].take(&read, self.policy.max_inflight);
                    if histories.iter().all(|history| history.is_gone_for(self.policy.max_quiet)) {
                        info!("the app has ended by itself, and the sidecar ends with it");
                        return NextPhase::End;
                    }
                    let pause = self.policy.poll_interval.max(EXIT_INTERVAL);
                    self.read_again(&mut reads, &read, pause);
                }
            }
        }
    }

    /// Stays drained: for good where the pod is going, else until that is undone or a new drain is due.
    async fn drained(&mut self, past: PastDrain) -> NextPhase {
        // An app that finishes its work is watched to its end.
        let mut app_ends = past.handed_over();
        let mut told_to_stop = self.signalled;
        let mut reads = (told_to_stop || app_ends).then(|| self.start_reads());
        let app_is_killed = self.killed_at(&past);
        let mut time_is_up = if app_ends {
            app_is_killed - KILL_MARGIN
        } else {
            past.drain.deadline
        };
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if let Some(next) = self.answer_between_drains(command, Some(&past)) {
                        return next;
                    }
                    if self.signalled && !std::mem::replace(&mut told_to_stop, self.signalled) {
                        reads.get_or_insert_with(|| self.start_reads());
                        time_is_up = time_is_up.max(Instant::now() + FINAL_READ);
                    }
                }
                read = next_of(&mut reads) => {
                    let gone = match read.seen {
                        Reading::Gone => true,
                        Reading::Absent => past.verdict.outcome == Outcome::AppGone,
                        Reading::Count(count) => count == 0.0 && self.listens_nowhere(read.source, past.drain).await,
                        Reading::Unknown => false,
                    };
                    if gone && self.app_is_gone(past.drain).await {
                        if std::mem::take(&mut app_ends) {
                            self.app_ended(&past, Instant::now() >= app_is_killed);
                        }
                        if self.signalled {
                            info!("the app is gone, and the sidecar follows");
                            return NextPhase::End;
                        }
                        reads = None;
                        continue;
                    }
                    self.read_again(&mut reads, &read, self.policy.poll_interval);
                }
                () = sleep_until(time_is_up), if self.signalled => {
                    if app_ends {
                        self.app_ended(&past, true);
                    }
                    info!("the time is up, and the sidecar ends");
                    return NextPhase::End;
                }
            }
        }
    }

    /// When the kubelet kills an app whose hook was answered: at the end of the grace period, but not sooner than 2 s after
    /// the answer.
    fn killed_at(&self, past: &PastDrain) -> Instant {
        past.drain.grace_ends.max(past.ended + MINIMUM_GRACE)
    }

    /// Says how an app ended that was handed its work.
    fn app_ended(&self, past: &PastDrain, killed: bool) {
        let took = past.ended.elapsed();
        let took_seconds = took.as_secs_f64();
        if killed {
            warn!(
                took_seconds,
                "the app had not finished its work by the end of the grace period, when the kubelet kills it; give the \
                 pod a longer terminationGracePeriodSeconds"
            );
        } else {
            info!(took_seconds, "the app has ended after the handover");
        }
        self.emit(Event::AppEnded(past.drain, AppEnd { took, killed }));
    }

    /// Waits for the app to answer again.
    ///
    /// The hook was answered, but the old process may answer reads for as long as it takes to stop. So it has come back
    /// when it was seen to be gone first, when another socket listens than at the drain's beginning, or once the grace
    /// period is over, by when the kubelet has killed it.
    async fn reopening(&mut self, past: PastDrain) -> NextPhase {
        let mut was_gone = past.verdict.outcome == Outcome::AppGone;
        let mut app_ends = past.handed_over();
        let mut gone = vec![was_gone; self.inputs.sources.len()];
        let mut reads = Some(self.start_reads());
        loop {
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    if let Some(next) = self.answer_between_drains(command, Some(&past)) {
                        return next;
                    }
                    if self.going() {
                        self.enter(Phase::Drained);
                        return NextPhase::Drained(past);
                    }
                }
                read = next_of(&mut reads) => {
                    gone[read.source] = matches!(read.seen, Reading::Gone | Reading::Absent);
                    was_gone |= gone[read.source];
                    if app_ends && gone[read.source] && self.app_is_gone(past.drain).await {
                        app_ends = false;
                        self.app_ended(&past, Instant::now() >= self.killed_at(&past));
                    }
                    let answers = !gone.contains(&true);
                    if answers
                        && (was_gone
                            || read.began >= past.drain.grace_ends
                            || self.listener_is_replaced(past.drain).await)
                    {
                        self.serve_again();
                        return NextPhase::Serve;
                    }
                    self.read_again(&mut reads, &read, self.policy.poll_interval);
                }
            }
        }
    }

    /// Does what a command asks while no drain runs, and says which phase it leads to, if to another. `past` is the
    /// drain that led to the present phase; none while serving. No command means that none can come any more.
    fn answer_between_drains(
        &mut self,
        command: Option<Command>,
        past: Option<&PastDrain>,
    ) -> Option<NextPhase> {
        match command {
            None => return Some(NextPhase::End),
            Some(Command::Drain { trigger, caller }) => {
                let drained = (past).filter(|_| self.state.borrow().phase == Phase::Drained);
                let still_holds = self.going() || trigger == Trigger::Manual;
                let Some(past) = drained.filter(|_| still_holds) else {
                    return Some(NextPhase::Drain(trigger, caller));
                };
                self.record_trigger(trigger);
                answer(caller.join(), past.verdict.clone());
            }
            Some(Command::Undo { reply }) if self.going() => answer(reply, Err(Refusal::Going)),
            Some(Command::Undo { reply }) => {
                let undone = past.map(|_| {
                    self.drained_by_hand = false;
                    self.serve_again();
                    NextPhase::Serve
                });
                answer(reply, Ok(()));
                return undone;
            }
            Some(Command::Release { reply }) => answer(reply, Err(Refusal::NotDraining)),
            Some(Command::PodFacts { began, pod }) => {
                if pod.going && past.is_some_and(|past| past.drain.began == began) {
                    self.record_going();
                }
            }
        }
        None
    }

    /// Whether the app has ended, as far as its ports show: an app that still finishes requests listens no more, but
    /// holds connections.
    async fn app_is_gone(&self, drain: Drain) -> bool {
        match &self.inputs.read_traffic {
            Some(read_traffic) => read_traffic(drain.began, None)
                .await
                .is_none_or(|snapshot| snapshot.app_is_gone()),
            None => true,
        }
    }

    /// Whether a source counts connections of an app that has no port to watch, as far as the kernel shows: there is
    /// nothing that could be seen to end.
    async fn listens_nowhere(&self, source: usize, drain: Drain) -> bool {
        match &self.inputs.read_traffic {
            Some(read_traffic) if self.inputs.sources[source].connections => {
                read_traffic(drain.began, None).await.is_none()
            }
            _ => false,
        }
    }

    /// Whether the app was started again since the drain began, as far as its ports show.
    async fn listener_is_replaced(&self, drain: Drain) -> bool {
        match &self.inputs.read_traffic {
            Some(read_traffic) => read_traffic(drain.began, None)
                .await
                .is_some_and(|snapshot| snapshot.listener_replaced),
            None => false,
        }
    }

    /// Reads of every source, from now on.
    pub(super) fn start_reads(&self) -> Reads<Reading> {
        Reads::start(self.inputs.sources.len(), |source| {
            (self.inputs.read_count)(source)
        })
    }

    fn read_again(
        &self,
        reads: &mut Option<Reads<Reading>>,
        last: &Read<Reading>,
        least: Duration,
    ) {
        if let Some(reads) = reads {
            reads.again((self.inputs.read_count)(last.source), last, least, None);
        }
    }

    /// Takes in what a trigger says, and whether it means that the app's container stops.
    pub(super) fn record_trigger(&mut self, trigger: Trigger) -> bool {
        match trigger {
            Trigger::AppHook | Trigger::Restart => {}
            Trigger::Manual => self.drained_by_hand = true,
            Trigger::SelfHook | Trigger::Signal => {
                self.signalled |= trigger == Trigger::Signal;
                self.record_going();
            }
        }
        trigger != Trigger::Manual
    }

    pub(super) fn record_going(&self) {
        self.state.send_modify(|state| state.going = true);
    }

    pub(super) fn going(&self) -> bool {
        self.state.borrow().going
    }

    pub(super) fn enter(&self, phase: Phase) {
        self.state.send_modify(|state| {
            state.phase = phase;
            state.since = Instant::now();
        });
    }

    pub(super) fn serve_again(&self) {
        info!(from = self.state.borrow().phase.name(), "serving");
        self.enter(Phase::Serving);
        self.emit(Event::Serving);
    }

    pub(super) fn emit(&self, event: Event) {
        // No part has to listen.
        let _ = self.events.send(event);
    }
}

/// The next read. Where none is under way it never comes.
async fn next_of(reads: &mut Option<Reads<Reading>>) -> Read<Reading> {
    match reads {
        Some(reads) => reads.next().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
