//! What happens, while it happens: a line for each step, and on a terminal one that changes.

use std::convert::Infallible;
use std::io::{self, Write as _};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::super::verdict::grouped;

/// How often the changing line changes.
const PAUSE: Duration = Duration::from_millis(250);

/// Goes to the beginning of the line and empties it.
const ERASE: &str = "\r\x1b[K";

/// Where steps are told: on standard error, so that standard output has the result alone.
#[derive(Debug)]
pub struct Progress {
    quiet: bool,
    terminal: bool,
    began: Instant,
}

impl Progress {
    /// Says nothing where it is to be quiet; has a changing line on a terminal alone.
    pub fn new(quiet: bool, terminal: bool) -> Self {
        Self {
            quiet,
            terminal,
            began: Instant::now(),
        }
    }

    /// A step.
    pub fn say(&self, step: &str) {
        let erase = if self.terminal { ERASE } else { "" };
        self.write(&format!(
            "{erase}{:6.1} s  {step}\n",
            self.began.elapsed().as_secs_f64()
        ));
    }

    /// Shows how the clients fare, for ever: how many requests have ended, were lost, and are in flight.
    pub async fn follow(
        &self,
        title: &str,
        counts: impl Fn() -> (usize, usize, usize),
    ) -> Infallible {
        loop {
            sleep(PAUSE).await;
            if !self.terminal {
                continue;
            }
            let (ended, failed, in_flight) = counts();
            self.write(&format!(
                "{ERASE}{:6.1} s  {title}: {} requests, {} lost, {in_flight} in flight",
                self.began.elapsed().as_secs_f64(),
                grouped(ended),
                grouped(failed)
            ));
        }
    }

    fn write(&self, text: &str) {
        if !self.quiet {
            // That it cannot be shown changes nothing.
            let _ = io::stderr().write_all(text.as_bytes());
        }
    }
}

/// The result begins on an empty line.
impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal {
            self.write(ERASE);
        }
    }
}
