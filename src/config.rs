//! Mistakes in the configuration: collected, so that the user sees all of them at once.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The longest duration a flag takes. Longer ones are typing errors, and would overflow a clock.
pub const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The flag it is in, or the environment variable; none where it is in no single one.
    pub origin: Option<String>,
    /// The value, as far as it can be shown.
    pub value: Option<String>,
    /// The value, what is wrong and what to write.
    pub message: String,
}

/// The mistakes in the flags and the environment.
#[derive(Debug, Default)]
pub struct ConfigErrors {
    found: Vec<Mistake>,
    /// Flags that were set by an environment variable, and by which.
    from_environment: BTreeMap<String, String>,
    files: Files,
}

/// Whether the files that flags name are on this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Files {
    /// They are: each is checked.
    #[default]
    Here,
    /// They are in a pod that may not exist yet: none is looked at.
    Elsewhere,
}

impl ConfigErrors {
    /// No errors yet; `from_environment` maps a flag to the variable that set it.
    pub fn new(from_environment: BTreeMap<String, String>, files: Files) -> Self {
        Self {
            found: Vec::new(),
            from_environment,
            files,
        }
    }

    /// Whether the files that flags name are on this machine.
    pub fn files(&self) -> Files {
        self.files
    }

    /// Notes a mistake in one flag's value. The message says what is wrong and what to write.
    pub fn add(&mut self, flag: &str, value: &str, message: impl fmt::Display) {
        let origin = self
            .from_environment
            .get(flag)
            .map(|name| format!(" (from {name})"))
            .unwrap_or_default();
        self.found.push(Mistake {
            origin: Some(flag.to_owned()),
            value: Some(value.to_owned()),
            message: format!("--{flag} {value:?}{origin}: {message}"),
        });
    }

    /// Notes a mistake that is in no single value.
    pub fn say(&mut self, message: impl Into<String>) {
        self.found.push(Mistake {
            origin: None,
            value: None,
            message: message.into(),
        });
    }

    /// Notes a mistake in a flag or an environment variable that the message names itself.
    pub fn say_of(&mut self, origin: &str, message: impl Into<String>) {
        self.found.push(Mistake {
            origin: Some(origin.to_owned()),
            value: None,
            message: message.into(),
        });
    }

    /// Keeps a parsed value, or notes why there is none.
    pub fn check<T>(
        &mut self,
        flag: &str,
        value: &str,
        parsed: Result<T, impl fmt::Display>,
    ) -> Option<T> {
        parsed
            .map_err(|message| self.add(flag, value, message))
            .ok()
    }

    /// A duration such as `5s`, `1m30s` or `250ms`; zero where there was a mistake.
    pub fn duration(&mut self, flag: &str, value: &str) -> Duration {
        self.check(flag, value, duration(value)).unwrap_or_default()
    }

    /// A duration that must not be zero.
    pub fn positive_duration(&mut self, flag: &str, value: &str) -> Duration {
        let parsed = duration(value).and_then(|d| match d.is_zero() {
            true => Err("it must be longer than nothing; write 1s, for example".to_owned()),
            false => Ok(d),
        });
        self.check(flag, value, parsed).unwrap_or_default()
    }

    /// An address to listen on.
    pub fn address(&mut self, flag: &str, value: &str) -> Option<SocketAddr> {
        let parsed = value
            .parse()
            .map_err(|_| "it is not IP:PORT; write [::]:9903 or 0.0.0.0:9903");
        self.check(flag, value, parsed)
    }

    /// What was parsed, or all the errors.
    ///
    /// # Errors
    /// Every mistake, a line each.
    #[cfg(any(test, feature = "tools"))]
    pub fn finish<T>(self, parsed: Option<T>) -> Result<T, String> {
        self.into_result(parsed).map_err(|found| in_lines(&found))
    }

    /// What was parsed, or all the errors.
    ///
    /// # Errors
    /// Every mistake by itself.
    pub fn into_result<T>(self, parsed: Option<T>) -> Result<T, Vec<Mistake>> {
        match (parsed, self.found.is_empty()) {
            (Some(parsed), true) => Ok(parsed),
            _ => Err(self.found),
        }
    }
}

/// A line for each mistake.
pub fn in_lines(mistakes: &[Mistake]) -> String {
    let lines: Vec<_> = mistakes.iter().map(|it| it.message.as_str()).collect();
    lines.join("\n")
}

/// Parses a duration.
///
/// # Errors
/// Says what is wrong and what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    // The library takes a bare 0 too, but for nothing else without a unit.
    let parsed =
        humantime::parse_duration(text).map_err(|e| format!("{e}; write 5s, 1m30s or 250ms"))?;
    if parsed > LONGEST {
        return Err("it is more than 7 days; write something shorter".to_owned());
    }
    Ok(parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        for (text, milliseconds) in [
            ("5s", 5_000),
            ("1m30s", 90_000),
            ("250ms", 250),
            ("1m 30s", 90_000),
            ("0s", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(milliseconds)));
        }
        for text in [
            "5",
            "",
            "s",
            "-5s",
            "5 parsecs",
            "1y",
            "99999999999999999999s",
        ] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_mistake_is_told_with_its_value_and_where_it_came_from() {
        let variables = [("timeout".to_owned(), "GRACEKEEPER_TIMEOUT".to_owned())];
        let mut errors = ConfigErrors::new(variables.into(), Files::Here);
        errors.duration("min-wait", "soon");
        errors.duration("timeout", "5");
        errors.positive_duration("poll-interval", "0s");
        assert_eq!(errors.address("listen", "9903"), None);
        let message = errors.finish(Some(())).unwrap_err();
        for part in [
            "--min-wait \"soon\"",
            "--timeout \"5\" (from GRACEKEEPER_TIMEOUT)",
            "--poll-interval",
            "[::]:9903",
        ] {
            assert!(message.contains(part), "{part} in {message}");
        }
        assert_eq!(message.lines().count(), 4);
    }
}
