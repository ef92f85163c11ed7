//! The best moment to end a drain that no route can end: while clients keep their connections, their requests come and
//! go, and a moment with few of them costs few.
//!
//! This is a problem of optimal stopping: counts are seen one by one, none comes back, and the last has to be taken. For
//! the first quarter of the time the counts are only watched, unless one is zero. Then the first is taken that is as low
//! as the lowest so far. As the time runs out, the rule asks for less: after a part p of what is left, the lowest p⁴ of
//! all counts seen will do. While the counts are so low that zero may still come, only zero is taken.
//!
//! In requests lost of ten clients that keep their connections, and seconds taken of the 10 there are (`simulation`):
//!
//! | requests take | the clients pause for | this rule | the first tenth | zero or the end |
//! | --- | --- | --- | --- | --- |
//! | up to 25 s | 0.05 s | 7.58 in 4.2 s | 7.98 in 2.7 s | 9.11 in 10.0 s |
//! | up to 5 s | 0.05 s | 6.89 in 4.3 s | 7.37 in 2.8 s | 8.77 in 10.0 s |
//! | up to 120 ms | 0.05 s | 2.87 in 4.2 s | 3.52 in 2.5 s | 5.69 in 9.9 s |
//! | up to 25 s | 1.5 s | 1.68 in 4.6 s | 1.72 in 2.7 s | 1.82 in 7.3 s |
//! | up to 5 s | 1.5 s | 0.52 in 3.1 s | 0.85 in 1.8 s | 0.33 in 3.8 s |
//! | up to 120 ms | 1.5 s | 0.00 in 0.1 s | 0.00 in 0.1 s | 0.00 in 0.1 s |
//! | up to 25 s | 3 s | 0.77 in 3.9 s | 0.89 in 1.8 s | 0.75 in 4.9 s |
//! | up to 5 s | 3 s | 0.06 in 1.6 s | 0.38 in 1.0 s | 0.02 in 1.7 s |
//! | up to 120 ms | 3 s | 0.00 in 0.0 s | 0.00 in 0.0 s | 0.00 in 0.0 s |
//! | up to 25 s | 10 s | 0.13 in 1.8 s | 0.26 in 0.7 s | 0.12 in 1.9 s |
//! | up to 5 s | 10 s | 0.00 in 0.4 s | 0.09 in 0.3 s | 0.00 in 0.4 s |
//! | up to 120 ms | 10 s | 0.00 in 0.0 s | 0.00 in 0.0 s | 0.00 in 0.0 s |

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// For this part of the time counts are only watched.
pub const WATCH: u32 = 4;

/// How soon the rule asks for less.
const PATIENCE: i32 = 4;

/// Zero may still come where so many moments of it are to be expected in the time that is left: of counts like those of a
/// Poisson process with the mean seen so far, one in e^mean is zero, and after a second they are taken to be others.
const ZEROS: f64 = 0.3;

/// The search for the best moment.
#[derive(Debug, Clone, PartialEq)]
pub struct BestMoment {
    /// From then on a count of zero is taken.
    zero_from: Instant,
    /// From then on a low count is taken.
    accepts_from: Instant,
    ends: Instant,
    /// How often each count was seen.
    seen: BTreeMap<u64, u32>,
    total: u32,
    sum: u64,
    has_come: bool,
}

impl BestMoment {
    /// A search over all the time from then on.
    pub fn within(from: Instant, length: Duration) -> Self {
        Self {
            zero_from: from,
            accepts_from: from + length / WATCH,
            ..Self::late(from, from + length)
        }
    }

    /// A search that takes nothing before `accepts_from`, not even zero, and ends at `ends`.
    pub fn late(accepts_from: Instant, ends: Instant) -> Self {
        Self {
            zero_from: accepts_from,
            accepts_from,
            ends,
            seen: BTreeMap::new(),
            total: 0,
            sum: 0,
            has_come: false,
        }
    }

