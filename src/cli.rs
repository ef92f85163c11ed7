//! The command line and the environment: which command runs with which settings, and every mistake at once.

mod environment;
mod mistakes;

use std::collections::BTreeMap;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

#[cfg(feature = "tools")]
use crate::check;
use crate::config::{ConfigErrors, Files, Mistake, in_lines};
#[cfg(feature = "tools")]
use crate::inject;
#[cfg(feature = "tools")]
use crate::rehearse;
use crate::{cluster, drain, http, inflight, install, log, notices, run};
use environment::{unknown_variables, with_environment};

/// A drain sidecar: fails readiness when the pod terminates, waits for the work in flight, then lets the app stop
#[derive(Debug, Parser)]
#[command(name = "gracekeeper", version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Subcommand,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// The sidecar: serves readiness and preStop hooks, and drains
    #[command(
        after_help = "Every flag is also an environment variable: --min-wait is GRACEKEEPER_MIN_WAIT. Where a flag \
                            may be repeated, the variable has one value a line. Durations are written 5s, 1m30s, 250ms.",
        after_long_help = after_long_help()
    )]
    Run(Box<RunArgs>),

    /// An exec preStop hook for the app's container: asks the sidecar on this machine, and drains by itself if none answers
    #[command(
        after_help = "It takes the flags of gracekeeper run: give it the sidecar's, for when it has to drain by itself. Of \
                      --listen it takes the port, where the sidecar is."
    )]
    Hook(Box<RunArgs>),

    /// Copies this binary into a folder, from where the app's container can run it as a hook
    Install(install::Args),

    /// Reads manifests, or what a cluster has, and reports what would go wrong at termination
    #[cfg(feature = "tools")]
    #[command(
        after_help = "Exit status: 0 when nothing was found, 1 for findings at or above --fail-on and for files that cannot \
                      be read, 64 for a wrong command line."
    )]
    Check(check::Args),

    /// Adds the sidecar, or the hook alone, to manifests: a filter, Helm post-renderer and KRM function
    #[cfg(feature = "tools")]
    Inject(inject::Args),

    /// Plays the kubelet and clients to your app on this machine, or restarts it in a cluster, and reports which requests are
    /// lost
    #[cfg(feature = "tools")]
    #[command(
        after_help = "{port} in URLs, flags and the command stands for a free port; PORT in the command's environment is the \
                      same. Exit status: 0, 1 when it could not be rehearsed or more was lost than --fail-on allows, 64 for a \
                      wrong command line."
    )]
    Rehearse(Box<rehearse::Args>),

    /// The clients of a rehearsal alone, for the pod of rehearse --cluster
    #[cfg(feature = "tools")]
    #[command(hide = true)]
    RehearseClients(rehearse::ClientArgs),

    /// The way into a network of a rehearsal, for rehearse with a fixed port
    #[cfg(feature = "tools")]
    #[command(hide = true)]
    RehearseNetwork(rehearse::NetworkArgs),
}

fn after_long_help() -> String {
    format!(
        "{}\nEvery flag is also an environment variable: --min-wait is GRACEKEEPER_MIN_WAIT. Where a flag may be \
         repeated, the variable has one value a line. Durations are written 5s, 1m30s, 250ms.",
        inflight::presets::list()
    )
}

/// Flags of `run`.
#[derive(Debug, clap::Args)]
struct RunArgs {
    #[command(flatten)]
    inflight: inflight::Args,
    #[command(flatten)]
    drain: drain::Args,
    #[command(flatten)]
    http: http::Args,
    #[command(flatten)]
    notices: notices::Args,
    #[command(flatten)]
    cluster: cluster::Args,
    #[command(flatten)]
    log: log::Args,
    #[command(flatten)]
    mistakes: mistakes::Args,
}

/// A command to run.
#[derive(Debug)]
pub enum Command {
    /// The sidecar.
    Run(Box<run::Settings>),
    /// A preStop hook.
    Hook(Box<run::Settings>),
    /// A copy of the binary.
    Install(install::Args),
    /// Manifests to check.
    #[cfg(feature = "tools")]
    Check(Box<check::Settings>),

