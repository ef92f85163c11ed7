//! When a drain is over: a pure function of what was seen and of now.

mod counter;
mod history;
mod moment;
mod waiting;

use std::time::Duration;

use tokio::time::Instant;

use super::reads::Read;
use super::{AppShutdown, Outcome, Policy, Reading, Source, TrafficSnapshot};
use counter::{Counted, counted};
use history::{QuietProof, SourceState};
use moment::BestMoment;

pub use counter::{CounterHistory, CounterNews, counted_of};
pub use history::SourceHistory;

/// What is known about the drain that runs.
#[derive(Debug)]
pub struct Facts {
    pub began: Instant,
    pub deadline: Instant,
    /// The sidecar was told to stop.
    pub signalled: bool,
    /// The pod is going, and not only its app's container.
    pub going: bool,
    /// The pod's object says that none of the app's containers runs.
    pub app_is_stopped: bool,
    /// The hook of an app's container waits for this drain. On a deletion it comes within 50 ms of the sidecar's own, and
    /// does not come where the container does not run (seen on Kubernetes 1.36).
    pub app_hook: bool,
    /// Since when Services send nothing here any more, as far as is known: the beginning where that is not asked, none
    /// while the answer is awaited.
    pub endpoints_left: Option<Instant>,
    pub sources: Vec<SourceHistory>,
    /// Counters of requests.
    pub counters: Vec<CounterHistory>,
    pub traffic: TrafficFacts,
    /// The search for the best moment, where only clients are left that keep their connections.
    best_moment: Option<BestMoment>,
}

/// What is known of the traffic on the app's ports.
#[derive(Debug, Clone, PartialEq)]
pub enum TrafficFacts {
    /// Nothing, and nothing will be: only time can tell that routes have changed.
    Unwatched,
    /// Nothing yet.
    Awaited,
    Seen(LastSnapshot),
}

/// The last snapshot of the traffic, and what follows from all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct LastSnapshot {
    snapshot: TrafficSnapshot,
    /// Routes are seen to have changed by then.
    routes_changed: Option<Instant>,
    /// Since when there has been nothing but clients that keep their connections.
    only_persistent: Option<Instant>,
    /// Since when no connection has been open.
    no_connection: Option<Instant>,
    /// Since when no read of the traffic has seen anything.
    failing: Option<Instant>,
}

/// What the counters say of routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CountedRoutes {
    /// Requests still come, or too little time has passed since the last.
    LeadHere,
    /// No request has come for the silence that their rate asks for.
    Changed(Instant),
}

/// Wait until then at most, unless something is seen before; or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Wait(Instant),
    End(Outcome),
}

impl Facts {
    /// Nothing is known yet of a drain that begins. Its traffic is `watched`, or nothing will be known of it.
    pub fn new(
        began: Instant,
        deadline: Instant,
        sources: &[Source],
        counters: usize,
        watched: bool,
    ) -> Self {
        Self {
            began,
            deadline,
            signalled: false,
            going: false,
            app_is_stopped: false,
            app_hook: false,
            endpoints_left: Some(began),
            sources: (sources.iter())
                .map(|source| SourceHistory::new(began, source))
                .collect(),
            counters: vec![CounterHistory::default(); counters],
            traffic: match watched {
                true => TrafficFacts::Awaited,
                false => TrafficFacts::Unwatched,
            },
            best_moment: None,
        }
    }

    /// The largest of the counts; none where one of them is unknown.
    pub fn inflight(&self) -> Option<f64> {
        self.sources
            .iter()
            .map(SourceHistory::count)
            .try_fold(0.0, |most: f64, count| Some(most.max(count?)))
    }

