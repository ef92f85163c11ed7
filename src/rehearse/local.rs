//! A rehearsal on this machine: its flags, the ways one after the other, and what is said of them.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, anyhow};

use super::clients::Load;
use super::record::Rehearsal;
use super::run::run as rehearse_way;
use super::target::{PORT, Target};
use super::way::Way;
use super::{Common, advice, count, given, report, verdict};
use crate::config::{self, ConfigErrors};
use crate::signal::Signals;
use crate::{cli, drain, inflight, notices};

/// Flags that are for this machine alone.
const FLAGS: [&str; 5] = ["compare", "routes", "start-timeout", "monitors", "restart"];

/// Flags of a rehearsal on this machine.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// The ways to end the app that are compared: none, sleep=15, gracekeeper, gracekeeper:graceful
    ///
    /// The last is gracekeeper with --app-shutdown=graceful, for an app that finishes its work after SIGTERM.
    #[arg(
        long,
        value_name = "WAYS",
        value_delimiter = ',',
        default_value = "none,sleep=15,gracekeeper",
        help_heading = "On this machine"
    )]
    compare: Vec<String>,

    /// How long after the deletion new connections still come to the app
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "2s",
        help_heading = "On this machine"
    )]
    routes: String,

    /// How long the app may take to listen
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "30s",
        help_heading = "On this machine"
    )]
    start_timeout: String,

    /// Monitoring systems that read the app's /metrics every second on a kept connection
    #[arg(
        long,
        value_name = "N",
        default_value = "0",
        help_heading = "On this machine"
    )]
    monitors: String,

    /// A restart of the app's container, as after a failed liveness probe, instead of the pod's deletion
    #[arg(long, help_heading = "On this machine")]
    restart: bool,

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

/// What to rehearse here, checked.
#[derive(Debug)]
pub struct Settings {
    pub load: Load,
    pub ways: Vec<Way>,
    pub routes: Duration,
    pub warm_up: Duration,
    pub start_timeout: Duration,
    pub restart: bool,
    pub grace_period: Duration,
    /// Flags of the sidecar, with `{port}` in them.
    pub sidecar: Vec<String>,
    pub command: Vec<String>,
}

impl Args {
    /// Checks the flags; `words` are those of the command line, from which the sidecar's flags are taken.
    pub fn validate(
        self,
        common: Common,
        words: &[String],
        errors: &mut ConfigErrors,
    ) -> Option<Settings> {
        let mut load = common.load;
        for target in &load.targets {
            if target.address(0).is_none() {
                let remedy =
                    "the app is started on this machine; write 127.0.0.1 as its host, or --cluster";
                errors.add("url", &target.url, remedy);
            }
        }
        let ports = |pair: &[Target]| pair[0].port() == pair[1].port();
        if !load.targets.windows(2).all(ports) {
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
        load.monitors = errors.check("monitors", &self.monitors, count(&self.monitors, 0, 20))?;
        let mut sidecar = sidecar_flags(words);
        if !names(&sidecar).any(|name| name == "app-port") {
            let port = load.targets.first().and_then(Target::port);
            let port = port.map_or(PORT.to_owned(), |port| port.to_string());
            sidecar.push(format!("--app-port={port}"));
        }
        if let Err(message) = check_sidecar(&sidecar) {
            errors.say(message);
        }
        Some(Settings {
            load,
            ways,
            routes: errors.duration("routes", &self.routes),
            warm_up: common.warm_up,
            start_timeout: errors.positive_duration("start-timeout", &self.start_timeout),
            restart: self.restart,
            // A mistake in it was found with the sidecar's other flags.
            grace_period: config::duration(&self.sidecar.drain.grace_period).unwrap_or_default(),
            sidecar,
            command: self.command,
        })
    }
}

impl Settings {
    /// Whether the app's port can be chosen.
    pub fn chooses_port(&self) -> bool {
        self.load
            .targets
            .iter()
            .all(|target| target.port().is_none())
    }
}

/// Says of each flag that is for this machine alone that it is.
pub fn refuse_flags(words: &[String], errors: &mut ConfigErrors) {
    let sidecar = takes_value();
    for name in given(words) {
        if FLAGS.contains(&name) || sidecar.contains_key(name) {
            errors.say_of(
                name,
                format!("--{name} is for a rehearsal on this machine; with --cluster leave it out: the pods are restarted as they are"),
            );
        }
    }
    if words.iter().any(|word| word == "--") {
        errors.say("--cluster restarts what runs there; leave out -- and the command");
    }
}

/// Rehearses one way after the other.
///
/// # Errors
/// When the app cannot be rehearsed, or when a signal comes.
pub async fn run(settings: &Settings, quiet: bool) -> anyhow::Result<Rehearsal> {
    let mut signals = Signals::catch()?;
    tokio::select! {
        rehearsal = rehearse(settings, quiet) => rehearsal,
        // What is dropped with the other branch ends its processes and removes its files.
        _ = signals.next() => Err(anyhow!("told to stop; the app and all of its processes are ended")),
    }
}

async fn rehearse(settings: &Settings, quiet: bool) -> anyhow::Result<Rehearsal> {
    let folder = tempfile::Builder::new()
        .prefix("gracekeeper-rehearse-")
        .tempdir()
        .context("there is no folder for the app's output")?;
    let progress = report::progress::Progress::new(quiet, io::stderr().is_terminal());
    let mut runs = Vec::new();
    let mut metrics = None;
    for way in &settings.ways {
        let (run, page) = rehearse_way(settings, *way, folder.path(), &progress).await?;
        runs.push(run);
        metrics = metrics.or(page);
    }
    let advice = advice::advice(&runs, metrics.as_ref(), settings);
    Ok(Rehearsal {
        verdict: verdict::sentence(&runs),
        doubt: verdict::doubt(&runs),
        advice,
        yaml: advice::yaml(settings, verdict::best(&runs).map(|run| run.way)),
        command: settings.command.join(" "),
        alone: runs.iter().find_map(|run| run.alone.clone()),
        rate: settings.load.rate,
        routes: settings.routes,
        restart: settings.restart,
        runs,
    })
}

/// The words before `--` that are flags of the sidecar, each as one word, `--FLAG=VALUE`.
fn sidecar_flags(words: &[String]) -> Vec<String> {
    let takes_value = takes_value();
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

/// The sidecar's flags, and whether each has a value.
fn takes_value() -> BTreeMap<String, bool> {
    let command = <SidecarArgs as clap::Args>::augment_args(clap::Command::new("run"));
    (command.get_arguments())
        .filter_map(|arg| Some((arg.get_long()?.to_owned(), arg.get_action().takes_values())))
        .collect()
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
}
