//! Who calls the app while a drain runs, for people: addresses that still arrive, and monitors.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// The most addresses of each kind that are named.
pub const NAMED: usize = 8;

/// Addresses that call the app.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Visitors {
    /// Those that keep a steady beat, which no route changes. They do not keep a drain waiting.
    pub monitors: Vec<Monitor>,
    /// How many monitors there are, also where not all are named.
    pub monitor_count: usize,
    /// Those that have arrived within the last max-quiet, the latest first. They keep a drain waiting.
    pub arriving: Vec<Arriving>,
    /// How many of them there are, also where not all are named.
    pub arriving_count: usize,
}

/// An address that calls at a steady beat, as scrapes and health checks do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Monitor {
    /// Where it calls from.
    pub address: IpAddr,
    /// The time from one visit to the next.
    pub every: Duration,
}

/// An address from which requests still arrive.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Arriving {
    /// Where they come from.
    pub address: IpAddr,
    /// How many have arrived since the drain began.
    pub arrivals: u64,
    /// How many a second that is.
    pub per_second: f64,
}

impl fmt::Display for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let every = (self.every.as_secs_f64() * 10.0).round() / 10.0;
        write!(f, "{} every {every} s", self.address)
    }
}

impl fmt::Display for Arriving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.2}/s", self.address, self.per_second)
    }
}

impl Visitors {
    /// The addresses that still arrive, with their rates, in one phrase; nothing where there are none.
    pub fn arriving_text(&self) -> Option<String> {
        list(&self.arriving, self.arriving_count)
    }

    /// The monitors with their beats, in one phrase; nothing where there are none.
    pub fn monitors_text(&self) -> Option<String> {
        list(&self.monitors, self.monitor_count)
    }
}

fn list(named: &[impl fmt::Display], all: usize) -> Option<String> {
    let words: Vec<_> = named.iter().map(ToString::to_string).collect();
    let rest = all.saturating_sub(named.len());
    match (words.is_empty(), rest) {
        (true, _) => None,
        (false, 0) => Some(words.join(", ")),
        (false, rest) => Some(format!("{} and {rest} more", words.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_named_with_their_rate_or_beat() {
        let monitor = |n: u8, seconds: f64| Monitor {
            address: [10, 0, 0, n].into(),
            every: Duration::from_secs_f64(seconds),
        };
        let visitors = Visitors {
            monitors: vec![monitor(1, 5.012), monitor(2, 14.99)],
            monitor_count: 3,
            arriving: vec![Arriving {
                address: "::1".parse().unwrap(),
                arrivals: 3,
                per_second: 0.257,
            }],
            arriving_count: 1,
        };
        assert_eq!(
            visitors.monitors_text().as_deref(),
            Some("10.0.0.1 every 5 s, 10.0.0.2 every 15 s and 1 more")
        );
        assert_eq!(visitors.arriving_text().as_deref(), Some("::1 at 0.26/s"));
        assert_eq!(Visitors::default().arriving_text(), None);
    }
}
