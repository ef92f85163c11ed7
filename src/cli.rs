//! The command line and the environment: which command runs with which settings, and every mistake at once.

mod environment;

use std::collections::BTreeMap;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};

#[cfg(feature = "tools")]
use crate::check;
use crate::config::{ConfigErrors, Files};
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
    let (words, from_environment) = with_environment(words, environment);
    let mut errors = ConfigErrors::new(from_environment, files);
    let Some(cli) = parse_flags(words, &mut errors)? else {
        return Err(NoInvocation::Usage(
            errors.finish::<()>(None).err().unwrap_or_default(),
        ));
    };
    let (run, command): (_, fn(_) -> _) = match cli.command {
        Subcommand::Run(run) => (run, Command::Run),
        Subcommand::Hook(run) => (run, Command::Hook),
        Subcommand::Install(args) => {
            let invocation = Invocation {
                log: log::Settings::default(),
                command: Command::Install(args),
                warnings: Vec::new(),
            };
            return errors.finish(Some(invocation)).map_err(NoInvocation::Usage);
        }
        #[cfg(feature = "tools")]
        Subcommand::Check(args) => {
            let invocation = args.validate(&mut errors).map(|settings| Invocation {
                log: log::Settings::for_tools(),
                command: Command::Check(Box::new(settings)),
                warnings: Vec::new(),
            });
            return errors.finish(invocation).map_err(NoInvocation::Usage);
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
    errors.finish(invocation).map_err(NoInvocation::Usage)
}

impl RunArgs {
    fn settings(
        &self,
        environment: &BTreeMap<String, String>,
        errors: &mut ConfigErrors,
    ) -> Option<run::Settings> {
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
        })
    }
}

/// The words as flags. Unknown flags are noted and left out, so that the rest is checked too.
fn parse_flags(
    mut words: Vec<String>,
    errors: &mut ConfigErrors,
) -> Result<Option<Cli>, NoInvocation> {
    loop {
        let error = match Cli::try_parse_from(&words) {
            Ok(cli) => return Ok(Some(cli)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return Err(NoInvocation::Help(error.render().to_string()));
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
                errors.say(format!("{name} is not a flag{near}"));
                let has_value = !words[at].contains('=')
                    && words[at].starts_with("--")
                    && words.get(at + 1).is_some_and(|next| !next.starts_with('-'));
                words.drain(at..=at + usize::from(has_value));
            }
            _ => {
                let rendered = error.render().to_string();
                errors.say(
                    rendered
                        .trim_start_matches("error: ")
                        .lines()
                        .next()
                        .unwrap_or_default(),
                );
                break;
            }
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