    /// Takes in a read of the traffic that began then. One that saw nothing proves nothing; if they go on to, or the
    /// first did, there is nothing to go by.
    pub fn take_snapshot(
        &mut self,
        policy: &Policy,
        taken: Instant,
        snapshot: Option<TrafficSnapshot>,
    ) {
        let before = match std::mem::replace(&mut self.traffic, TrafficFacts::Awaited) {
            TrafficFacts::Seen(last) => Some(last),
            _ => None,
        };
        let Some(snapshot) = snapshot else {
            self.traffic = match before {
                Some(last) if taken < last.failing.unwrap_or(taken) + policy.max_quiet => {
                    TrafficFacts::Seen(LastSnapshot {
                        routes_changed: None,
                        only_persistent: None,
                        no_connection: None,
                        failing: last.failing.or(Some(taken)),
                        ..last
                    })
                }
                _ => TrafficFacts::Unwatched,
            };
            return;
        };
        let routes_changed = self
            .connections_change_at(policy, &snapshot)
            .filter(|&at| taken >= at);
        let only_persistent = routes_changed.is_some()
            && snapshot.remaining == Some(0)
            && self.connections_explain_counts(&snapshot);
        let since = before.as_ref().and_then(|last| last.only_persistent);
        let no_connection = before.and_then(|last| last.no_connection);
        let no_connection = (snapshot.open == 0).then(|| no_connection.unwrap_or(taken));
        self.traffic = TrafficFacts::Seen(LastSnapshot {
            snapshot,
            routes_changed,
            only_persistent: only_persistent.then(|| since.unwrap_or(taken)),
            no_connection,
            failing: None,
        });
        self.look_for_moment(policy, taken);
    }

    /// Takes in a read of a source.
    pub fn take_reading(&mut self, policy: &Policy, read: &Read<Reading>) {
        self.sources[read.source].take(read, policy.max_inflight);
        self.look_for_moment(policy, read.ended);
    }

    /// Takes in a read of a counter.
    pub fn take_counter(&mut self, read: &Read<Reading>) -> CounterNews {
        self.counters[read.source].take(read)
    }

    /// Looks whether now is a good moment, while only clients are left that keep their connections.
    fn look_for_moment(&mut self, policy: &Policy, now: Instant) {
        let Some(search) = self.search(policy) else {
            self.best_moment = None;
            return;
        };
        let count = self.lost_now(policy);
        let moment = self.best_moment.get_or_insert(search);
        if let Some(count) = count {
            moment.take(count, now);
        }
    }

    /// A search for the best moment, if one is due.
    fn search(&self, policy: &Policy) -> Option<BestMoment> {
        let TrafficFacts::Seen(last) = &self.traffic else {
            return None;
        };
        match policy.app_shutdown {
            AppShutdown::Abrupt => {
                let since = last.only_persistent?;
                Some(self.search_between(policy, since, since + policy.max_quiet))
            }
            AppShutdown::Graceful => {
                let changed = last.routes_changed?;
                let last_arrival = last.snapshot.last_arrival.unwrap_or(self.began);
                let ends = changed.max(last_arrival + policy.max_quiet);
                Some(self.search_between(policy, changed, ends))
            }
        }
    }

    /// A search for the best moment. It gets all the time there is where requests still come on connections from before the
    /// drain: those that are counted may be a proxy's whose routes have not changed yet; and where no new connection has
    /// come at all, clients that keep theirs open one so seldom that its absence says little about routes.
    fn search_between(&self, policy: &Policy, from: Instant, ends: Instant) -> BestMoment {
        let is_late = match self.counted_routes(policy) {
            Some(CountedRoutes::LeadHere) => true,
            Some(CountedRoutes::Changed(_)) => false,
            None => {
                (self.snapshot()).is_some_and(|seen| seen.kept_in_use > 0 && seen.arrivals == 0)
            }
        };
        match is_late {
            true => {
                let last_part = ends.checked_sub(policy.max_quiet / moment::WATCH);
                BestMoment::late(last_part.map_or(from, |at| at.max(from)), ends)
            }
            false => BestMoment::within(from, ends.saturating_duration_since(from)),
        }
    }