    /// Takes in the count of now.
    pub fn take(&mut self, count: u64, now: Instant) {
        let enough = now >= self.accepts_from
            && count <= self.threshold(now)
            && self.zeros_to_come(now) < ZEROS;
        *self.seen.entry(count).or_default() += 1;
        self.total += 1;
        self.sum += count;
        self.has_come = enough || count == 0 && now >= self.zero_from;
    }

    /// Whether the last count is low enough to end with, or the time is up.
    pub fn has_come(&self, now: Instant) -> bool {
        self.has_come || now >= self.ends
    }

    /// The last moment.
    pub fn ends(&self) -> Instant {
        self.ends
    }

    /// How many moments without any request are to be expected in the time that is left.
    fn zeros_to_come(&self, now: Instant) -> f64 {
        let left = self.ends.saturating_duration_since(now).as_secs_f64();
        let mean = self.sum as f64 / f64::from(self.total.max(1));
        left * (-mean).exp()
    }

    /// The highest count that is low enough now.
    fn threshold(&self, now: Instant) -> u64 {
        let length = self.ends.saturating_duration_since(self.accepts_from);
        let passed = now.saturating_duration_since(self.accepts_from);
        let part = match length.is_zero() {
            true => 1.0,
            false => (passed.as_secs_f64() / length.as_secs_f64()).min(1.0),
        };
        let rank = part.powi(PATIENCE) * f64::from(self.total);
        let mut below = 0;
        for (&count, &times) in &self.seen {
            below += times;
            if f64::from(below) > rank {
                return count;
            }
        }
        self.seen
            .last_key_value()
            .map_or(u64::MAX, |(&most, _)| most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::{SECOND, seconds};

    fn first_taken(counts: impl Fn(u32) -> u64) -> u32 {
        let start = Instant::now();
        let mut moment = BestMoment::within(start, 10 * SECOND);
        (0..)
            .find(|&step| {
                let now = start + step * SECOND / 10;
                moment.take(counts(step), now);
                moment.has_come(now)
            })
            .unwrap()
    }

    #[test]
    fn zero_is_taken_at_once() {
        assert_eq!(first_taken(|step| u64::from(step < 3)), 3);
    }

    #[test]
    fn after_the_watch_the_first_count_as_low_as_the_lowest_is_taken() {
        let lowest_at_start = |step| if step == 0 || step == 40 { 2 } else { 9 };
        assert_eq!(first_taken(lowest_at_start), 40);
        assert_eq!(first_taken(|_| 5), 25, "the same all the time");
    }

    #[test]
    fn less_is_asked_for_as_the_time_runs_out_and_the_end_takes_what_there_is() {
        // It was low for a while, and rises since.
        let rises = |step: u32| u64::from(step) / 10 + 1;
        let taken = first_taken(rises);
        assert!((95..=100).contains(&taken), "{taken}");
        // Every second count is 3: after a part p of the time, more than half of the counts being as low, p⁴ > 1/20.
        let lowest_is_rare = |step: u32| match (step < 5, step % 2) {
            (true, _) => 1,
            (_, 0) => 3,
            _ => 8,
        };
        let taken = first_taken(lowest_is_rare);
        assert!((50..75).contains(&taken), "{taken}");
    }

    #[test]
    fn while_zero_may_still_come_nothing_else_is_taken() {
        let mostly_one = |step: u32| u64::from(step != 60);
        assert_eq!(first_taken(mostly_one), 60);
        assert!(first_taken(|_| 1) > 90);
    }

    #[test]
    fn a_late_search_takes_nothing_before_its_time() {
        let start = Instant::now();
        let mut moment = BestMoment::late(start + 5 * SECOND, start + 10 * SECOND);
        moment.take(0, start + 4 * SECOND);
        assert!(!moment.has_come(start + 4 * SECOND));
        moment.take(0, start + 5 * SECOND);
        assert!(moment.has_come(start + 5 * SECOND));
    }

    #[test]
    fn without_a_count_the_end_is_the_end() {
        let start = Instant::now();
        let moment = BestMoment::within(start, 10 * SECOND);
        assert!(!moment.has_come(start + seconds(9.9)));
        assert!(moment.has_come(start + 10 * SECOND));
    }
}
