//! The log, on standard error: its flags, and its start.

use std::io::{self, IsTerminal as _};
use std::str::FromStr as _;

use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer as _, fmt};

use crate::config::ConfigErrors;

/// Flags of the log.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Log")]
pub struct Args {
    /// text for people, json for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: String,

    /// error, warn, info, debug or trace; RUST_LOG wins over it
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,
}

/// How to log, checked.
#[derive(Debug)]
pub struct Settings {
    /// For machines.
    pub json: bool,
    /// Which levels of what.
    pub targets: Targets,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            json: false,
            targets: Targets::new().with_default(Level::INFO),
        }
    }
}

#[cfg(feature = "tools")]
impl Settings {
    /// For commands whose results are on standard output: errors alone, and none of the client of the Kubernetes API,
    /// whose errors they tell themselves.
    pub fn for_tools() -> Self {
        let targets = Targets::new().with_default(Level::ERROR);
        Self {
            json: false,
            targets: targets.with_target("kube_client", tracing::level_filters::LevelFilter::OFF),
        }
    }
}

impl Args {
    /// Checks the flags; `rust_log` is the environment's `RUST_LOG`.
    pub fn validate(&self, rust_log: Option<&str>, errors: &mut ConfigErrors) -> Option<Settings> {
        let json = match self.log_format.as_str() {
            "text" => Some(false),
            "json" => Some(true),
            other => {
                errors.add("log-format", other, "write text or json");
                None
            }
        };
        let level =
            Level::from_str(&self.log_level).map_err(|_| "write error, warn, info, debug or trace");
        let level = errors.check("log-level", &self.log_level, level)?;
        let targets = match rust_log.filter(|text| !text.is_empty()) {
            None => Targets::new().with_default(level),
            Some(text) => match text.parse() {
                Ok(targets) => targets,
                Err(e) => {
                    errors.say_of(
                        "RUST_LOG",
                        format!("RUST_LOG={text:?}: {e}; write info or gracekeeper=debug"),
                    );
                    return None;
                }
            },
        };
        Some(Settings {
            json: json?,
            targets,
        })
    }
}

impl Settings {
    /// Starts to log.
    pub fn start(self) {
        let text = fmt::layer().with_writer(io::stderr).with_target(false);
        let layer = match self.json {
            true => text
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .boxed(),
            false => text.with_ansi(io::stderr().is_terminal()).boxed(),
        };
        tracing_subscriber::registry()
            .with(layer.with_filter(self.targets))
            .init();
    }
}