    /// How many requests may be lost if the drain ends now; none where that is unknown. An app that dies loses what is in
    /// flight. One that finishes its work closes idle connections at once, and may lose what is on its way on these.
    fn lost_now(&self, policy: &Policy) -> Option<u64> {
        let snapshot = self.snapshot()?;
        if policy.app_shutdown == AppShutdown::Graceful {
            return Some(snapshot.open.saturating_sub(snapshot.waiting));
        }
        // A connection that moved bytes a moment ago is busy for a source, but no client waits on it.
        let counts = self.sources.iter().map(|history| {
            if history.connections {
                (history.count()).map(|n| n.min(snapshot.waiting as f64))
            } else {
                history.count()
            }
        });
        counts
            .map(|count| count.map(|n| n.ceil() as u64))
            .try_fold(0, |most: u64, count| Some(most.max(count?)))
    }

    /// Whether each request that is counted can be one on a connection that is busy.
    ///
    /// A client that keeps its connection has at most one request on it, and if that ended since the last read, its
    /// answer moved bytes. A count beyond that is of requests that share a connection, as HTTP/2 has it, and of those it
    /// cannot be known which are new.
    fn connections_explain_counts(&self, snapshot: &TrafficSnapshot) -> bool {
        (self.sources.iter()).all(|history| {
            (history.count()).is_some_and(|n| history.connections || n <= snapshot.active as f64)
        })
    }

    /// By when routes are seen to have changed, if they are: by connections, else by counters. Of the requests in flight
    /// then it is watched which remain.
    pub fn routes_changed(&self, policy: &Policy) -> Option<Instant> {
        let by_connections = match &self.traffic {
            TrafficFacts::Seen(last) => last.routes_changed,
            _ => None,
        };
        by_connections.or_else(|| match self.counted_routes(policy) {
            Some(CountedRoutes::Changed(at)) => Some(at),
            _ => None,
        })
    }

    /// What the counters say of routes; none where there is none, or they cannot be trusted.
    fn counted_routes(&self, policy: &Policy) -> Option<CountedRoutes> {
        let counted = self.counted()?;
        let changed = self
            .counters_change_at(policy, &counted)
            .filter(|&at| counted.read >= at);
        Some(changed.map_or(CountedRoutes::LeadHere, CountedRoutes::Changed))
    }

    /// What the counters say together. Counters that have never counted anything, while connections bring requests, may
    /// not be the app's.
    fn counted(&self) -> Option<Counted> {
        counted(&self.counters)
            .filter(|counted| !counted.never_moved || self.arrivals().unwrap_or(0) == 0)
    }

    /// Requests that the counters have counted since the drain began.
    pub fn requests(&self) -> Option<u64> {
        self.counted().map(|counted| counted.requests)
    }

    /// Connections have brought requests, and the counters have not moved.
    pub fn counters_do_not_move(&self) -> bool {
        let requests = counted(&self.counters).map(|counted| counted.requests);
        requests == Some(0) && self.arrivals().is_some_and(|arrivals| arrivals > 0)
    }

    /// The last snapshot of the traffic.
    pub fn snapshot(&self) -> Option<&TrafficSnapshot> {
        match &self.traffic {
            TrafficFacts::Seen(last) => Some(&last.snapshot),
            _ => None,
        }
    }

    /// Connections that arrived, where the traffic is watched.
    pub fn arrivals(&self) -> Option<u64> {
        self.snapshot().map(|snapshot| snapshot.arrivals)
    }

    /// When a read of the traffic has to begin to prove that routes have changed, should nothing arrive until then.
    pub fn snapshot_wanted(&self, policy: &Policy) -> Option<Instant> {
        match &self.traffic {
            TrafficFacts::Seen(last) if last.routes_changed.is_none() => {
                self.connections_change_at(policy, &last.snapshot)
            }
            _ => None,
        }
    }

    /// When a counter has to be read to prove that routes have changed, should it not rise until then.
    pub fn counter_wanted(&self, policy: &Policy) -> Option<Instant> {
        let counted = self.counted()?;
        (self.counters_change_at(policy, &counted)).filter(|&at| counted.read < at)
    }

    /// When min-wait is over, if it has begun.
    pub fn min_wait_over(&self, policy: &Policy) -> Option<Instant> {
        self.endpoints_left.map(|left| left + policy.min_wait)
    }

