//! The wall clock, which nothing else reads: it may jump, and a drain is timed on the monotonic clock alone.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// Where less is left than was granted, up to this much is the kubelet's delay; more is a clock that is wrong.
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The wall clock's time.
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// The API server writes whole seconds, and leaves out what is beyond.
const ROUNDED: Duration = Duration::from_secs(1);

/// What there was of a grace period at the first sign of its end, `passed` ago. It ends at `deadline`, as the API server
/// sees it, while this machine's clock says `now`.
///
/// What was granted is what counts, since two clocks need not agree; only where they nearly agree does it count
/// too that some of it had passed already.
pub fn left(granted: Duration, deadline: Timestamp, now: Timestamp, passed: Duration) -> Duration {
    let left = deadline.duration_since(now);
    let left = Duration::try_from(left).unwrap_or_default() + ROUNDED + passed;
    if left < granted && granted - left <= LONGEST_DELAY {
        left
    } else {
        granted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_granted_counts_unless_the_clocks_nearly_agree() {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let seconds = Duration::from_secs;
        for (left_by_the_wall, expected) in [
            (30, 30),
            (29, 30), // Rounded.
            (27, 28),
            (24, 25),
            (23, 30), // The kubelet was down for a while, or a clock is wrong: it counts from when it acts.
            (31, 30),
            (-1, 30),
            (3630, 30), // An hour behind.
            (-3570, 30),
        ] {
            let deadline = Timestamp::from_second(now.as_second() + left_by_the_wall).unwrap();
            assert_eq!(
                left(seconds(30), deadline, now, Duration::ZERO),
                seconds(expected),
                "{left_by_the_wall}"
            );
            let later = now + seconds(4);
            assert_eq!(
                left(seconds(30), deadline, later, seconds(4)),
                seconds(expected),
                "{left_by_the_wall}, asked late"
            );
        }
    }
}
