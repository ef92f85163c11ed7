//! A metrics page that several processes of an app serve by turns, each with a count of its own.
//!
//! Workers that share a port (gunicorn, uvicorn `--workers`, Node's cluster) each answer for themselves, and the kernel
//! chooses which one answers: one read says what one of them does. Such a page shows itself by what belongs to a process:
//! its start time, a label of its id, or a counter that goes down and up again.
//!
//! Once that is seen, the count is the sum of each process's last answer, and it is believed when every process has had
//! its turn. The kernel's choice is not even: of three workers of uvicorn, one was seen to take 80 % of the reads and
//! another 9 %. So how long that takes follows from what was seen. Of a process that has answered in k of r rounds of
//! reads, and of one as rare that was never seen, no answer is expected for longer than (5 + ln n)·r/k rounds: that is
//! longer than its turn takes with the chance e^-(5 + ln n), and for any of n processes in fewer than one time in 150.
//!
//! Processes may have the same start time: those that were forked within one tick of the kernel's clock (10 ms), or
//! within a second where a client rounds it. A process whose counters go down is several of them. Which of these has
//! answered is not known, so the largest of their late answers is taken.

mod rounds;
mod signs;

use std::time::Duration;

use tokio::time::Instant;

use rounds::{Run, turns_needed};
pub use signs::{Signs, SignsReader};

/// Reads that are further apart than this are not of the same drain, or not of the same start.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The most processes that are told apart; a page that changes more often than that says nothing anyway.
const MOST: usize = 256;

/// The processes that have answered the reads of one source.
#[derive(Debug, Default)]
pub struct Processes {
    /// There are several: it does not become untrue.
    several: bool,
    /// The most that were told apart in one run of reads.
    told_apart: usize,
    /// The most that there must have been in one run of reads, with those that cannot be told apart.
    known: usize,
    run: Run,
}

/// What the reads so far come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Believed {
    /// This count.
    Count(f64),
    /// Nothing yet: of at least so many processes, so many have answered often enough, and not too long ago.
    NotYet { answered: usize, processes: usize },
}

impl Processes {
    /// Begins a round: reads that are made at once, most of which one process may answer.
    pub fn begin_round(&mut self, now: Instant) {
        let gap = (self.run.last()).map(|last| now.saturating_duration_since(last));
        if gap.is_some_and(|gap| gap > LONGEST_GAP) {
            self.run = Run::default();
        }
        self.run.begin_round(now);
    }

    /// Takes one read of the round, and says what to believe; `enough` is the count that may end a drain.
    pub fn take(&mut self, value: f64, signs: &Signs, enough: f64) -> Believed {
        self.run.take(value, signs);
        self.several |= self.run.shows_several();
        self.told_apart = self.told_apart.max(self.run.told_apart());
        self.known = self.known.max(self.run.processes());
        match self.several {
            true => self.judge(enough),
            false => Believed::Count(value),
        }
    }

    /// Whether the page comes from several processes by turns.
    pub fn are_several(&self) -> bool {
        self.several
    }

    /// How many rounds there were without a long pause.
    pub fn rounds(&self) -> usize {
        self.run.rounds()
    }

    /// How many processes there are at least, as far as is known.
    pub fn count(&self) -> usize {
        self.known.clamp(2, MOST)
    }

    fn judge(&self, enough: f64) -> Believed {
        let processes = self.count();
        let value = self.run.count(processes);
        let answered = self.run.settled(processes);
        let all = answered >= self.told_apart && answered == self.run.told_apart();
        let long_enough =
            !self.run.has_shared() || self.run.rounds() >= turns_needed(processes + 1);
        if value > enough || (all && long_enough) {
            Believed::Count(value)
        } else {
            Believed::NotYet {
                answered,
                processes,
            }
        }
    }
}

#[cfg(test)]
mod tests;
