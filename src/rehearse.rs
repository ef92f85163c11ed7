//! `gracekeeper rehearse`: sends requests to an app while it is terminated, and reports which of them are lost: on this
//! machine to a real command, with the kubelet played, or in a cluster to a Deployment that is restarted.
//!
//! On this machine `app` starts the command, `clients` send requests to where `routes` lead, and `kubelet` terminates;
//! `run` puts them together for one `way`. In a `cluster` the same clients run in a pod. What was seen is a `record`;
//! `verdict` and `advice` are pure functions of records, and `report` shows all of it.

mod advice;
mod app;
mod clients;
mod cluster;
mod kubelet;
mod local;
mod network;
mod page;
mod ports;
mod record;
mod report;
mod routes;
mod run;
mod sidecar;
mod target;
mod verdict;
mod way;

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use crate::config::ConfigErrors;
pub use clients::Args as ClientArgs;
pub use clients::remote::{Settings as ClientSettings, run as run_clients};
pub use network::{Args as NetworkArgs, run as run_network};

/// Flags of `rehearse`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    load: clients::Args,

    /// How long the clients send before the termination
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    warm_up: String,

    /// Prints JSON
    #[arg(long)]
    json: bool,

    /// Writes a page with the timelines to this file
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Exit status 1 where gracekeeper, or without it the last way, loses more: lost=0
    #[arg(long, value_name = "LIMIT")]
    fail_on: Option<String>,

    #[command(flatten)]
    cluster: cluster::Args,

    #[command(flatten)]
    local: local::Args,
}

/// What to rehearse, checked.
#[derive(Debug)]
pub struct Settings {
    task: Task,
    output: Output,
}

#[derive(Debug)]
enum Task {
    Local(local::Settings),
    Cluster(cluster::Settings),
}

#[cfg(test)]
impl Settings {
    /// Those of a rehearsal on this machine.
    fn local(self) -> local::Settings {
        match self.task {
            Task::Local(settings) => settings,
            Task::Cluster(_) => panic!("in a cluster"),
        }
    }
}

/// How the result is told.
#[derive(Debug)]
struct Output {
    json: bool,
    report: Option<PathBuf>,
    /// The most that may be lost.
    most_lost: Option<usize>,
}

/// How a rehearsal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No more was lost than is allowed.
    WithinLimit,
    /// More was lost than `--fail-on` allows.
    TooManyLost,
}

/// What kinds of rehearsals have in common.
#[derive(Debug)]
struct Common {
    load: clients::Load,
    warm_up: Duration,
}

impl Args {
    /// Checks the flags; `words` are those of the command line, from which the sidecar's flags are taken.
    pub fn validate(self, words: &[String], errors: &mut ConfigErrors) -> Option<Settings> {
        let is_cluster = self.cluster.is_asked_for();
        let example = match is_cluster {
            true => "http://SERVICE/",
            false => "http://127.0.0.1:{port}/",
        };
        let load = self.load.validate(example, errors);
        let warm_up = errors.positive_duration("warm-up", &self.warm_up);
        let most_lost =
            (self.fail_on.as_ref()).map(|text| errors.check("fail-on", text, limit(text)));
        // What is wrong with the load was said; the rest is checked too.
        let missing = load.is_none();
        let common = Common {
            load: load.unwrap_or_default(),
            warm_up,
        };
        let task = match is_cluster {
            true => {
                local::refuse_flags(words, errors);
                self.cluster.validate(common, errors).map(Task::Cluster)
            }
            false => {
                self.cluster.refuse_flags(words, errors);
                self.local.validate(common, words, errors).map(Task::Local)
            }
        };
        Some(Settings {
            task: task.filter(|_| !missing)?,
            output: Output {
                json: self.json,
                report: self.report,
                most_lost: most_lost.flatten(),
            },
        })
    }
}

/// Rehearses, and prints.
///
/// # Errors
/// When the app cannot be rehearsed, when a signal comes, or when the report cannot be written.
pub async fn run(settings: Settings) -> anyhow::Result<Outcome> {
    let output = &settings.output;
    match &settings.task {
        Task::Local(task) => {
            let rehearsal = local::run(task, output.json).await?;
            let page = report::html::page(&rehearsal);
            let text = match output.json {
                true => report::json::text(&rehearsal)?,
                false => report::text::text(&rehearsal, output.report.as_deref()),
            };
            let lost = verdict::deciding(&rehearsal.runs).lost();
            output.tell(&page, &text, lost)
        }
        Task::Cluster(task) => {
            let rollout = cluster::run(task, output.json).await?;
            let page = report::html::rollout(&rollout);
            let text = match output.json {
                true => report::json::rollout(&rollout)?,
                false => report::text::rollout(&rollout, output.report.as_deref()),
            };
            output.tell(&page, &text, rollout.lost())
        }
    }
}

impl Output {
    /// Writes the page and prints the text.
    fn tell(&self, page: &str, text: &str, lost: usize) -> anyhow::Result<Outcome> {
        if let Some(path) = &self.report {
            std::fs::write(path, page)
                .with_context(|| format!("the report cannot be written to {}", path.display()))?;
        }
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())
            .context("the result cannot be printed")?;
        Ok(match self.most_lost.is_some_and(|most| lost > most) {
            true => Outcome::TooManyLost,
            false => Outcome::WithinLimit,
        })
    }
}

/// The flags that were given before `--`, by their names; a word for each.
fn given(words: &[String]) -> impl Iterator<Item = &str> {
    (words.iter().take_while(|word| *word != "--"))
        .filter_map(|word| word.strip_prefix("--")?.split('=').next())
}

/// A whole number within bounds.
fn count(text: &str, least: u32, most: u32) -> Result<u32, String> {
    (text.parse().ok())
        .filter(|number| (least..=most).contains(number))
        .ok_or_else(|| format!("write a whole number from {least} to {most}"))
}

/// The most that may be lost.
fn limit(text: &str) -> Result<usize, &'static str> {
    let number = text.strip_prefix("lost=").and_then(|n| n.parse().ok());
    number.ok_or("write lost=0, or another number")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_of_lost_requests() {
        assert_eq!(limit("lost=3"), Ok(3));
        assert!(limit("3").is_err() && limit("lost=few").is_err());
    }
}
