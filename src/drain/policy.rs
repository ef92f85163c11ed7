//! When a drain is over and what readiness says meanwhile: the flags, and the policy that they make.

use std::time::Duration;

use crate::config::{self, ConfigErrors};

/// Flags that say when a drain is over.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "The drain")]
pub struct Args {
    /// At or below this many requests in flight the app counts as drained
    #[arg(long, value_name = "N", default_value = "0")]
    pub max_inflight: String,

    /// Never answer the hook sooner: routes need time to change
    #[arg(long, value_name = "DURATION", default_value = "5s")]
    pub min_wait: String,

    /// How long quiet must last before it counts, at least
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub quiet_period: String,

    /// And at most, however seldom requests arrive
    #[arg(long, value_name = "DURATION", default_value = "10s")]
    pub max_quiet: String,

    /// The pod's terminationGracePeriodSeconds
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub grace_period: String,

    /// Kept back from the grace period for the app's own stop [default: 5s, with --app-shutdown=graceful nothing]
    #[arg(long, value_name = "DURATION")]
    pub reserve: Option<String>,

    /// What the app does with its work on SIGTERM: abrupt (it dies, so the hook waits for the work), graceful (it
    /// finishes, so the hook waits for routes alone, and the app has the rest of the grace period); docs/servers.md says
    /// which server does what
    #[arg(long, value_name = "WHAT", default_value = "abrupt")]
    pub app_shutdown: String,

    /// What a count means that has not moved since the drain began, while no connection is open and nothing arrives: wait
    /// (and say so), end (after max-quiet) [default: wait; end for presets that count requests on connections alone]
    #[arg(long, value_name = "POLICY")]
    pub when_stuck: Option<String>,

    /// A tighter bound than grace period minus reserve
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,

    /// When readiness fails: now, after=10s (that long after the drain began), never
    #[arg(long, value_name = "POLICY", default_value = "now")]
    pub readiness: String,

    /// What an unreadable source means: wait (busy until the deadline), window=20s (go on after that long), proceed
    #[arg(long, value_name = "POLICY", default_value = "wait")]
    pub when_blind: String,

    /// The least time between two reads of a source; it is read at most 5 % of the time, but once a second at least
    #[arg(long, value_name = "DURATION", default_value = "100ms")]
    pub poll_interval: String,

    /// End when the app has ended by itself (all it listens on has refused for max-quiet): for an ordinary sidecar in a
    /// Job
    #[arg(
        long, num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false",
        hide_default_value = true, hide_possible_values = true
    )]
    pub exit_with_app: bool,
}

/// When a drain is over, and what readiness says meanwhile.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    pub max_inflight: f64,
    pub min_wait: Duration,
    pub quiet_period: Duration,
    pub max_quiet: Duration,
    pub grace_period: Duration,
    /// Kept back from the grace period.
    pub reserve: Duration,
    pub app_shutdown: AppShutdown,
    /// None leaves it to each source.
    pub when_stuck: Option<WhenStuck>,
    /// The longest a drain may take, whatever the grace period is.
    pub timeout: Option<Duration>,
    pub readiness: Readiness,
    pub when_blind: WhenBlind,
    pub poll_interval: Duration,
    /// End when the app has ended by itself.
    pub exit_with_app: bool,
}

/// When readiness fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// The moment a drain begins.
    Now,
    /// That long after it began.
    After(Duration),
    /// Not because of a drain.
    Never,
}

/// What an unreadable source means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBlind {
    /// Busy.
    Wait,
    /// Busy, until it has been unreadable for this long.
    Window(Duration),
    /// Quiet.
    Proceed,
}
/// What the app does with its work on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppShutdown {
    /// It dies, and its work with it.
    Abrupt,
    /// It finishes its work.
    Graceful,
}

/// What a count means that seems to be stuck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenStuck {
    /// Work: a job without a connection looks the same.
    Wait,
    /// Nothing.
    End,
}

/// Kept back from the grace period where the flags do not say.
const RESERVE: &str = "5s";

impl Args {
    /// Checks the flags, each and together.
    pub fn validate(&self, errors: &mut ConfigErrors) -> Policy {
        let max_inflight = self
            .max_inflight
            .parse::<u32>()
            .map_err(|_| "it is not a whole number from 0 up; write 0");
        let max_inflight = errors.check("max-inflight", &self.max_inflight, max_inflight);
        let readiness = errors.check("readiness", &self.readiness, readiness(&self.readiness));
        let when_blind = errors.check("when-blind", &self.when_blind, when_blind(&self.when_blind));
        let app_shutdown = app_shutdown(&self.app_shutdown);
        let app_shutdown = (errors.check("app-shutdown", &self.app_shutdown, app_shutdown))
            .unwrap_or(AppShutdown::Abrupt);
        let (grace_period, reserve) = self.grace_period_and_reserve(app_shutdown, errors);
        let when_stuck = (self.when_stuck.as_ref())
            .and_then(|text| errors.check("when-stuck", text, when_stuck(text)));
        let (quiet_period, max_quiet) = self.quiet(errors);
        let timeout = self
            .timeout
            .as_ref()
            .map(|timeout| errors.positive_duration("timeout", timeout));
        Policy {
            max_inflight: f64::from(max_inflight.unwrap_or(0)),
            min_wait: errors.duration("min-wait", &self.min_wait),
            quiet_period,
            max_quiet,
            grace_period,
            reserve,
            app_shutdown,
            when_stuck,
            timeout,
            readiness: readiness.unwrap_or(Readiness::Now),
            when_blind: when_blind.unwrap_or(WhenBlind::Wait),
            poll_interval: errors.positive_duration("poll-interval", &self.poll_interval),
            exit_with_app: self.exit_with_app,
        }
    }

