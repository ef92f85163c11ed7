//! When a drain is over: a pure function of what was seen and of now.

use std::time::Duration;

use tokio::time::Instant;

use super::reads::Read;
use super::{Outcome, Policy, Reading, WhenBlind};

/// What is known about the drain that runs.
#[derive(Debug)]
pub struct Facts {
    pub began: Instant,
    pub deadline: Instant,
    /// The sidecar was told to stop.
    pub signalled: bool,
    pub sources: Vec<Track>,
}

impl Facts {
    /// The largest of the counts; none where one of them is unknown.
    pub fn inflight(&self) -> Option<f64> {
        self.sources
            .iter()
            .map(Track::count)
            .try_fold(0.0, |most: f64, count| Some(most.max(count?)))
    }
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
/// 2. Where nothing listens any more, nothing can be waited for. It takes the quiet period to be sure of that, unless the
///    sidecar was told to stop: a native sidecar is when its app has ended.
/// 3. Before min-wait is over, routes still lead here.
/// 4. Every source is quiet, or has been unreadable for as long as the policy allows.
pub fn decide(policy: &Policy, facts: &Facts, now: Instant) -> Decision {
    if now >= facts.deadline {
        return Decision::End(Outcome::Deadline);
    }
    let gone = |track: &Track| {
        track
            .gone
            .is_some_and(|span| span.length() >= policy.quiet_period)
    };
    let all_gone = !facts.sources.is_empty() && facts.sources.iter().all(gone);
    let any_gone = facts.sources.iter().any(|track| track.gone.is_some());
    if all_gone || (facts.signalled && any_gone) {
        return Decision::End(Outcome::AppGone);
    }
    let open_until = facts.began + policy.min_wait;
    if now < open_until {
        return Decision::Wait(open_until.min(facts.deadline));
    }
    let mut blind = false;
    for track in &facts.sources {
        match track.settled(policy, facts.began, now) {
            Settled::Quiet => {}
            Settled::Blind => blind = true,
            Settled::Not(until) => {
                return Decision::Wait(until.unwrap_or(facts.deadline).min(facts.deadline));
            }
        }
    }
    Decision::End(if blind {
        Outcome::Blind
    } else {
        Outcome::Drained
    })
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
    fn extend(span: Option<Span>, read: &Read) -> Option<Span> {
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
pub struct Track {
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

impl Track {
    /// Nothing was read yet, so nothing is known.
    pub fn new(began: Instant) -> Self {
        Self {
            last: None,
            quiet: None,
            gone: None,
            blind: Some(began),
        }
    }

    /// Takes in a read.
    pub fn take(&mut self, read: &Read, max_inflight: f64) {
        self.last = Some(read.reading);
        let quiet = matches!(read.reading, Reading::Count(n) if n <= max_inflight);
        let gone = read.reading == Reading::Gone;
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
        self.blind = match read.reading {
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

    /// When a read has to begin to prove that the source has settled, should it not change until then.
    pub fn settles_at(&self, policy: &Policy, began: Instant) -> Option<Instant> {
        let span = self.quiet.or(self.gone)?;
        Some((span.from + policy.quiet_period).max(began + policy.min_wait))
    }

    fn settled(&self, policy: &Policy, began: Instant, now: Instant) -> Settled {
        if let Some(span) = self.quiet {
            // Requests may come for as long as routes lead here: the last look has to be later than that.
            let done = span.length() >= policy.quiet_period && span.to >= began + policy.min_wait;
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
