//! Rounds of reads without a long pause, and what they show of the processes that answered.

use std::collections::VecDeque;

use tokio::time::Instant;

use super::{MOST, Signs};

/// Two start times that are one second apart can be one: where the kernel's boot time is rounded, it may come out
/// differently from one read to the next.
const ROUNDING: f64 = 1.0;

/// The most answers that are kept, for processes that turn out to be several.
const MOST_ANSWERS: usize = 2048;

/// Rounds of reads without a long pause between them.
#[derive(Debug, Default)]
pub struct Run {
    last: Option<Instant>,
    rounds: usize,
    processes: Vec<Process>,
    /// The last answers, the newest first.
    answers: VecDeque<Answer>,
    starts: Vec<f64>,
    ids: Vec<Vec<String>>,
    /// Of all processes together.
    counters: Counters,
}

/// What the answers under one key show: those of a process, or of several that have the same key.
#[derive(Debug)]
struct Process {
    key: Option<u64>,
    /// The last answer, and its round.
    value: f64,
    round: usize,
    /// In how many rounds it has answered.
    rounds: usize,
    /// In how many rounds with work in flight, and the last of these.
    busy: usize,
    last_busy: usize,
    counters: Counters,
}

/// One answer: of which process, in which round, what.
#[derive(Debug, Clone, Copy)]
struct Answer {
    process: usize,
    round: usize,
    value: f64,
}

/// The counters of a process, which never go down.
#[derive(Debug, Default)]
struct Counters {
    /// The last round of which they were taken.
    round: usize,
    cpu: Falls,
    asked: Falls,
}

/// How often a counter has gone down, and how many that never go down it could be made of.
#[derive(Debug, Default)]
struct Falls {
    last: Option<f64>,
    falls: usize,
    /// The last value of each, by greed: the fewest that can be.
    tops: Vec<f64>,
}

/// How many turns it takes for each of n processes to have had one, but for one time in 150, where all turns are equally
/// likely.
pub fn turns_needed(processes: usize) -> usize {
    (processes as f64 * turns_of_each(processes)).ceil() as usize
}

/// How many turns of its own a process has in the time that it takes each of n as likely to have one, but for one time in
/// 150.
fn turns_of_each(processes: usize) -> f64 {
    5.0 + (processes.max(1) as f64).ln()
}

impl Run {
    /// Begins another round.
    pub fn begin_round(&mut self, now: Instant) {
        self.last = Some(now);
        self.rounds += 1;
    }

    /// When the last round began.
    pub fn last(&self) -> Option<Instant> {
        self.last
    }

    /// Moves the last round to another time.
    #[cfg(test)]
    pub fn set_last(&mut self, last: Instant) {
        self.last = Some(last);
    }

    /// How many rounds there were.
    pub fn rounds(&self) -> usize {
        self.rounds
    }

    /// Takes one read of the round.
    pub fn take(&mut self, value: f64, signs: &Signs) {
        let key = signs.key();
        let known = self.processes.iter().position(|process| process.key == key);
        let index = known.unwrap_or(self.processes.len());
        if known.is_none() && index < MOST {
            self.processes.push(Process::new(key));
        }
        if let Some(process) = self.processes.get_mut(index) {
            process.take(self.rounds, value, signs);
            self.answers.push_front(Answer {
                process: index,
                round: self.rounds,
                value,
            });
            self.answers.truncate(MOST_ANSWERS);
        }
        if let Some(start) = signs.start
            && self.starts.last() != Some(&start)
            && self.starts.len() < MOST
        {
            self.starts.push(start);
        }
        if !signs.ids.is_empty() && self.ids.last() != Some(&signs.ids) && self.ids.len() < MOST {
            self.ids.push(signs.ids.clone());
        }
        self.counters.take(self.rounds, signs);
    }

    /// How many keys there are.
    pub fn told_apart(&self) -> usize {
        self.processes.len()
    }

    /// How many processes there are at least.
    pub fn processes(&self) -> usize {
        let by_keys: usize = self.processes.iter().map(Process::at_least).sum();
        by_keys.max(self.counters.at_least())
    }

    /// Whether some of them cannot be told apart.
    pub fn has_shared(&self) -> bool {
        self.processes.iter().any(Process::is_shared)
    }

