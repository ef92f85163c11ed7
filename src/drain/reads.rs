//! The reading of sources for as long as a phase needs it: each at its own pace, none waiting for another.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

use super::{Count, Reading};

/// The longest pause between two reads of a source, unless a longer one was asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A read that takes one part in twenty of the time leaves the app nineteen for its work.
const PAUSE_PER_READ: u32 = 19;

/// One read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Read {
    pub source: usize,
    pub began: Instant,
    pub ended: Instant,
    pub reading: Reading,
}

/// Reads under way or due. They end when this is dropped.
pub struct Reads {
    under_way: FuturesUnordered<BoxFuture<'static, Read>>,
}

impl Reads {
    /// Reads each source at once.
    pub fn start(count: &Count, sources: usize) -> Self {
        let now = Instant::now();
        Self {
            under_way: (0..sources)
                .map(|source| read(count, source, now))
                .collect(),
        }
    }

    /// The next read that ends. Without one under way it never comes.
    pub async fn next(&mut self) -> Read {
        match self.under_way.next().await {
            Some(read) => read,
            None => std::future::pending().await,
        }
    }

    /// Reads a source again, after the pause it is owed. A read that is `wanted` at a time soon after is put off until
    /// then, so that it proves what it can as early as it can.
    pub fn again(&mut self, count: &Count, last: &Read, least: Duration, wanted: Option<Instant>) {
        let pause = pause(last.ended - last.began, least);
        let due = last.ended + pause;
        let at = wanted
            .filter(|&wanted| due < wanted && wanted < due + pause)
            .unwrap_or(due);
        self.under_way.push(read(count, last.source, at));
    }
}

/// How long to leave a source alone after a read that took this long.
fn pause(took: Duration, least: Duration) -> Duration {
    (took * PAUSE_PER_READ).min(LONGEST_PAUSE).max(least)
}

fn read(count: &Count, source: usize, at: Instant) -> BoxFuture<'static, Read> {
    let count = count.clone();
    Box::pin(async move {
        sleep_until(at).await;
        let began = Instant::now();
        let reading = count(source).await;
        Read {
            source,
            began,
            ended: Instant::now(),
            reading,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_at_most_a_twentieth_of_the_time_and_once_a_second_or_so() {
        let least = Duration::from_millis(100);
        for (took, expected) in [
            (0, 100),
            (1, 100),
            (20, 380),
            (50, 950),
            (500, 1000),
            (5000, 1000),
        ] {
            assert_eq!(
                pause(Duration::from_millis(took), least),
                Duration::from_millis(expected),
                "{took}"
            );
        }
        assert_eq!(
            pause(Duration::ZERO, Duration::from_secs(3)),
            Duration::from_secs(3)
        );
    }
}
