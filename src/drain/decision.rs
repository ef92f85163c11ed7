//! When a drain is over: a pure function of what was seen and of now.

use std::time::Duration;

use tokio::time::Instant;

use super::reads::Read;
use super::{Outcome, Policy, Reading, TrafficSnapshot, WhenBlind};

/// What is known about the drain that runs.
#[derive(Debug)]
pub struct Facts {
    pub began: Instant,
    pub deadline: Instant,
    /// The sidecar was told to stop.
    pub signalled: bool,
    /// Since when Services send nobody here any more, as far as anybody can say: the beginning where nobody is asked,
    /// none while the answer is awaited.
    pub left: Option<Instant>,
    pub sources: Vec<SourceHistory>,
    pub traffic: Traffic,
}

/// What is known of the traffic on the app's ports.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Traffic {
    /// Nothing, and nothing will be: only time can tell that routes have changed.
    Unwatched,
    /// Nothing yet.
    Awaited,
    Seen(Seen),
}

/// The last look at the traffic, and what follows from all of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    pub sight: TrafficSnapshot,
    /// When that look began: what came later is not in it.
    looked: Instant,
    /// Routes are seen to have changed by then.
    settled: Option<Instant>,
    /// Since when there has been nothing but clients that keep their connections.
    only_persistent: Option<Instant>,
    /// Since when no look has seen anything.
    failing: Option<Instant>,
}

impl Facts {
    /// The largest of the counts; none where one of them is unknown.
    pub fn inflight(&self) -> Option<f64> {
        self.sources
            .iter()
            .map(SourceHistory::count)
            .try_fold(0.0, |most: f64, count| Some(most.max(count?)))
    }

    /// Takes in a look at the traffic that began then. One that saw nothing proves nothing; if they go on to, or the first
    /// did, there is nothing to go by.
    pub fn look(&mut self, policy: &Policy, looked: Instant, sight: Option<TrafficSnapshot>) {
        let Some(sight) = sight else {
            self.traffic = match self.traffic {
                Traffic::Seen(seen)
                    if looked < seen.failing.unwrap_or(looked) + policy.max_quiet =>
                {
                    Traffic::Seen(Seen {
                        settled: None,
                        only_persistent: None,
                        failing: seen.failing.or(Some(looked)),
                        ..seen
                    })
                }
                _ => Traffic::Unwatched,
            };
            return;
        };
        let settles = self.settles_at(policy, &sight);
        let settled = settles.filter(|&settles| looked >= settles);
        let before = match self.traffic {
            Traffic::Seen(seen) => seen.only_persistent,
            _ => None,
        };
        // A client that keeps its connection has at most one request on it, and if that ended since the last read, its
        // answer moved bytes. A count beyond that is of requests that share a connection, as HTTP/2 has it, and of those
        // nobody can say which are new.
        let explained = (self.sources.iter()).all(|history| {
            (history.count()).is_some_and(|n| history.connections || n <= sight.active as f64)
        });
        let only_persistent = settled.is_some() && sight.held == Some(0) && explained;
        self.traffic = Traffic::Seen(Seen {
            sight,
            looked,
            settled,
            only_persistent: only_persistent.then(|| before.unwrap_or(looked)),
            failing: None,
        });
    }

    /// By when routes are seen to have changed, if they are.
    pub fn settled(&self) -> Option<Instant> {
        match self.traffic {
            Traffic::Seen(seen) => seen.settled,
            _ => None,
        }
    }

    /// The last look at the traffic.
    pub fn sight(&self) -> Option<TrafficSnapshot> {
        match self.traffic {
            Traffic::Seen(seen) => Some(seen.sight),
            _ => None,
        }
    }

    /// Connections that arrived, where anybody looks.
    pub fn arrivals(&self) -> Option<u64> {
        self.sight().map(|sight| sight.arrivals)
    }

    /// When a look has to begin to prove that routes have changed, should nothing arrive until then.
    pub fn look_wanted(&self, policy: &Policy) -> Option<Instant> {
        match self.traffic {
            Traffic::Seen(seen) if seen.settled.is_none() => self.settles_at(policy, &seen.sight),
            _ => None,
        }
    }

    /// When min-wait is over, if it has begun.
    pub fn open_until(&self, policy: &Policy) -> Option<Instant> {
        self.left.map(|left| left + policy.min_wait)
    }

