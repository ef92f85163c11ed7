//! The loop of one drain: it starts reads, takes in what they and commands say, and ends when the rule says so.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::decision::{CounterNews, Decision, Facts, SourceHistory, decide};
use super::handle::{Caller, Command, PodFacts, Refusal, answer};
use super::owner::{NextPhase, Owner, PastDrain};
use super::reads::{Read, Reads};
use super::{Drain, Event, Outcome, Phase, Reading, TrafficSnapshot, Trigger, Verdict, Visitors};

/// The shortest time between two lines about a drain that goes on.
const PROGRESS: Duration = Duration::from_secs(5);

/// A drain that runs.
pub struct Draining<'a> {
    owner: &'a mut Owner,
    drain: Drain,
    /// When the first hook or SIGTERM came; none while the drain is by hand.
    stopping: Option<Instant>,
    /// Why the pod has to go.
    reason: Option<Arc<str>>,
    /// Those that wait for the verdict.
    callers: Vec<oneshot::Sender<Arc<Verdict>>>,
    facts: Facts,
    reads: Reads<Reading>,
    counter_reads: Reads<Reading>,
    traffic_reads: Reads<Option<TrafficSnapshot>>,
    /// Ends when no Service sends requests here any more.
    endpoints_left: Option<BoxFuture<'static, bool>>,
    /// When to log that the drain goes on.
    next_progress: Instant,
    /// It was said that the count seems stuck.
    stuck: bool,
}

/// How a drain ends, and the caller that waits for it to be undone.
struct End {
    outcome: Outcome,
    undone: Option<oneshot::Sender<Result<(), Refusal>>>,
}

impl From<Outcome> for End {
    fn from(outcome: Outcome) -> Self {
        Self {
            outcome,
            undone: None,
        }
    }
}

impl<'a> Draining<'a> {
    /// Starts a drain and all its reads, and says so.
    pub fn start(owner: &'a mut Owner, trigger: Trigger, caller: Caller) -> Self {
        let began = Instant::now();
        let drain = Drain {
            trigger,
            began,
            deadline: began + owner.policy.budget(),
            grace_ends: began + owner.policy.grace_period,
        };
        let stopping = owner.record_trigger(trigger).then_some(began);
        owner.state.send_modify(|state| {
            state.drain = Some(drain);
            state.verdict = None;
        });
        owner.enter(Phase::Draining);
        let callers = vec![caller.join()];
        owner.emit(Event::Began(drain));
        if stopping.is_some() {
            owner.emit(Event::Stopping(drain));
        }
        let budget_seconds = owner.policy.budget().as_secs_f64();
        info!(trigger = trigger.name(), budget_seconds, "draining");
        let inputs = &owner.inputs;
        let watched = inputs.read_traffic.is_some();
        let mut facts = Facts::new(
            began,
            drain.deadline,
            &inputs.sources,
            inputs.counters.len(),
            watched,
        );
        facts.signalled = owner.signalled;
        facts.going = owner.going();
        facts.app_hook = trigger == Trigger::AppHook;
        facts.endpoints_left = inputs.endpoints_left.is_none().then_some(began);
        let traffic_reads = match &inputs.read_traffic {
            Some(read_traffic) => Reads::start_one(read_traffic(began, None)),
            None => Reads::none(),
        };
        Self {
            reads: owner.start_reads(),
            counter_reads: Reads::start(inputs.counters.len(), |n| (inputs.read_counter)(n)),
            traffic_reads,
            endpoints_left: inputs.endpoints_left.as_ref().map(|left| left()),
            next_progress: began + PROGRESS,
            owner,
            drain,
            stopping,
            reason: None,
            callers,
            facts,
            stuck: false,
        }
    }

    /// Waits for the work to be done, by the deadline at the latest.
    pub async fn run(mut self) -> NextPhase {
        let end = loop {
            self.facts.going = self.owner.going();
            self.say_if_stuck();
            let until = match decide(&self.owner.policy, &self.facts, Instant::now()) {
                Decision::End(outcome) => break outcome.into(),
                Decision::Wait(until) => until,
            };
            self.show_waiting_for();
            tokio::select! {
                biased;
                command = self.owner.commands.recv() => match command {
                    None => return NextPhase::End,
                    Some(command) => if let Some(end) = self.on_command(command) {
                        break end;
                    }
                },
                known = ended(&mut self.endpoints_left) => self.on_endpoints_left(known),
                read = self.reads.next() => self.on_reading(&read),
                read = self.counter_reads.next() => self.on_counter(&read),
                read = self.traffic_reads.next() => self.on_traffic(&read),
                () = sleep_until(until.min(self.next_progress)) => self.log_progress(),
            }
        };
        self.end(end)
    }