    /// When routes have changed if no new connection arrives.
    fn connections_change_at(&self, policy: &Policy, seen: &TrafficSnapshot) -> Option<Instant> {
        let at = self.routes_change_at(policy, seen.arrivals, seen.last_arrival)?;
        may_come_back_until(policy, seen).max(Some(at))
    }

    /// When routes have changed if the counters, which have counted so much, do not rise any more.
    fn counters_change_at(&self, policy: &Policy, counted: &Counted) -> Option<Instant> {
        let at = self.routes_change_at(policy, counted.requests, counted.last)?;
        let until = (self.snapshot()).and_then(|seen| may_come_back_until(policy, seen));
        until.max(Some(at))
    }

    /// When routes have changed if nothing more arrives: after min-wait, and after the silence that so many arrivals ask
    /// for, the last of them then.
    fn routes_change_at(
        &self,
        policy: &Policy,
        arrivals: u64,
        last: Option<Instant>,
    ) -> Option<Instant> {
        let min_wait_over = self.min_wait_over(policy)?;
        let Some(last) = last else {
            return Some(min_wait_over);
        };
        let silence = silence(arrivals, last.saturating_duration_since(self.began));
        let silence = silence.clamp(
            policy.quiet_period,
            policy.max_quiet.max(policy.quiet_period),
        );
        Some(min_wait_over.max(last + silence))
    }

    /// Since when the work seems to be stuck: counts that are not zero have not moved since the drain began, and no
    /// connection has been open for max-quiet, so that no client can wait for it.
    pub fn stuck(&self, policy: &Policy, now: Instant) -> Option<Instant> {
        let TrafficFacts::Seen(last) = &self.traffic else {
            return None;
        };
        let since = last.no_connection?;
        last.routes_changed?;
        let busy = |history: &&SourceHistory| !history.is_quiet();
        let mut busy = self.sources.iter().filter(busy).peekable();
        let stuck = busy.peek().is_some()
            && busy.all(SourceHistory::has_not_moved)
            && now >= since + policy.max_quiet;
        stuck.then_some(since)
    }

    /// No connection is busy, though sources that count connections may not have been read since.
    fn is_unused(&self) -> bool {
        matches!(&self.traffic, TrafficFacts::Seen(last) if last.snapshot.active == 0)
            && self
                .sources
                .iter()
                .all(|history| history.connections || history.is_quiet())
    }

    /// Whether work that is stuck ends the drain.
    fn ends_when_stuck(&self, policy: &Policy, now: Instant) -> bool {
        let mut busy = self.sources.iter().filter(|history| !history.is_quiet());
        self.stuck(policy, now).is_some() && busy.all(|history| history.ends_when_stuck(policy))
    }

    /// Whether there is no app: nothing listens any more, and it holds no connection. It takes the quiet period to be sure
    /// of that, unless the sidecar was told to stop: a native sidecar is when its app has ended.
    ///
    /// Where nothing was ever seen to listen, the pod has to be going, and no other port may be the app's: a mistyped
    /// `--app-port` must not end a drain. Where neither the hook of an app's container nor SIGTERM has come, but the
    /// sidecar's own hook, there is no app that this drain could hold.
    fn app_is_gone(&self, policy: &Policy) -> bool {
        let (no_connection, never_up) = match &self.traffic {
            TrafficFacts::Seen(last) => {
                let gone = last.failing.is_none() && last.snapshot.app_is_gone();
                let app_may_run = !self.app_is_stopped && (self.app_hook || self.signalled);
                let elsewhere = last.snapshot.other_port.is_some() && app_may_run;
                (gone, gone && self.going && !elsewhere)
            }
            _ => (true, false),
        };
        let absent = |history: &SourceHistory| history.is_absent_for(policy.quiet_period);
        if never_up && !self.sources.is_empty() && self.sources.iter().all(absent) {
            return true;
        }
        let any_gone = self.sources.iter().any(SourceHistory::is_gone);
        let all_gone = !self.sources.is_empty()
            && (self.sources.iter()).all(|history| history.is_gone_for(policy.quiet_period));
        no_connection && (all_gone || (self.signalled && any_gone))
    }
}

