//! The reading of sources for as long as a phase needs it: each at its own pace, none waiting for another.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};

/// The longest pause between two reads of a source, unless a longer one was asked for.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A read that takes one part in twenty of the time leaves the app nineteen for its work.
const PAUSE_PER_READ: u32 = 19;

/// One read and what it saw.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Read<T> {
    pub source: usize,
    pub began: Instant,
    pub ended: Instant,
    pub seen: T,
}

/// Reads under way or due. They end when this is dropped.
pub struct Reads<T> {
    under_way: FuturesUnordered<BoxFuture<'static, Read<T>>>,
}

impl<T: Send + 'static> Reads<T> {
    /// No reads.
    pub fn none() -> Self {
        Self {
            under_way: FuturesUnordered::new(),
        }
    }

    /// Reads each of so many sources at once; `see` gives the read of one.
    pub fn start(sources: usize, see: impl Fn(usize) -> BoxFuture<'static, T>) -> Self {
        let now = Instant::now();
        Self {
            under_way: (0..sources)
                .map(|source| read(see(source), source, now))
                .collect(),
        }
    }

    /// Reads one source at once.
    pub fn start_one(see: BoxFuture<'static, T>) -> Self {
        let reads = Self::none();
        reads.under_way.push(read(see, 0, Instant::now()));
        reads
    }

    /// The next read that ends. Without one under way it never comes.
    pub async fn next(&mut self) -> Read<T> {
        match self.under_way.next().await {
            Some(read) => read,
            None => std::future::pending().await,
        }
    }

    /// Reads a source again, after the pause it is owed. A read that is `wanted` at a time soon after is put off until
    /// then, so that it proves what it can as early as it can.
    pub fn again(
        &mut self,
        see: BoxFuture<'static, T>,
        last: &Read<T>,
        least: Duration,
        wanted: Option<Instant>,
    ) {
        let pause = pause(last.ended - last.began, least);
        let due = last.ended + pause;
        let at = wanted
            .filter(|&wanted| due < wanted && wanted < due + pause)
            .unwrap_or(due);
        self.under_way.push(read(see, last.source, at));
    }
}

/// How long to leave a source alone after a read that took this long.
pub fn pause(took: Duration, least: Duration) -> Duration {
    (took * PAUSE_PER_READ).min(LONGEST_PAUSE).max(least)
}

fn read<T: Send + 'static>(
    see: BoxFuture<'static, T>,
    source: usize,
    at: Instant,
) -> BoxFuture<'static, Read<T>> {
    Box::pin(async move {
        sleep_until(at).await;
        let began = Instant::now();
        let seen = see.await;
        Read {
            source,
            began,
            ended: Instant::now(),
            seen,
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