    /// When routes have changed if nothing more arrives: after min-wait, and after the silence that the traffic asks
    /// for.
    fn settles_at(&self, policy: &Policy, sight: &TrafficSnapshot) -> Option<Instant> {
        let open_until = self.open_until(policy)?;
        let Some(last) = sight.last_arrival else {
            return Some(open_until);
        };
        let silence = silence(sight.arrivals, last.saturating_duration_since(self.began));
        let silence = silence.clamp(
            policy.quiet_period,
            policy.max_quiet.max(policy.quiet_period),
        );
        Some(open_until.max(last + silence))
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

/// Wait until then at most, unless something is seen before; or the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    Wait(Instant),
    End(Outcome),
}

/// Decides. The rules, in this order:
///
/// 1. The deadline ends every drain.
/// 2. Where nothing listens any more and the app holds no connection, nothing can be waited for. It takes the quiet
///    period to be sure of that, unless the sidecar was told to stop: a native sidecar is when its app has ended.
/// 3. Before min-wait is over, routes still lead here; and so they do where traffic is watched, until nothing has arrived
///    for the silence that it asks for. Where Services are asked, min-wait begins when they send nobody any more.
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
    let seen = match facts.traffic {
        Traffic::Unwatched => None,
        // A look has a time limit of its own.
        Traffic::Awaited => return wait(None),
        Traffic::Seen(seen) => Some(seen),
    };
    let deserted = seen.is_none_or(|seen| seen.failing.is_none() && seen.sight.is_deserted());
    let gone = |history: &SourceHistory| history.is_gone_for(policy.quiet_period);
    let all_gone = !facts.sources.is_empty() && facts.sources.iter().all(gone);
    let any_gone = facts.sources.iter().any(|history| history.gone.is_some());
    if deserted && (all_gone || (facts.signalled && any_gone)) {
        return Decision::End(Outcome::AppGone);
    }
    let open_until = match facts.open_until(policy) {
        Some(open_until) if now >= open_until => open_until,
        until => return wait(until),
    };
    let proof = match seen {
        None => Proof::Lasting,
        Some(Seen {
            settled: Some(settled),
            sight,
            ..
        }) => Proof::After {
            settled,
            unanswered: sight.unanswered > 0,
        },
        // Only a look can tell.
        Some(_) => return wait(None),
    };
    let mut blind = false;
    for history in &facts.sources {
        match history.settled(policy, proof, open_until, now) {
            Settled::Quiet => {}
            Settled::Blind => blind = true,
            Settled::Not(until) => {
                let patience = seen
                    .and_then(|seen| seen.only_persistent)
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

/// What it takes to take quiet for the end of the work.
#[derive(Debug, Clone, Copy)]
enum Proof {
    /// Requests may still come, so quiet must last.
    Lasting,
    /// No new ones come since then; `unanswered` ones may not be counted yet.
    After { settled: Instant, unanswered: bool },
}

/// A stretch of time over which something was seen again and again.
///
/// Both ends are on the safe side: it begins when the first read that saw it had ended, and ends when the last one began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Instant,
    pub to: Instant,
}

impl Span {
    fn extend(span: Option<Span>, read: &Read<Reading>) -> Option<Span> {
        Some(Span {
            from: span.map_or(read.ended, |span| span.from),
            to: read.began,
        })
    }

    /// Nothing for a single read.
    pub fn length(self) -> Duration {
        self.to.saturating_duration_since(self.from)
    }
}

/// What was seen of one source in this drain.
#[derive(Debug, Clone)]
pub struct SourceHistory {
    /// It counts busy connections.
    connections: bool,
    last: Option<Reading>,
    /// At or below the allowed count.
    quiet: Option<Span>,
    /// Nothing listens.
    gone: Option<Span>,
    /// Since when there has been no count.
    blind: Option<Instant>,
}

enum Settled {
    Quiet,
    Blind,
    /// Not yet, and not before then by the passing of time alone.
    Not(Option<Instant>),
}

impl SourceHistory {
    /// Nothing was read yet, so nothing is known.
    pub fn new(began: Instant, connections: bool) -> Self {
        Self {
            connections,
            last: None,
            quiet: None,
            gone: None,
            blind: Some(began),
        }
    }

    /// Takes in a read.
    pub fn take(&mut self, read: &Read<Reading>, max_inflight: f64) {
        self.last = Some(read.seen);
        let quiet = matches!(read.seen, Reading::Count(n) if n <= max_inflight);
        let gone = read.seen == Reading::Gone;
        self.quiet = if quiet {
            Span::extend(self.quiet, read)
        } else {
            None
        };
        self.gone = if gone {
            Span::extend(self.gone, read)
        } else {
            None
        };
        self.blind = match read.seen {
            Reading::Count(_) => None,
            Reading::Unknown | Reading::Gone => self.blind.or(Some(read.began)),
        };
    }

    /// The last count, if the last read gave one.
    pub fn count(&self) -> Option<f64> {
        match self.last {
            Some(Reading::Count(n)) => Some(n),
            _ => None,
        }
    }

    /// Nothing has listened for that long.
    pub fn is_gone_for(&self, long: Duration) -> bool {
        self.gone.is_some_and(|span| span.length() >= long)
    }

    /// When a read has to begin to prove that the source has settled, should it not change until then.
    pub fn settles_at(&self, policy: &Policy, open_until: Option<Instant>) -> Option<Instant> {
        let span = self.quiet.or(self.gone)?;
        Some((span.from + policy.quiet_period).max(open_until?))
    }

    fn settled(&self, policy: &Policy, proof: Proof, open_until: Instant, now: Instant) -> Settled {
        if let Some(span) = self.quiet {
            let done = match proof {
                // Requests may come for as long as routes lead here: the last look has to be later than that.
                Proof::Lasting => span.length() >= policy.quiet_period && span.to >= open_until,
                Proof::After {
                    settled,
                    unanswered,
                } => span.to >= settled && (!unanswered || span.length() >= policy.max_quiet),
            };
            return if done {
                Settled::Quiet
            } else {
                Settled::Not(None)
            };
        }
        let window = match policy.when_blind {
            WhenBlind::Wait => return Settled::Not(None),
            WhenBlind::Window(window) => window,
            WhenBlind::Proceed => policy.quiet_period,
        };
        match self.blind.map(|since| since + window) {
            Some(enough) if now >= enough => Settled::Blind,
            changes => Settled::Not(changes),
        }
    }
}

#[cfg(test)]
mod simulation;