/// How many new connections a client that is told to go makes to the same pod at most, as long as routes lead there. With
/// two pods it gets the same one in half of the cases, and is told again: once on average.
const TOLD_AGAIN: u64 = 2;

/// Until when clients that were told to go may still come back; none where that is no matter.
///
/// A client that keeps its connection makes a new one when the app tells it to go, at once and once. So where such clients
/// have made requests in this drain, and no more new connections have come than these clients may have made, their rate
/// says nothing of the time after: the next come when another pod of a rollout tells its clients to go.
fn may_come_back_until(policy: &Policy, seen: &TrafficSnapshot) -> Option<Instant> {
    let may_be_told = seen.arrivals <= seen.kept_in_use.saturating_mul(TOLD_AGAIN);
    let last = seen.last_arrival.filter(|_| may_be_told)?;
    Some(last + policy.max_quiet * 3 / 4)
}

/// How long nothing must have arrived to mean that nothing will, after `arrivals` of which the last came `within` that
/// time.
///
/// Of a Poisson stream of n arrivals in t, a gap is longer than g with probability e^(−g·n/t), and any of n gaps with at
/// most n times that. For (5 + ln n)·t/n that is e⁻⁵, one in 150, however long the drain runs.
fn silence(arrivals: u64, within: Duration) -> Duration {
    let n = arrivals.max(1) as f64;
    within.mul_f64((5.0 + n.ln()) / n)
}

