//! `gracekeeper rehearse`: plays the kubelet and clients to a real command on this machine, in several ways, and reports
//! which requests a termination loses.
//!
//! `app` starts the command, `clients` send requests to where `routes` lead, and `kubelet` terminates; `run` puts
//! them together for one `way`. What was seen is a `record`; `verdict` and `advice` are pure functions of records,
//! and `report` shows all of it.

mod advice;
mod app;
mod clients;
mod kubelet;
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

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use crate::config::{self, ConfigErrors};
use crate::signal::Signals;
use crate::{cli, drain, inflight, notices};
use record::Rehearsal;
use target::{PORT, Target};
use way::Way;

/// Flags of `rehearse`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What clients ask for, such as http://127.0.0.1:{port}/work. Repeatable
    ///
    /// A weight and a method may stand before it: '3 POST http://127.0.0.1:{port}/orders' is asked for three times as often
    /// as a URL without a weight, by POST.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,

    /// The body of each POST, sent as application/json
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    body: String,

    /// The ways to end the app that are compared: none, sleep=15, gracekeeper, gracekeeper:graceful
    ///
    /// The last is gracekeeper with --app-shutdown=graceful, for an app that finishes its work after SIGTERM.
    #[arg(
        long,
        value_name = "WAYS",
        value_delimiter = ',',
        default_value = "none,sleep=15,gracekeeper"
    )]
    compare: Vec<String>,

    /// Requests a second: half on new connections, half on kept ones; none is retried
    #[arg(long, value_name = "N", default_value = "50")]
    rate: String,

    /// How long a client waits for an answer
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    client_timeout: String,

    /// How long after the deletion new connections still come to the app
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    routes: String,

    /// How long the clients send before the deletion
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    warm_up: String,

    /// How long the app may take to listen
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    start_timeout: String,

    /// Monitoring systems that read the app's /metrics every second on a kept connection
    #[arg(long, value_name = "N", default_value = "0")]
    monitors: String,

    /// A restart of the app's container, as after a failed liveness probe, instead of the pod's deletion
    #[arg(long)]
    restart: bool,

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
    sidecar: SidecarArgs,

    /// The command that starts the app, after --
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Flags that the sidecar gets as they are.
#[derive(Debug, clap::Args)]
struct SidecarArgs {
    #[command(flatten)]
    inflight: inflight::Args,
    #[command(flatten)]
    drain: drain::Args,
    #[command(flatten)]
    notices: notices::Args,
}

/// What to rehearse, checked.
#[derive(Debug)]
pub struct Settings {
    targets: Vec<Target>,
    body: String,
    ways: Vec<Way>,
    /// Requests a second.
    rate: u32,
    client_timeout: Duration,
    routes: Duration,
    warm_up: Duration,
    start_timeout: Duration,
    monitors: u32,
    restart: bool,
    grace_period: Duration,
    json: bool,
    report: Option<PathBuf>,
    /// The most that may be lost.
    most_lost: Option<usize>,
    /// Flags of the sidecar, with `{port}` in them.
    sidecar: Vec<String>,
    command: Vec<String>,
}

/// How a rehearsal ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No more was lost than is allowed.
    WithinLimit,
    /// More was lost than `--fail-on` allows.
    TooManyLost,
}

impl Args {
    /// Checks the flags; `words` are those of the command line, from which the sidecar's flags are taken.
    pub fn validate(self, words: &[String], errors: &mut ConfigErrors) -> Option<Settings> {
        let targets: Vec<Target> = (self.url.iter())
            .filter_map(|text| errors.check("url", text, text.parse()))
            .collect();
        if self.url.is_empty() {
            errors.say(
                "there is no URL; write --url 'http://127.0.0.1:{port}/' with a path that the app serves",
            );
        }
        if !targets
            .windows(2)
            .all(|pair| pair[0].port() == pair[1].port())
        {
            errors.say("the URLs have several ports; write one port, or {port}, in all of them");
        }
        if self.command.is_empty() {
            errors.say(
                "there is no command; write it last, after --, such as -- python app.py {port}",
            );
        }
        let ways = (self.compare.iter())
            .filter_map(|text| errors.check("compare", text, text.parse()))
            .collect();
        let rate = errors.check("rate", &self.rate, count(&self.rate, 1, 1000));
        let monitors = errors.check("monitors", &self.monitors, count(&self.monitors, 0, 20));
        let most_lost =
            (self.fail_on.as_ref()).map(|text| errors.check("fail-on", text, limit(text)));
        let mut sidecar = sidecar_flags(words);
        if !names(&sidecar).any(|name| name == "app-port") {
            let port = targets.first().and_then(Target::port);
            let port = port.map_or(PORT.to_owned(), |port| port.to_string());
            sidecar.push(format!("--app-port={port}"));
        }
        if let Err(message) = check_sidecar(&sidecar) {
            errors.say(message);
        }
        Some(Settings {
            targets,
            body: self.body,
            ways,
            rate: rate?,
            client_timeout: errors.positive_duration("client-timeout", &self.client_timeout),
            routes: errors.duration("routes", &self.routes),
            warm_up: errors.positive_duration("warm-up", &self.warm_up),
            start_timeout: errors.positive_duration("start-timeout", &self.start_timeout),
            monitors: monitors?,
            restart: self.restart,
            // A mistake in it was found with the sidecar's other flags.
            grace_period: config::duration(&self.sidecar.drain.grace_period).unwrap_or_default(),
            json: self.json,
            report: self.report,
            most_lost: most_lost.flatten(),
            sidecar,
            command: self.command,
        })
    }
}

