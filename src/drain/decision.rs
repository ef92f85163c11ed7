//! When a drain is over: a pure function of what was seen and of now.

mod history;
mod waiting;

use std::time::Duration;

use tokio::time::Instant;

use super::{Outcome, Policy, TrafficSnapshot};
use history::{QuietProof, SourceState};

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
    /// Since when Services send nothing here any more, as far as is known: the beginning where that is not asked, none
    /// while the answer is awaited.
    pub endpoints_left: Option<Instant>,
    pub sources: Vec<SourceHistory>,
    pub traffic: TrafficFacts,
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
    /// Since when no read of the traffic has seen anything.
    failing: Option<Instant>,
}

/// Wait until then at most, unless something is seen before; or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Wait(Instant),
    End(Outcome),
}

impl Facts {
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
                        failing: last.failing.or(Some(taken)),
                        ..last
                    })
                }
                _ => TrafficFacts::Unwatched,
            };
            return;
        };
        let routes_changed = self
            .routes_change_at(policy, &snapshot)
            .filter(|&at| taken >= at);
        let only_persistent = routes_changed.is_some()
            && snapshot.remaining == Some(0)
            && self.connections_explain_counts(&snapshot);
        let since = before.and_then(|last| last.only_persistent);
        self.traffic = TrafficFacts::Seen(LastSnapshot {
            snapshot,
            routes_changed,
            only_persistent: only_persistent.then(|| since.unwrap_or(taken)),
            failing: None,
        });
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

    /// By when routes are seen to have changed, if they are.
    pub fn routes_changed(&self) -> Option<Instant> {
        match &self.traffic {
            TrafficFacts::Seen(last) => last.routes_changed,
            _ => None,
        }
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
                self.routes_change_at(policy, &last.snapshot)
            }
            _ => None,
        }
    }

    /// When min-wait is over, if it has begun.
    pub fn min_wait_over(&self, policy: &Policy) -> Option<Instant> {
        self.endpoints_left.map(|left| left + policy.min_wait)
    }

    /// When routes have changed if nothing more arrives: after min-wait, and after the silence that the traffic asks
    /// for.
    fn routes_change_at(&self, policy: &Policy, snapshot: &TrafficSnapshot) -> Option<Instant> {
        let min_wait_over = self.min_wait_over(policy)?;
        let Some(last) = snapshot.last_arrival else {
            return Some(min_wait_over);
        };
        let silence = silence(
            snapshot.arrivals,
            last.saturating_duration_since(self.began),
        );
        let silence = silence.clamp(
            policy.quiet_period,
            policy.max_quiet.max(policy.quiet_period),
        );
        Some(min_wait_over.max(last + silence))
    }

    /// Whether there is no app: nothing listens any more, and it holds no connection. It takes the quiet period to be sure
    /// of that, unless the sidecar was told to stop: a native sidecar is when its app has ended.
    ///
    /// Where nothing was ever seen to listen, the pod has to be going, and no other port may be the app's: a mistyped
    /// `--app-port` must not end a drain.
    fn app_is_gone(&self, policy: &Policy) -> bool {
        let (no_connection, never_up) = match &self.traffic {
            TrafficFacts::Seen(last) => {
                let gone = last.failing.is_none() && last.snapshot.app_is_gone();
                let elsewhere = last.snapshot.other_port.is_some() && !self.app_is_stopped;
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
///    for the silence that it asks for. Where Services are asked, min-wait begins when they send nothing any more.
/// 4. Every source is quiet, or has been unreadable for as long as the policy allows. Where traffic is watched, one quiet
///    read after routes have changed is enough, since nothing new comes; else quiet has to last.
/// 5. A connection that brought bytes and was never answered is a request that the app has not counted yet. It holds up
///    a quiet drain for max-quiet at most, for it may also be a client that never says all of its request.
/// 6. Where all that was in flight when routes changed has ended, and what is left are clients that keep their
///    connections, they have max-quiet to leave a moment of quiet.
///
/// Why so, in requests lost per pod and seconds taken, over some 2,800 simulated pods of 0.05 to 500 requests a second
/// (see `simulation`; a request may itself take 25 s, and there are 55 s for all):
///
/// | clients | routes follow after | this rule | sleep 5 s | sleep 10 s | sleep 15 s | sleep 30 s |
/// | --- | --- | --- | --- | --- | --- | --- |
/// | new connections | 0 s | 0.00 in 10.3 s | 6.10 | 3.34 | 1.43 | 0.00 |
/// | | 3 s | 0.00 in 12.6 s | 8.44 | 4.67 | 2.36 | 0.00 |
/// | | 6 s | 0.05 in 15.6 s | 49.07 | 6.43 | 3.69 | 0.04 |
/// | | 12 s | 0.24 in 20.1 s | 245.87 | 81.79 | 7.04 | 0.73 |
/// | | 20 s | 0.56 in 26.2 s | 509.14 | 345.06 | 180.56 | 3.55 |
/// | and ten that keep theirs, told to go | 3 s | 0.00 in 15.7 s | 9.12 | 5.21 | 2.73 | 0.00 |
/// | | 12 s | 0.07 in 22.1 s | 246.64 | 82.38 | 7.42 | 0.73 |
/// | and ten that keep theirs, not told | 3 s | 9.07 in 33.5 s | 17.34 | 13.77 | 11.58 | 9.29 |
/// | | 12 s | 9.12 in 41.5 s | 254.82 | 90.92 | 16.19 | 10.00 |
pub fn decide(policy: &Policy, facts: &Facts, now: Instant) -> Decision {
    if now >= facts.deadline {
        return Decision::End(Outcome::Deadline);
    }
    let wait = |until: Option<Instant>| {
        Decision::Wait(until.unwrap_or(facts.deadline).min(facts.deadline))
    };
    let last = match &facts.traffic {
        TrafficFacts::Unwatched => None,
        // A read of the traffic has a time limit of its own.
        TrafficFacts::Awaited => return wait(None),
        TrafficFacts::Seen(last) => Some(last),
    };
    if facts.app_is_gone(policy) {
        return Decision::End(Outcome::AppGone);
    }
    let min_wait_over = match facts.min_wait_over(policy) {
        Some(over) if now >= over => over,
        until => return wait(until),
    };
    let proof = match last {
        None => QuietProof::Lasting,
        Some(LastSnapshot {
            routes_changed: Some(routes_changed),
            snapshot,
            ..
        }) => QuietProof::FirstQuietRead {
            routes_changed: *routes_changed,
            unanswered: snapshot.unanswered > 0,
        },
        // Only a later snapshot can tell.
        Some(_) => return wait(None),
    };
    let mut blind = false;
    for history in &facts.sources {
        match history.state(policy, proof, min_wait_over, now) {
            SourceState::Quiet => {}
            SourceState::Blind => blind = true,
            SourceState::Busy(until) => {
                let patience = last
                    .and_then(|last| last.only_persistent)
                    .map(|since| since + policy.max_quiet);
                return match patience {
                    Some(enough) if now >= enough => Decision::End(Outcome::Persistent),
                    enough => wait(until.into_iter().chain(enough).min()),
                };
            }
        }
    }
    Decision::End(if blind {
        Outcome::Blind
    } else {
        Outcome::Drained
    })
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