/// Decides. The rules, in this order:
///
/// 1. The deadline ends every drain.
/// 2. Where nothing listens any more and the app holds no connection, nothing can be waited for. It takes the quiet
///    period to be sure of that, unless the sidecar was told to stop: a native sidecar is when its app has ended. An
///    app that was never seen is gone where the pod is going, and no other port can be the app's.
/// 3. Before min-wait is over, routes still lead here; and so they do where traffic is watched, until nothing has arrived
///    for the silence that it asks for. Where Services are asked, min-wait begins when they send nothing any more. New
///    connections of clients that were told to go ask for a longer silence, for others may be told later.
/// 4. Every source is quiet, or has been unreadable for as long as the policy allows. Where traffic is watched, one quiet
///    read after routes have changed is enough, since nothing new comes; else quiet has to last.
/// 5. A connection that brought bytes and was never answered is a request that the app has not counted yet. It holds up
///    a quiet drain for max-quiet at most, for it may also be a client that never says all of its request.
/// 6. Where all that was in flight when routes changed has ended, and what is left are clients that keep their
///    connections, the drain ends at a moment with few requests, within max-quiet (see [`moment`]).
/// 7. Where counters of requests can be read, they say in place of connections whether routes have changed, by the same
///    silence: they see requests on connections from before the drain too. Rule 6 holds all the same.
/// 8. An app that finishes its work by itself is handed it when routes have changed. Connections that clients keep are a
///    reason to wait for the best moment, until max-quiet after the last new connection at most.
/// 9. A count that has not moved since the drain began, with no connection open for max-quiet, is stuck. It ends the drain
///    if the policy, or the source, says so.
///
/// Why so, in requests lost per pod and seconds taken, over some 3,700 simulated pods of 0.05 to 500 requests a second
/// (see `simulation`; a request may itself take 25 s, and there are 55 s for all). The handover is to an app that
/// finishes what it has; the other columns are of one that dies with it. A proxy whose routes have not changed by
/// max-quiet, 10 s, cannot be told from clients that keep their connections.
///
/// | clients | routes follow after | this rule | with a counter | handover | with a counter | sleep 5 s | sleep 10 s | sleep 15 s | sleep 30 s |
/// | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
/// | new connections | 0 s | 0.00 in 10.2 s | 0.00 in 10.2 s | 0.00 in 5.0 s | 0.00 in 5.0 s | 6.10 | 3.34 | 1.43 | 0.00 |
/// |  | 3 s | 0.00 in 12.6 s | 0.00 in 12.6 s | 0.00 in 5.9 s | 0.00 in 5.9 s | 8.44 | 4.67 | 2.36 | 0.00 |
/// |  | 6 s | 0.05 in 15.5 s | 0.05 in 15.5 s | 0.08 in 8.2 s | 0.08 in 8.2 s | 49.07 | 6.43 | 3.69 | 0.04 |
/// |  | 12 s | 0.25 in 20.1 s | 0.25 in 20.1 s | 0.29 in 12.9 s | 0.29 in 12.9 s | 245.87 | 81.79 | 7.04 | 0.73 |
/// |  | 20 s | 0.56 in 26.1 s | 0.56 in 26.1 s | 0.66 in 18.8 s | 0.66 in 18.8 s | 509.14 | 345.06 | 180.56 | 3.55 |
/// | and ten that keep theirs, told to go | 3 s | 0.00 in 16.0 s | 0.00 in 15.9 s | 0.00 in 7.1 s | 0.00 in 6.5 s | 9.12 | 5.21 | 2.73 | 0.00 |
/// |  | 6 s | 0.01 in 18.3 s | 0.01 in 18.1 s | 0.01 in 9.1 s | 0.05 in 8.1 s | 49.64 | 6.88 | 4.01 | 0.04 |
/// |  | 12 s | 0.05 in 22.2 s | 0.05 in 22.0 s | 0.12 in 14.1 s | 0.22 in 12.9 s | 246.64 | 82.38 | 7.42 | 0.73 |
/// | thirty that keep theirs, told one pod after the other | 3 s | 0.00 in 12.8 s | 0.00 in 12.6 s | 0.00 in 7.8 s | 0.00 in 7.6 s | 0.88 | 0.58 | 0.39 | 0.00 |
/// |  | 6 s | 0.00 in 13.6 s | 0.04 in 13.4 s | 0.00 in 9.6 s | 0.12 in 8.8 s | 1.73 | 0.69 | 0.49 | 0.00 |
/// |  | 12 s | 0.08 in 16.3 s | 0.43 in 15.2 s | 0.35 in 12.9 s | 0.78 in 11.5 s | 7.00 | 1.10 | 0.51 | 0.00 |
/// | and ten that keep theirs, not told | 3 s | 8.35 in 30.2 s | 8.60 in 33.7 s | 0.03 in 8.0 s | 0.01 in 9.9 s | 17.34 | 13.77 | 11.58 | 9.29 |
/// |  | 6 s | 8.35 in 32.2 s | 8.49 in 36.1 s | 0.04 in 10.1 s | 0.05 in 12.5 s | 57.97 | 15.47 | 12.86 | 9.23 |
/// |  | 12 s | 8.31 in 36.5 s | 8.47 in 40.4 s | 0.06 in 14.7 s | 0.05 in 17.1 s | 254.82 | 90.92 | 16.19 | 10.00 |
/// | ten connections of a proxy, and no others | 3 s | 0.00 in 18.8 s | 0.00 in 18.8 s | 0.00 in 8.3 s | 0.00 in 5.0 s | 2.86 | 1.94 | 1.21 | 0.00 |
/// |  | 6 s | 0.12 in 22.2 s | 0.12 in 22.2 s | 0.00 in 9.8 s | 0.00 in 7.0 s | 32.53 | 3.53 | 2.52 | 0.00 |
/// |  | 12 s | 0.51 in 26.5 s | 0.65 in 26.0 s | 74.88 in 7.8 s | 74.88 in 7.8 s | 144.57 | 45.18 | 4.26 | 0.51 |
pub fn decide(policy: &Policy, facts: &Facts, now: Instant) -> Decision {
    if now >= facts.deadline {
        return Decision::End(Outcome::Deadline);
    }
    let wait = |until: Option<Instant>| {
        Decision::Wait(until.unwrap_or(facts.deadline).min(facts.deadline))
    };
    // A read of the traffic has a time limit of its own.
    if facts.traffic == TrafficFacts::Awaited {
        return wait(None);
    }
    if facts.app_is_gone(policy) {
        return Decision::End(Outcome::AppGone);
    }
    let min_wait_over = match facts.min_wait_over(policy) {
        Some(over) if now >= over => over,
        until => return wait(until),
    };
    let end = match policy.app_shutdown {
        AppShutdown::Graceful => hand_over(policy, facts, now),
        AppShutdown::Abrupt => work_is_done(policy, facts, min_wait_over, now),
    };
    match end {
        Decision::End(_) => end,
        Decision::Wait(_) if facts.ends_when_stuck(policy, now) => Decision::End(Outcome::Stuck),
        Decision::Wait(until) => wait(Some(until)),
    }
}