    /// Does what a command asks, and says how it ends the drain, if it does.
    fn on_command(&mut self, command: Command) -> Option<End> {
        match command {
            Command::Drain { trigger, caller } => self.on_caller(trigger, caller),
            Command::Undo { reply } if self.owner.going() => answer(reply, Err(Refusal::Going)),
            Command::Undo { reply } if self.stopping.is_some() => {
                answer(reply, Err(Refusal::Stopping));
            }
            Command::Undo { reply } => {
                return Some(End {
                    outcome: Outcome::Undone,
                    undone: Some(reply),
                });
            }
            Command::Release { reply } => {
                answer(reply, Ok(()));
                return Some(Outcome::Released.into());
            }
            Command::PodFacts { began, pod } => {
                if began == self.drain.began {
                    self.on_pod_facts(pod);
                }
            }
        }
        None
    }

    /// One more caller waits for the verdict.
    fn on_caller(&mut self, trigger: Trigger, caller: Caller) {
        if self.owner.record_trigger(trigger) && self.stopping.is_none() {
            self.on_first_hook();
        }
        self.facts.signalled = self.owner.signalled;
        self.facts.app_hook |= trigger == Trigger::AppHook;
        self.callers.retain(|caller| !caller.is_closed());
        self.callers.push(caller.join());
    }

    /// The app has to stop now, after a drain by hand: the grace period and min-wait begin.
    fn on_first_hook(&mut self) {
        let now = Instant::now();
        self.stopping = Some(now);
        self.owner.emit(Event::Stopping(self.drain));
        // A drain by hand need not have changed any route, nor asked the Services of a pod that is going.
        self.endpoints_left = self.owner.inputs.endpoints_left.as_ref().map(|left| left());
        self.facts.endpoints_left = self.endpoints_left.is_none().then_some(now);
        self.set_deadline(now, self.owner.policy.grace_period);
    }

    fn on_pod_facts(&mut self, pod: PodFacts) {
        if let (Some(granted), Some(since)) = (pod.granted, self.stopping) {
            self.set_deadline(since, granted);
        }
        if pod.going {
            self.owner.record_going();
        }
        self.facts.app_is_stopped |= pod.app_is_stopped;
        self.reason = pod.reason.or(self.reason.take());
    }

    /// Services send nothing here any more; or that is not `known`, and then min-wait does not wait for it.
    fn on_endpoints_left(&mut self, known: bool) {
        self.endpoints_left = None;
        self.facts.endpoints_left = Some(if known {
            Instant::now()
        } else {
            self.stopping.unwrap_or(self.drain.began)
        });
    }

    fn on_reading(&mut self, read: &Read<Reading>) {
        let Self { owner, facts, .. } = self;
        let policy = &owner.policy;
        facts.take_reading(policy, read);
        let wanted = facts.sources[read.source].read_wanted(policy, facts.min_wait_over(policy));
        let next = (owner.inputs.read_count)(read.source);
        self.reads.again(next, read, policy.poll_interval, wanted);
    }

    fn on_counter(&mut self, read: &Read<Reading>) {
        let Self { owner, facts, .. } = self;
        let source = owner.inputs.counters[read.source].as_str();
        match facts.take_counter(read) {
            CounterNews::None => {}
            CounterNews::Restarted => info!(
                source,
                "the counter of requests fell, as it does when the app is restarted"
            ),
            CounterNews::IsGauge => warn!(
                source,
                "what is given with --requests falls again and again, so it is a gauge and no counter, and connections \
                 alone decide; give a counter that rises with every request, and the gauge with --inflight"
            ),
        }
        let wanted = facts.counter_wanted(&owner.policy);
        let next = (owner.inputs.read_counter)(read.source);
        (self.counter_reads).again(next, read, owner.policy.poll_interval, wanted);
    }

    fn on_traffic(&mut self, read: &Read<Option<TrafficSnapshot>>) {
        let policy = &self.owner.policy;
        self.facts
            .take_snapshot(policy, read.began, read.seen.clone());
        if let Some(read_traffic) = &self.owner.inputs.read_traffic {
            let next = read_traffic(self.drain.began, self.facts.routes_changed(policy));
            let wanted = self.facts.snapshot_wanted(policy);
            (self.traffic_reads).again(next, read, policy.poll_interval, wanted);
        }
    }

    /// Says once that the count seems stuck.
    fn say_if_stuck(&mut self) {
        let now = Instant::now();
        let Some(since) = self.facts.stuck(&self.owner.policy, now) else {
            return;
        };
        if std::mem::replace(&mut self.stuck, true) {
            return;
        }
        let no_connection_seconds = (now - since).as_secs_f64();
        let inflight = self.facts.inflight();
        warn!(
            inflight,
            no_connection_seconds,
            "the count seems stuck: it has not moved since the drain began, and no connection is open; if it counts \
             nothing but requests on connections, write --when-stuck=end"
        );
    }