    /// The reserve has to leave something of the grace period. An app that finishes its work by itself needs none: it has
    /// all that is left.
    fn grace_period_and_reserve(
        &self,
        app_shutdown: AppShutdown,
        errors: &mut ConfigErrors,
    ) -> (Duration, Duration) {
        let grace_period = errors.positive_duration("grace-period", &self.grace_period);
        let text = self.reserve.as_deref().unwrap_or(RESERVE);
        let reserve = errors.duration("reserve", text);
        if app_shutdown == AppShutdown::Graceful {
            return (grace_period, Duration::ZERO);
        }
        if !grace_period.is_zero() && reserve >= grace_period {
            let message = format!(
                "it leaves nothing of --grace-period {}; write less",
                self.grace_period
            );
            errors.add("reserve", text, message);
        }
        (grace_period, reserve)
    }

    /// What is no mistake but looks like one.
    pub fn warnings(&self, policy: &Policy) -> Vec<String> {
        let mut warnings = Vec::new();
        if policy.min_wait > policy.budget() {
            warnings.push(format!(
                "--min-wait {} is longer than the most a drain may take, {} (grace period minus reserve, or timeout): the \
                 drain ends after that time",
                humantime::format_duration(policy.min_wait),
                humantime::format_duration(policy.budget()),
            ));
        }
        if let (AppShutdown::Graceful, Some(reserve)) = (policy.app_shutdown, &self.reserve) {
            warnings.push(format!(
                "--reserve {reserve} is not kept back: with --app-shutdown graceful the app has all that is left of the \
                 grace period; leave out --reserve, or write --timeout to end a drain sooner"
            ));
        }
        warnings
    }

    /// The most that quiet has to last cannot be less than the least.
    fn quiet(&self, errors: &mut ConfigErrors) -> (Duration, Duration) {
        let quiet_period = errors.duration("quiet-period", &self.quiet_period);
        let max_quiet = errors.duration("max-quiet", &self.max_quiet);
        if max_quiet < quiet_period {
            let message = format!(
                "it is less than --quiet-period {}; write as much or more",
                self.quiet_period
            );
            errors.add("max-quiet", &self.max_quiet, message);
        }
        (quiet_period, max_quiet)
    }
}

impl Policy {
    /// The longest that a drain may take, as far as the flags know.
    pub fn budget(&self) -> Duration {
        self.budget_of(self.grace_period)
    }

    /// The longest that a drain may take of a grace period.
    ///
    /// Of one that is shorter than the flags say, the app keeps no larger part than they give it, or half: a reserve of
    /// 5 s must not leave a pod that is deleted with `--grace-period=5` without any drain.
    pub fn budget_of(&self, granted: Duration) -> Duration {
        let by_flags = self.reserve.as_secs_f64() / self.grace_period.as_secs_f64();
        let part = if by_flags > 0.5 {
            by_flags.min(1.0)
        } else {
            0.5
        };
        let reserve = self.reserve.min(granted.mul_f64(part));
        let budget = granted.saturating_sub(reserve);
        self.timeout.map_or(budget, |timeout| budget.min(timeout))
    }
}

fn readiness(text: &str) -> Result<Readiness, &'static str> {
    match text {
        "now" => Ok(Readiness::Now),
        "never" => Ok(Readiness::Never),
        other => with_duration(other, "after")
            .map(Readiness::After)
            .ok_or("write now, after=10s or never"),
    }
}

fn when_blind(text: &str) -> Result<WhenBlind, &'static str> {
    match text {
        "wait" => Ok(WhenBlind::Wait),
        "proceed" => Ok(WhenBlind::Proceed),
        other => with_duration(other, "window")
            .map(WhenBlind::Window)
            .ok_or("write wait, window=20s or proceed"),
    }
}

fn app_shutdown(text: &str) -> Result<AppShutdown, &'static str> {
    match text {
        "abrupt" => Ok(AppShutdown::Abrupt),
        "graceful" => Ok(AppShutdown::Graceful),
        _ => Err("write abrupt or graceful"),
    }
}

fn when_stuck(text: &str) -> Result<WhenStuck, &'static str> {
    match text {
        "wait" => Ok(WhenStuck::Wait),
        "end" => Ok(WhenStuck::End),
        _ => Err("write wait or end"),
    }
}

/// The duration of `WORD=DURATION`.
fn with_duration(text: &str, word: &str) -> Option<Duration> {
    config::duration(text.strip_prefix(word)?.strip_prefix('=')?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::testing::{SECOND, policy};

    #[test]
    fn a_reserve_of_more_than_half_stays_one() {
        let policy = Policy {
            reserve: 20 * SECOND,
            ..policy()
        };
        assert_eq!(policy.budget(), 10 * SECOND);
        assert_eq!(policy.budget_of(15 * SECOND), 5 * SECOND);
        assert_eq!(policy.budget_of(60 * SECOND), 40 * SECOND);
    }
}
