//! The ways to end an app that are compared.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::config;

/// Which preStop hook the app has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// None: SIGTERM comes at once.
    None,
    /// One that sleeps.
    Sleep(Duration),
    /// The sidecar's.
    Gracekeeper,
    /// The sidecar's with `--app-shutdown=graceful`: the app finishes its work after SIGTERM.
    Handover,
}

impl Way {
    /// Whether the sidecar runs.
    pub fn has_sidecar(self) -> bool {
        matches!(self, Way::Gracekeeper | Way::Handover)
    }

    /// As a sentence names it.
    pub fn title(self) -> String {
        match self {
            Way::None => "no hook".to_owned(),
            Way::Sleep(time) => format!("sleep {}", time.as_secs_f64()),
            Way::Gracekeeper | Way::Handover => self.to_string(),
        }
    }
}

/// As `--compare` has it.
impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::None => f.write_str("none"),
            Way::Sleep(time) => write!(f, "sleep={}", time.as_secs_f64()),
            Way::Gracekeeper => f.write_str("gracekeeper"),
            Way::Handover => f.write_str("gracekeeper:graceful"),
        }
    }
}

impl FromStr for Way {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str =
            "write none, sleep=15, gracekeeper or gracekeeper:graceful, with commas between them";
        match text {
            "none" => Ok(Way::None),
            "gracekeeper" => Ok(Way::Gracekeeper),
            "gracekeeper:graceful" => Ok(Way::Handover),
            _ => {
                let time = text.strip_prefix("sleep=").ok_or(FORM)?;
                let seconds = time.parse().map(Duration::from_secs).ok();
                (seconds.or_else(|| config::duration(time).ok()))
                    .filter(|time| *time <= config::LONGEST)
                    .map(Way::Sleep)
                    .ok_or(FORM)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_written_as_they_are_read() {
        for text in [
            "none",
            "sleep=15",
            "sleep=0.5",
            "gracekeeper",
            "gracekeeper:graceful",
        ] {
            let written = text.replace("0.5", "500ms");
            assert_eq!(written.parse::<Way>().unwrap().to_string(), text);
        }
        for text in ["", "sleep", "sleep=", "sleep=soon", "kill", "sleep=-1"] {
            assert!(text.parse::<Way>().is_err(), "{text}");
        }
    }
}
