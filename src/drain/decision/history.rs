//! What the reads of one source have shown during a drain.

use std::time::Duration;

use tokio::time::Instant;

use crate::drain::reads::Read;
use crate::drain::{Policy, Reading, Source, WhenBlind, WhenStuck};

/// What it takes to take quiet for the end of the work.
#[derive(Debug, Clone, Copy)]
pub enum QuietProof {
    /// Requests may still come, so quiet must last.
    Lasting,
    /// No new ones come since routes have changed; `unanswered` ones may not be counted yet.
    FirstQuietRead {
        routes_changed: Instant,
        unanswered: bool,
    },
}

/// What one source says of the end of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceState {
    Quiet,
    /// It has been unreadable for as long as the policy allows.
    Blind,
    /// Not quiet, and not before then by the passing of time alone.
    Busy(Option<Instant>),
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
    pub(super) connections: bool,
    ends_when_stuck: bool,
    last: Option<Reading>,
    /// The first count.
    first: Option<f64>,
    /// A later count was another.
    has_moved: bool,
    /// At or below the allowed count.
    quiet: Option<Span>,
    /// Nothing listens.
    gone: Option<Span>,
    /// Nothing listens, whether or not anything was ever seen to.
    absent: Option<Span>,
    /// Since when there has been no count.
    blind: Option<Instant>,
}

impl SourceHistory {
    /// Nothing was read yet, so nothing is known.
    pub fn new(began: Instant, source: &Source) -> Self {
        Self {
            connections: source.connections,
            ends_when_stuck: source.ends_when_stuck,
            last: None,
            first: None,
            has_moved: false,
            quiet: None,
            gone: None,
            absent: None,
            blind: Some(began),
        }
    }

    /// Takes in a read.
    pub fn take(&mut self, read: &Read<Reading>, max_inflight: f64) {
        self.last = Some(read.seen);
        if let Reading::Count(n) = read.seen {
            self.has_moved |= *self.first.get_or_insert(n) != n;
        }
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
        self.absent = if gone || read.seen == Reading::Absent {
            Span::extend(self.absent, read)
        } else {
            None
        };
        self.blind = match read.seen {
            Reading::Count(_) => None,
            Reading::Unknown | Reading::Gone | Reading::Absent => self.blind.or(Some(read.began)),
        };
    }

    /// The last count, if the last read gave one.
    pub fn count(&self) -> Option<f64> {
        match self.last {
            Some(Reading::Count(n)) => Some(n),
            _ => None,
        }
    }

    /// Whether it is readable, and has said the same since the drain began.
    pub fn has_not_moved(&self) -> bool {
        self.count().is_some() && !self.has_moved && !self.connections
    }

    /// Whether a stuck count of it ends a drain.
    pub fn ends_when_stuck(&self, policy: &Policy) -> bool {
        match policy.when_stuck {
            Some(when_stuck) => when_stuck == WhenStuck::End,
            None => self.ends_when_stuck,
        }
    }

    /// At or below the allowed count at the last read.
    pub fn is_quiet(&self) -> bool {
        self.quiet.is_some()
    }

    /// Nothing listened at the last read, where something used to.
    pub fn is_gone(&self) -> bool {
        self.gone.is_some()
    }

    /// Nothing has listened for that long.
    pub fn is_gone_for(&self, long: Duration) -> bool {
        self.gone.is_some_and(|span| span.length() >= long)
    }

    /// Nothing has listened for that long, whether or not anything was ever seen to.
    pub fn is_absent_for(&self, long: Duration) -> bool {
        self.absent.is_some_and(|span| span.length() >= long)
    }

    /// The last read, if there was one.
    pub fn last(&self) -> Option<Reading> {
        self.last
    }

    /// When a read has to begin to prove that quiet has lasted long enough, should nothing change until then.
    pub fn read_wanted(&self, policy: &Policy, min_wait_over: Option<Instant>) -> Option<Instant> {
        let span = self.quiet.or(self.gone)?;
        Some((span.from + policy.quiet_period).max(min_wait_over?))
    }

    /// What it says of the end of the work, once min-wait is over.
    pub fn state(
        &self,
        policy: &Policy,
        proof: QuietProof,
        min_wait_over: Instant,
        now: Instant,
    ) -> SourceState {
        if let Some(span) = self.quiet {
            let done = match proof {
                // Requests may come for as long as routes lead here: the last read has to be later than that.
                QuietProof::Lasting => {
                    span.length() >= policy.quiet_period && span.to >= min_wait_over
                }
                QuietProof::FirstQuietRead {
                    routes_changed,
                    unanswered,
                } => {
                    span.to >= routes_changed && (!unanswered || span.length() >= policy.max_quiet)
                }
            };
            return if done {
                SourceState::Quiet
            } else {
                SourceState::Busy(None)
            };
        }
        let window = match policy.when_blind {
            WhenBlind::Wait => return SourceState::Busy(None),
            WhenBlind::Window(window) => window,
            WhenBlind::Proceed => policy.quiet_period,
        };
        match self.blind.map(|since| since + window) {
            Some(enough) if now >= enough => SourceState::Blind,
            changes => SourceState::Busy(changes),
        }
    }
}
