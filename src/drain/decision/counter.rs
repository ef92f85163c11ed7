//! What the reads of one counter of requests have shown during a drain.

use tokio::time::Instant;

use crate::drain::Reading;
use crate::drain::reads::Read;

/// A counter falls when its app is restarted, which happens once in a drain at most. A sum of a counter and a gauge, made
/// to count requests as they start, may be read between the two, and then falls by a little. What falls for every few
/// times that it rises is a gauge.
const RISES_PER_FALL: u32 = 4;

/// What was seen of one counter of requests in this drain.
#[derive(Debug, Clone, Default)]
pub struct CounterHistory {
    /// The value at the last read that gave one.
    value: Option<f64>,
    /// When the last read began, if that gave a value.
    read: Option<Instant>,
    /// How far it has risen since the drain began.
    risen: f64,
    /// When a read last showed a rise.
    last_rise: Option<Instant>,
    rises: u32,
    falls: u32,
    /// It was said that it is a gauge.
    said_gauge: bool,
}

/// What there is to say of a counter's read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CounterNews {
    None,
    /// It began anew.
    Restarted,
    /// It falls as no counter does; said once.
    IsGauge,
}

impl CounterHistory {
    /// Takes in a read. A rise of n is n requests, the last of them when the read ended. After a fall to less than half the
    /// app has been restarted, and all that the counter says is new.
    pub fn take(&mut self, read: &Read<Reading>) -> CounterNews {
        let Reading::Count(value) = read.seen else {
            self.read = None;
            return CounterNews::None;
        };
        self.read = Some(read.began);
        let Some(before) = self.value.replace(value) else {
            return CounterNews::None;
        };
        let restarted = value < before / 2.0;
        let rise = match restarted {
            true => value,
            false => value - before,
        };
        if rise > 0.0 {
            self.risen += rise;
            self.last_rise = Some(read.ended);
            self.rises += 1;
        }
        if value >= before {
            return CounterNews::None;
        }
        self.falls += 1;
        match self.is_gauge() && !std::mem::replace(&mut self.said_gauge, true) {
            true => CounterNews::IsGauge,
            false if restarted => CounterNews::Restarted,
            false => CounterNews::None,
        }
    }

    /// Whether it falls as no counter does.
    fn is_gauge(&self) -> bool {
        self.falls >= 2 && self.falls * RISES_PER_FALL >= self.rises
    }
}

/// What all counters together say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counted {
    /// Requests since the drain began.
    pub requests: u64,
    /// When the last of them was seen.
    pub last: Option<Instant>,
    /// All counters were read later than that.
    pub read: Instant,
    /// Their values are zero: they have not counted any request in their lives.
    pub never_moved: bool,
}

/// What counters say together; none where there is none, one cannot be read, or one falls as no counter does.
pub fn counted(counters: &[CounterHistory]) -> Option<Counted> {
    let read = (counters.iter())
        .map(|counter| counter.read.filter(|_| !counter.is_gauge()))
        .try_fold(None, |earliest: Option<Instant>, read| {
            let read = read?;
            Some(Some(earliest.map_or(read, |earliest| earliest.min(read))))
        })??;
    let risen: f64 = counters.iter().map(|counter| counter.risen).sum();
    Some(Counted {
        requests: risen.ceil() as u64,
        last: counters
            .iter()
            .filter_map(|counter| counter.last_rise)
            .max(),
        read,
        never_moved: counters.iter().all(|counter| counter.value == Some(0.0)),
    })
}

/// What a counter has counted after each of these readings, and what there was to say of it; a reading of nothing is one
/// that failed. For the fuzz target.
pub fn counted_of(readings: &[Option<f64>]) -> Vec<(Option<u64>, CounterNews)> {
    let now = Instant::now();
    let mut history = CounterHistory::default();
    let take = |reading: &Option<f64>| {
        let news = history.take(&Read {
            source: 0,
            began: now,
            ended: now,
            seen: reading.map_or(Reading::Unknown, Reading::Count),
        });
        let counted = counted(std::slice::from_ref(&history));
        (counted.map(|counted| counted.requests), news)
    };
    readings.iter().map(take).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::SECOND;

    fn read(at: Instant, seen: Reading) -> Read<Reading> {
        Read {
            source: 0,
            began: at,
            ended: at,
            seen,
        }
    }

    fn history(start: Instant, values: &[Reading]) -> CounterHistory {
        let mut history = CounterHistory::default();
        for (n, &seen) in (0..).zip(values) {
            history.take(&read(start + n * SECOND, seen));
        }
        history
    }

    #[test]
    fn a_rise_of_n_is_n_requests_and_the_first_read_is_where_it_begins() {
        let now = Instant::now();
        let values = [100.0, 103.0, 103.0, 107.0, 107.0].map(Reading::Count);
        let counted = counted(&[history(now, &values)]).unwrap();
        assert_eq!(
            (counted.requests, counted.last, counted.read),
            (7, Some(now + 3 * SECOND), now + 4 * SECOND)
        );
    }

    #[test]
    fn a_counter_that_cannot_be_read_says_nothing_and_what_rose_meanwhile_counts_later() {
        let now = Instant::now();
        let unread = [Reading::Count(5.0), Reading::Unknown];
        assert_eq!(counted(&[history(now, &unread)]), None);
        let again = [Reading::Count(5.0), Reading::Unknown, Reading::Count(8.0)];
        assert_eq!(counted(&[history(now, &again)]).unwrap().requests, 3);
        let other = [Reading::Count(5.0), Reading::Count(5.0)];
        assert_eq!(
            counted(&[history(now, &other), history(now, &unread)]),
            None
        );
        assert_eq!(counted(&[]), None);
    }

    #[test]
    fn a_fall_is_a_restart_and_a_second_one_shows_a_gauge() {
        let now = Instant::now();
        let mut history = history(now, &[Reading::Count(50.0)]);
        let fell = history.take(&read(now + SECOND, Reading::Count(2.0)));
        assert_eq!(fell, CounterNews::Restarted);
        assert_eq!(counted(&[history.clone()]).unwrap().requests, 2);
        let again = history.take(&read(now + 2 * SECOND, Reading::Count(0.0)));
        assert_eq!(again, CounterNews::IsGauge);
        assert_eq!(counted(&[history]), None);
    }

    #[test]
    fn a_sum_that_falls_by_a_little_now_and_then_is_still_a_counter() {
        let now = Instant::now();
        let mut history = CounterHistory::default();
        for n in 0..40_u32 {
            let glitch = f64::from(n % 10 == 9);
            let seen = Reading::Count(100.0 + f64::from(n) - 3.0 * glitch);
            let news = history.take(&read(now + n * SECOND, seen));
            assert_eq!(news, CounterNews::None, "{n}");
        }
        let counted = counted(&[history]).unwrap();
        assert!((36..=52).contains(&counted.requests), "{counted:?}");
    }

    #[test]
    fn counters_are_added_and_the_latest_rise_counts() {
        let now = Instant::now();
        let one = history(now, &[Reading::Count(1.0), Reading::Count(2.0)]);
        let other = history(now, &[4.0, 4.0, 6.0].map(Reading::Count));
        let counted = counted(&[one, other]).unwrap();
        assert_eq!(
            (counted.requests, counted.last, counted.read),
            (3, Some(now + 2 * SECOND), now + SECOND)
        );
    }
}