    /// Manifests with the sidecar.
    #[cfg(feature = "tools")]
    Inject(inject::Injection),
    /// An app whose termination is rehearsed.
    #[cfg(feature = "tools")]
    Rehearse(Box<rehearse::Settings>),
    /// The clients of a rehearsal in a cluster.
    #[cfg(feature = "tools")]
    RehearseClients(Box<rehearse::ClientSettings>),
    /// The way into a network of a rehearsal.
    #[cfg(feature = "tools")]
    RehearseNetwork(rehearse::NetworkArgs),
}

/// A command and its settings, checked.
#[derive(Debug)]
pub struct Invocation {
    /// How to log.
    pub log: log::Settings,
    /// What to run.
    pub command: Command,
    /// Settings that are valid and look like a mistake.
    pub warnings: Vec<String>,
}

/// Why there is no command to run.
#[derive(Debug)]
pub enum NoInvocation {
    /// Help or version was asked for.
    Help(String),
    /// Mistakes in the flags or the environment, a line each.
    Usage(String),
}

/// Parses a program's words, its own name first, and its environment. Files that flags name are looked at.
///
/// # Errors
/// Every mistake in them.
pub fn parse(
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, NoInvocation> {
    parse_for(Files::Here, words, environment)
}

/// Parses words and environment of a container in a manifest: as [`parse`], but no file is looked at, since its files are
/// not on this machine. The settings are for checks alone.
///
/// # Errors
/// Every mistake in them.
pub fn check(
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, NoInvocation> {
    parse_for(Files::Elsewhere, words, environment)
}

fn parse_for(
    files: Files,
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, NoInvocation> {
    let parsed = attempt(files, words, environment);
    match parsed {
        Err(Failure::Mistakes(found)) if mistakes::take_defaults(words, environment) => {
            mistakes::with_defaults(files, words, environment, found)
        }
        parsed => parsed,
    }
    .map_err(|failure| match failure {
        Failure::Help(text) => NoInvocation::Help(text),
        Failure::Mistakes(found) => NoInvocation::Usage(in_lines(&found)),
    })
}

/// Why there is no command yet.
#[derive(Debug)]
enum Failure {
    /// Help or version was asked for.
    Help(String),
    /// These mistakes.
    Mistakes(Vec<Mistake>),
}

/// What comes of a command that has no flags of a drain; nothing of `command` where its settings are wrong.
fn without_drain(
    log: log::Settings,
    command: Option<Command>,
    errors: ConfigErrors,
) -> Result<Invocation, Failure> {
    let invocation = command.map(|command| Invocation {
        log,
        command,
        warnings: Vec::new(),
    });
    errors.into_result(invocation).map_err(Failure::Mistakes)
}

fn attempt(
    files: Files,
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<Invocation, Failure> {
    let (words, from_environment) = with_environment(words, environment);
    let mut errors = ConfigErrors::new(from_environment, files);
    #[cfg(feature = "tools")]
    let given = words.clone();
    let Some(cli) = parse_flags(words, &mut errors)? else {
        return Err(Failure::Mistakes(
            errors.into_result::<()>(None).err().unwrap_or_default(),
        ));
    };
    #[cfg(feature = "tools")]
    let words = given;
    let (run, command): (_, fn(_) -> _) = match cli.command {
        Subcommand::Run(run) => (run, Command::Run),
        Subcommand::Hook(run) => (run, Command::Hook),
        Subcommand::Install(args) => {
            let command = Some(Command::Install(args));
            return without_drain(log::Settings::default(), command, errors);
        }
        #[cfg(feature = "tools")]
        Subcommand::Inject(args) => {
            let command = Some(Command::Inject(args.validate(&mut errors)));
            return without_drain(log::Settings::default(), command, errors);
        }
        #[cfg(feature = "tools")]
        Subcommand::Check(args) => {
            let settings = args.validate(&mut errors);
            let command = settings.map(|settings| Command::Check(Box::new(settings)));
            return without_drain(log::Settings::for_tools(), command, errors);
        }
        #[cfg(feature = "tools")]
        Subcommand::Rehearse(args) => {
            let settings = args.validate(&words, &mut errors);
            let command = settings.map(|settings| Command::Rehearse(Box::new(settings)));
            return without_drain(log::Settings::for_tools(), command, errors);
        }
        #[cfg(feature = "tools")]
        Subcommand::RehearseClients(args) => {
            let settings = rehearse::ClientSettings::new(args, &mut errors);
            let command = settings.map(|settings| Command::RehearseClients(Box::new(settings)));
            return without_drain(log::Settings::for_tools(), command, errors);
        }
        #[cfg(feature = "tools")]
        Subcommand::RehearseNetwork(args) => {
            let command = Some(Command::RehearseNetwork(args));
            return without_drain(log::Settings::for_tools(), command, errors);
        }
    };
    let settings = run.settings(environment, &mut errors);
    let drain_warnings = (settings.as_ref())
        .map(|settings| run.drain.warnings(&settings.drain))
        .unwrap_or_default();
    let rust_log = environment.get("RUST_LOG").map(String::as_str);
    let log = run.log.validate(rust_log, &mut errors);
    let invocation = settings.zip(log).map(|(settings, log)| {
        let mut warnings = unknown_variables(environment);
        warnings.extend(drain_warnings);
        Invocation {
            log,
            command: command(Box::new(settings)),
            warnings,
        }
    });
    errors.into_result(invocation).map_err(Failure::Mistakes)
}

impl RunArgs {
    fn settings(
        &self,
        environment: &BTreeMap<String, String>,
        errors: &mut ConfigErrors,
    ) -> Option<run::Settings> {
        let keep_running = self.mistakes.validate(errors);
        let drain = self.drain.validate(errors);
        let inflight = self.inflight.validate(errors);
        let token = environment.get(http::TOKEN_VARIABLE).map(String::as_str);
        let http = self.http.validate(token, errors);
        let notices = self.notices.validate(errors);
        let cluster = self.cluster.validate(environment, errors);
        Some(run::Settings {
            inflight,
            drain,
            http: http?,
            notices,
            cluster,
            keep_running,
            mistakes: Vec::new(),
        })
    }
}

/// The words as flags. Unknown flags are noted and left out, so that the rest is checked too.
fn parse_flags(mut words: Vec<String>, errors: &mut ConfigErrors) -> Result<Option<Cli>, Failure> {
    loop {
        let error = match Cli::try_parse_from(&words) {
            Ok(cli) => return Ok(Some(cli)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return Err(Failure::Help(error.render().to_string()));
            }
            ErrorKind::UnknownArgument => {
                let Some(ContextValue::String(unknown)) = error.get(ContextKind::InvalidArg) else {
                    break;
                };
                let name = unknown.split('=').next().unwrap_or(unknown);
                let Some(at) = words
                    .iter()
                    .position(|word| word == unknown || word.split('=').next() == Some(name))
                else {
                    break;
                };
                let near = match error.get(ContextKind::SuggestedArg) {
                    Some(ContextValue::String(near)) => format!("; did you mean {near}?"),
                    _ => "; gracekeeper run --help lists them all".to_owned(),
                };
                let message = format!("{name} is not a flag{near}");
                errors.say_of(name.trim_start_matches('-'), message);
                let has_value = !words[at].contains('=')
                    && words[at].starts_with("--")
                    && words.get(at + 1).is_some_and(|next| !next.starts_with('-'));
                words.drain(at..=at + usize::from(has_value));
            }
            _ => {
                let rendered = error.render().to_string();
                let first = rendered.trim_start_matches("error: ").lines().next();
                let message = first.unwrap_or_default();
                match error.get(ContextKind::InvalidArg) {
                    Some(ContextValue::String(flag)) => {
                        errors.say_of(mistakes::name_of(flag), message)
                    }
                    _ => errors.say(message),
                }
                break;
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