    /// Gives the drain the time that a grace period leaves that began then, and says so if that is news.
    fn set_deadline(&mut self, since: Instant, granted: Duration) {
        self.drain.grace_ends = since + granted;
        let deadline = since + self.owner.policy.budget_of(granted);
        if deadline == self.drain.deadline {
            return;
        }
        self.drain.deadline = deadline;
        self.facts.deadline = deadline;
        let drain = self.drain;
        (self.owner.state).send_modify(|state| state.drain = Some(drain));
        self.owner.emit(Event::DeadlineChanged(drain));
        let budget_seconds = (deadline - drain.began).as_secs_f64();
        info!(budget_seconds, "the deadline has changed");
    }

    fn log_progress(&mut self) {
        let now = Instant::now();
        if now < self.next_progress || now >= self.drain.deadline {
            return;
        }
        self.next_progress = now + PROGRESS;
        let inflight =
            (self.facts.inflight()).map_or_else(|| "unknown".to_owned(), |n| n.to_string());
        let arrivals = self.facts.arrivals();
        let left_seconds = (self.drain.deadline - now).as_secs();
        let waiting_for = self.waiting_for(now);
        let monitors = self.visitors().and_then(Visitors::monitors_text);
        info!(
            inflight,
            arrivals, left_seconds, waiting_for, monitors, "still draining"
        );
    }

    /// Ends the drain: the verdict, the next phase, and last the answers to the callers.
    fn end(self, end: End) -> NextPhase {
        let verdict = Arc::new(self.verdict(end.outcome));
        let Self {
            owner,
            drain,
            callers,
            facts,
            ..
        } = self;
        let past = PastDrain {
            drain,
            verdict: verdict.clone(),
            ended: Instant::now(),
        };
        let next = if owner.going() {
            NextPhase::Drained(past)
        } else if end.outcome == Outcome::Undone {
            owner.drained_by_hand = false;
            NextPhase::Serve
        } else if owner.drained_by_hand {
            NextPhase::Drained(past)
        } else {
            NextPhase::Reopen(past)
        };
        verdict.log();
        if facts.counters_do_not_move() {
            warn!(
                counters = owner.inputs.counters.join(" "),
                "the counter of requests has not moved, though connections brought requests; does it count those of \
                 another port, or none until it is switched on?"
            );
        }
        (owner.state).send_modify(|state| {
            state.verdict = Some(verdict.clone());
            state.waiting_for = None;
        });
        owner.emit(Event::Ended(drain, verdict.clone()));
        match &next {
            NextPhase::Drained(_) => owner.enter(Phase::Drained),
            NextPhase::Reopen(_) => owner.enter(Phase::Reopening),
            _ => owner.serve_again(),
        }
        // Last: a caller that is answered may stop the app at once, and must see the phase that holds now.
        for caller in callers {
            answer(caller, verdict.clone());
        }
        if let Some(undone) = end.undone {
            answer(undone, Ok(()));
        }
        next
    }

    /// Lets the status show what the drain waits for.
    fn show_waiting_for(&self) {
        let text = self.waiting_for(Instant::now());
        self.owner.state.send_if_modified(|state| {
            if state.waiting_for.as_deref() != Some(&text) {
                state.waiting_for = Some(text.into());
            }
            false
        });
    }

    /// What the drain waits for.
    fn waiting_for(&self, now: Instant) -> String {
        let names = self.owner.inputs.sources.iter().map(|source| &*source.name);
        (self.facts).waiting_for(&self.owner.policy, names, now)
    }

    fn visitors(&self) -> Option<&Visitors> {
        (self.facts.snapshot()).map(|snapshot| &*snapshot.visitors)
    }

    fn verdict(&self, outcome: Outcome) -> Verdict {
        let Self {
            owner,
            drain,
            facts,
            ..
        } = self;
        let names = owner
            .inputs
            .sources
            .iter()
            .map(|source| source.name.clone());
        let counts = facts.sources.iter().map(SourceHistory::count);
        let snapshot = facts.snapshot();
        let waited = matches!(outcome, Outcome::Deadline | Outcome::Released);
        Verdict {
            outcome,
            took: drain.began.elapsed(),
            inflight: facts.inflight(),
            trigger: drain.trigger,
            going: owner.going(),
            deadline: drain.deadline - drain.began,
            sources: names.zip(counts).collect(),
            arrivals: facts.arrivals(),
            last_arrival: snapshot
                .and_then(|snapshot| snapshot.last_arrival)
                .map(|last| last.saturating_duration_since(drain.began)),
            requests: facts.requests(),
            stuck: (facts.stuck(&owner.policy, Instant::now())).map(|since| since.elapsed()),
            persistent: snapshot
                .filter(|_| outcome == Outcome::Persistent)
                .map(|snapshot| snapshot.active),
            reason: self.reason.clone(),
            waiting_for: waited.then(|| self.waiting_for(Instant::now()).into()),
            visitors: snapshot.map(|snapshot| snapshot.visitors.clone()),
        }
    }
}

/// The end of what may not have begun; then it never comes.
async fn ended<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