/// Rules 4 to 7: whether the work is done of an app that dies with it.
fn work_is_done(policy: &Policy, facts: &Facts, min_wait_over: Instant, now: Instant) -> Decision {
    let last = match &facts.traffic {
        TrafficFacts::Seen(last) => Some(last),
        _ => None,
    };
    let unanswered = last.is_some_and(|last| last.snapshot.unanswered > 0);
    let first_read = |routes_changed| QuietProof::FirstQuietRead {
        routes_changed,
        unanswered,
    };
    let proof = match (facts.counted_routes(policy), last) {
        (Some(CountedRoutes::LeadHere), _) => None,
        (Some(CountedRoutes::Changed(at)), Some(_)) => Some((first_read(at), at)),
        (Some(CountedRoutes::Changed(at)), None) => Some((QuietProof::Lasting, at)),
        (None, None) => Some((QuietProof::Lasting, min_wait_over)),
        // Only a later snapshot can tell.
        (None, Some(last)) => last
            .routes_changed
            .map(|at| (first_read(at), min_wait_over)),
    };
    let Some((proof, not_before)) = proof else {
        // Requests are counted. Without a connection in use they are no client's that keeps its own.
        let kept = last.is_some_and(|last| last.snapshot.active > 0);
        return match kept {
            true => until_best_moment(facts, None, now),
            false => Decision::Wait(facts.deadline),
        };
    };
    let mut blind = false;
    for history in &facts.sources {
        match history.state(policy, proof, not_before, now) {
            SourceState::Quiet => {}
            SourceState::Blind => blind = true,
            // A request has come that is not counted yet: no moment is low as long as it may be one.
            SourceState::Busy(_) if history.is_quiet() => return until_last_moment(facts, now),
            SourceState::Busy(until) => return until_best_moment(facts, until, now),
        }
    }
    Decision::End(if blind {
        Outcome::Blind
    } else {
        Outcome::Drained
    })
}

/// Ends where only clients are left that keep their connections, and this is the best moment; else waits until then.
fn until_best_moment(facts: &Facts, until: Option<Instant>, now: Instant) -> Decision {
    match &facts.best_moment {
        // No client waits any more, and the next read of the source shows it.
        Some(_) if facts.is_unused() => Decision::Wait(facts.deadline),
        Some(moment) if moment.has_come(now) => Decision::End(Outcome::Persistent),
        moment => {
            let ends = moment.as_ref().map(BestMoment::ends);
            let until = until.into_iter().chain(ends).min();
            Decision::Wait(until.unwrap_or(facts.deadline))
        }
    }
}

/// The same, where no moment but the last is good enough.
fn until_last_moment(facts: &Facts, now: Instant) -> Decision {
    match facts.best_moment.as_ref().map(BestMoment::ends) {
        Some(ends) if now >= ends => Decision::End(Outcome::Persistent),
        ends => Decision::Wait(ends.unwrap_or(facts.deadline)),
    }
}

/// Rule 8: whether to hand over to an app that finishes its work by itself.
fn hand_over(policy: &Policy, facts: &Facts, now: Instant) -> Decision {
    let by_counters = facts.counted_routes(policy);
    let end = match (by_counters, &facts.traffic) {
        (Some(CountedRoutes::Changed(_)), _) => true,
        (None, TrafficFacts::Unwatched | TrafficFacts::Awaited) => true,
        _ => (facts.best_moment.as_ref()).is_some_and(|moment| moment.has_come(now)),
    };
    if end {
        return Decision::End(Outcome::HandedOver);
    }
    let ends = facts.best_moment.as_ref().map(BestMoment::ends);
    Decision::Wait(ends.unwrap_or(facts.deadline))
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