impl Settings {
    /// Whether the app's port can be chosen.
    fn chooses_port(&self) -> bool {
        self.targets.iter().all(|target| target.port().is_none())
    }
}

/// Rehearses, and prints.
///
/// # Errors
/// When the app cannot be rehearsed, when a signal comes, or when the report cannot be written.
pub async fn run(settings: Settings) -> anyhow::Result<Outcome> {
    let mut signals = Signals::catch()?;
    let rehearsal = tokio::select! {
        rehearsal = rehearse(&settings) => rehearsal?,
        // What is dropped with the other branch ends its processes and removes its files.
        _ = signals.next() => return Err(anyhow!("told to stop; the app and all of its processes are ended")),
    };
    if let Some(path) = &settings.report {
        let page = report::html::page(&rehearsal);
        std::fs::write(path, page)
            .with_context(|| format!("the report cannot be written to {}", path.display()))?;
    }
    let text = match settings.json {
        true => report::json::text(&rehearsal)?,
        false => report::text::text(&rehearsal, settings.report.as_deref()),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())
        .context("the result cannot be printed")?;
    let too_many =
        (settings.most_lost).is_some_and(|most| verdict::deciding(&rehearsal.runs).lost() > most);
    Ok(match too_many {
        true => Outcome::TooManyLost,
        false => Outcome::WithinLimit,
    })
}

async fn rehearse(settings: &Settings) -> anyhow::Result<Rehearsal> {
    let folder = tempfile::Builder::new()
        .prefix("gracekeeper-rehearse-")
        .tempdir()
        .context("there is no folder for the app's output")?;
    let progress = report::progress::Progress::new(settings.json, io::stderr().is_terminal());
    let mut runs = Vec::new();
    let mut metrics = None;
    for way in &settings.ways {
        let (run, page) = run::run(settings, *way, folder.path(), &progress).await?;
        runs.push(run);
        metrics = metrics.or(page);
    }
    let advice = advice::advice(&runs, metrics.as_ref(), settings);
    Ok(Rehearsal {
        verdict: verdict::sentence(&runs),
        doubt: verdict::doubt(&runs),
        advice,
        yaml: advice::yaml(settings),
        command: settings.command.join(" "),
        alone: !settings.chooses_port(),
        rate: settings.rate,
        routes: settings.routes,
        restart: settings.restart,
        runs,
    })
}

/// The words before `--` that are flags of the sidecar, each as one word, `--FLAG=VALUE`.
fn sidecar_flags(words: &[String]) -> Vec<String> {
    let command = <SidecarArgs as clap::Args>::augment_args(clap::Command::new("run"));
    let takes_value: BTreeMap<&str, bool> = (command.get_arguments())
        .filter_map(|arg| Some((arg.get_long()?, arg.get_action().takes_values())))
        .collect();
    let mut flags = Vec::new();
    let mut words = words.iter().take_while(|word| *word != "--");
    while let Some(word) = words.next() {
        let name = (word.strip_prefix("--")).map(|rest| rest.split('=').next().unwrap_or(rest));
        match name.and_then(|name| takes_value.get(name)) {
            Some(true) if !word.contains('=') => {
                let value = words.next().map(String::as_str).unwrap_or_default();
                flags.push(format!("{word}={value}"));
            }
            Some(_) => flags.push(word.clone()),
            None => {}
        }
    }
    flags
}

/// The names of flags.
fn names(flags: &[String]) -> impl Iterator<Item = &str> {
    (flags.iter()).filter_map(|flag| flag.strip_prefix("--")?.split('=').next())
}

/// Checks the sidecar's command line before anything is started.
fn check_sidecar(flags: &[String]) -> Result<(), String> {
    let flags = flags.iter().map(|flag| flag.replace(PORT, "8000"));
    let words: Vec<String> = (["gracekeeper", "run"].map(str::to_owned).into_iter())
        .chain(flags)
        .collect();
    match cli::check(&words, &BTreeMap::new()) {
        Ok(_) => Ok(()),
        Err(cli::NoInvocation::Help(text) | cli::NoInvocation::Usage(text)) => Err(text),
    }
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

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(str::to_owned).collect()
    }

    #[test]
    fn the_sidecar_gets_its_flags_and_no_others() {
        let line = "gracekeeper rehearse --url http://127.0.0.1:{port}/ --min-wait 3s --app-port={port} --exit-with-app \
                    --json -- app --min-wait 9s";
        assert_eq!(
            sidecar_flags(&words(line)),
            ["--min-wait=3s", "--app-port={port}", "--exit-with-app"]
        );
    }

    #[test]
    fn a_mistake_in_a_flag_of_the_sidecar_is_found_before_anything_starts() {
        let message = check_sidecar(&words("--app-port={port} --min-wait=soon")).unwrap_err();
        assert!(message.contains("--min-wait \"soon\""), "{message}");
        assert_eq!(
            check_sidecar(&words("--app-port={port} --min-wait=1s")),
            Ok(())
        );
    }

    #[test]
    fn a_limit_is_a_number_of_lost_requests() {
        assert_eq!(limit("lost=3"), Ok(3));
        assert!(limit("3").is_err() && limit("lost=few").is_err());
    }
}