    /// How many requests they have in flight together, at least, where there are so many processes.
    pub fn count(&self, processes: usize) -> f64 {
        let value = |(index, process): (usize, &Process)| match process.is_shared() {
            false => process.value,
            true => {
                let late = self.rounds.saturating_sub(process.silence(processes));
                (self.answers.iter())
                    .filter(|answer| answer.process == index && answer.round > late)
                    .fold(0.0, |most: f64, answer| most.max(answer.value))
            }
        };
        self.processes.iter().enumerate().map(value).sum()
    }

    /// How many of those that can be told apart have answered so often that another as rare would have been seen too, and
    /// the last time not longer ago than a turn of theirs takes.
    pub fn settled(&self, processes: usize) -> usize {
        let turns = turns_of_each(processes);
        (self.processes.iter())
            .filter(|process| {
                let own = process.rounds as f64;
                let silent = (self.rounds - process.round) as f64;
                own >= turns && silent * own <= turns * self.rounds as f64
            })
            .count()
    }

    /// Whether there is more than one process.
    pub fn shows_several(&self) -> bool {
        self.starts_alternate() || self.ids_alternate() || self.counters.falls() > 1
    }

    /// A process that was restarted has a new start time, and the old one does not come back. Nor is it restarted twice
    /// within a few seconds.
    fn starts_alternate(&self) -> bool {
        let differ = |a: f64, b: f64| {
            let apart = (a - b).abs();
            apart > 0.0 && (apart - ROUNDING).abs() > 1e-3
        };
        let returns = (self.starts.windows(3))
            .any(|three| three[0] == three[2] && differ(three[0], three[1]));
        let mut apart: Vec<f64> = self.starts.clone();
        apart.sort_by(f64::total_cmp);
        apart.dedup();
        returns || (apart.len() >= 3 && apart[apart.len() - 1] - apart[0] > ROUNDING * 1.5)
    }

    /// Ids that were gone, and all others with them, come back.
    fn ids_alternate(&self) -> bool {
        let apart = |a: &[String], b: &[String]| a.iter().all(|id| b.binary_search(id).is_err());
        (self.ids.windows(3))
            .any(|three| apart(&three[0], &three[1]) && !apart(&three[0], &three[2]))
    }
}

impl Process {
    fn new(key: Option<u64>) -> Self {
        Self {
            key,
            value: 0.0,
            round: 0,
            rounds: 0,
            busy: 0,
            last_busy: 0,
            counters: Counters::default(),
        }
    }

    fn take(&mut self, round: usize, value: f64, signs: &Signs) {
        self.rounds += usize::from(self.round < round);
        (self.round, self.value) = (round, value);
        if value > 0.0 {
            self.busy += usize::from(self.last_busy < round);
            self.last_busy = round;
        }
        self.counters.take(round, signs);
    }

    /// Whether several processes have this key. One that was restarted has another start time, or another id.
    fn is_shared(&self) -> bool {
        self.key.is_none() || self.counters.falls() > 0
    }

    /// How many processes have this key, at least.
    fn at_least(&self) -> usize {
        match self.is_shared() {
            true => self.counters.at_least(),
            false => 1,
        }
    }

    /// For how many rounds no answer must have shown work: as for processes of which each answers as often, and as for
    /// the one that has.
    fn silence(&self, processes: usize) -> usize {
        let busy = self.busy.max(1) as f64;
        let as_rare = turns_of_each(self.busy) * self.last_busy as f64 / busy;
        turns_needed(processes + 1).max(as_rare.ceil() as usize)
    }
}

impl Counters {
    /// Of reads that are made at once it is not known which page was written first, so that one process may seem to go
    /// back in them: the first of a round is taken.
    fn take(&mut self, round: usize, signs: &Signs) {
        if self.round < round {
            self.round = round;
            self.cpu.take(signs.cpu);
            self.asked.take(signs.counters);
        }
    }

    fn falls(&self) -> usize {
        self.cpu.falls.max(self.asked.falls)
    }

    /// How many processes it takes.
    fn at_least(&self) -> usize {
        self.cpu.tops.len().max(self.asked.tops.len()).max(1)
    }
}

impl Falls {
    fn take(&mut self, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return;
        };
        // Sums of the same numbers in another order may differ in their last bits.
        let lowest = |value: f64| value + value.abs() * 1e-9;
        if self.last.is_some_and(|last| lowest(value) < last) {
            self.falls += 1;
        }
        self.last = Some(value);
        let room = self.tops.len() < MOST;
        let fits = (self.tops.iter_mut())
            .filter(|top| **top <= lowest(value))
            .max_by(|a, b| a.total_cmp(b));
        match fits {
            Some(top) => *top = value,
            None if room => self.tops.push(value),
            None => {}
        }
    }
}
