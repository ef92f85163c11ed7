//! The command line and the environment: what was typed, and every mistake in it at once.

use std::collections::BTreeMap;
use std::str::FromStr as _;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory as _, Parser};
use tracing::Level;
use tracing_subscriber::filter::Targets;

use crate::config::ConfigErrors;
use crate::{cluster, drain, http, inflight, install, notices, run};

/// Every flag is also an environment variable: `GRACEKEEPER_` and the flag in capitals.
const PREFIX: &str = "GRACEKEEPER_";

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
    log: LogArgs,
}

/// Flags of the log.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Log")]
struct LogArgs {
    /// text for people, json for machines
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: String,

    /// error, warn, info, debug or trace; RUST_LOG wins over it
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: String,
}

/// How to log.
#[derive(Debug)]
pub struct Log {
    /// For machines.
    pub json: bool,
    /// Which levels of what.
    pub targets: Targets,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            json: false,
            targets: Targets::new().with_default(Level::INFO),
        }
    }
}

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// The sidecar.
    Run(Box<run::Settings>),
    /// A preStop hook.
    Hook(Box<run::Settings>),
    /// A copy of the binary.
    Install(install::Args),
}

/// What was asked for, checked.
#[derive(Debug)]
pub struct Invocation {
    /// How to log.
    pub log: Log,
    /// What to do.
    pub command: Command,
    /// What is no mistake but looks like one.
    pub warnings: Vec<String>,
}

/// Why there is nothing to do.
#[derive(Debug)]
pub enum Stop {
    /// Help or version, as asked for.
    Help(String),
    /// ConfigErrors, a line each.
    Usage(String),
}

/// Parses a program's words, its own name first, and its environment.
///
/// # Errors
/// Every mistake in them.
pub fn parse(words: &[String], environment: &BTreeMap<String, String>) -> Result<Invocation, Stop> {
    let (words, from_environment) = with_environment(words, environment);
    let mut errors = ConfigErrors::new(from_environment);
    let Some(cli) = typed(words, &mut errors)? else {
        return Err(Stop::Usage(
            errors.finish::<()>(None).err().unwrap_or_default(),
        ));
    };
    let (run, command): (_, fn(_) -> _) = match cli.command {
        Subcommand::Run(run) => (run, Command::Run),
        Subcommand::Hook(run) => (run, Command::Hook),
        Subcommand::Install(args) => {
            let asked = Invocation {
                log: Log::default(),
                command: Command::Install(args),
                warnings: Vec::new(),
            };
            return errors.finish(Some(asked)).map_err(Stop::Usage);
        }
    };
    let drain = run.drain.validate(&mut errors);
    let inflight = run.inflight.validate(&mut errors);
    let http = run.http.validate(
        environment.get(http::TOKEN_VARIABLE).map(String::as_str),
        &mut errors,
    );
    let notices = run.notices.validate(&mut errors);
    let cluster = run.cluster.validate(environment, &mut errors);
    let log = run
        .log
        .validate(environment.get("RUST_LOG").map(String::as_str), &mut errors);
    let mut warnings = unknown_variables(environment);
    if drain.min_wait > drain.budget() {
        warnings.push(format!(
            "the least wait of {} is longer than the most a drain may take, {} (grace period minus reserve, or timeout), \
             which wins",
            humantime::format_duration(drain.min_wait),
            humantime::format_duration(drain.budget()),
        ));
    }
    let settings = http.zip(log).map(|(http, log)| Invocation {
        log,
        command: command(Box::new(run::Settings {
            inflight,
            drain,
            http,
            notices,
            cluster,
        })),
        warnings,
    });
    errors.finish(settings).map_err(Stop::Usage)
}

/// The words as flags. Unknown flags are noted and passed over, so that the rest is checked too.
fn typed(mut words: Vec<String>, errors: &mut ConfigErrors) -> Result<Option<Cli>, Stop> {
    loop {
        let error = match Cli::try_parse_from(&words) {
            Ok(cli) => return Ok(Some(cli)),
            Err(error) => error,
        };
        match error.kind() {
            ErrorKind::DisplayHelp
            | ErrorKind::DisplayVersion
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
                return Err(Stop::Help(error.render().to_string()));
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
                let told = error.render().to_string();
                errors.say(
                    told.trim_start_matches("error: ")
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

/// The words with those flags added that only the environment sets, and which variable set each.
fn with_environment(
    words: &[String],
    environment: &BTreeMap<String, String>,
) -> (Vec<String>, BTreeMap<String, String>) {
    let mut words = words.to_vec();
    let mut origins = BTreeMap::new();
    let command = Cli::command();
    let subcommand = words.get(1).and_then(|name| command.find_subcommand(name));
    for flag in subcommand
        .into_iter()
        .flat_map(clap::Command::get_arguments)
    {
        let Some(name) = flag.get_long() else {
            continue;
        };
        let variable = variable(name);
        let typed = words
            .iter()
            .any(|word| word.strip_prefix("--").and_then(|w| w.split('=').next()) == Some(name));
        let Some(value) = environment.get(&variable).filter(|_| !typed) else {
            continue;
        };
        let repeatable = matches!(flag.get_action(), clap::ArgAction::Append);
        let values: Vec<&str> = match repeatable {
            true => value
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect(),
            false => vec![value],
        };
        words.splice(
            2..2,
            values.into_iter().map(|value| format!("--{name}={value}")),
        );
        origins.insert(name.to_owned(), variable);
    }
    (words, origins)
}

fn variable(flag: &str) -> String {
    format!("{PREFIX}{}", flag.to_uppercase().replace('-', "_"))
}

/// Variables that look like ours and set nothing, but for those that Kubernetes sets for a Service of such a name.
fn unknown_variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    let command = Cli::command();
    let known = |variable: &str| {
        variable == http::TOKEN_VARIABLE
            || (command
                .get_subcommands()
                .flat_map(clap::Command::get_arguments))
            .filter_map(clap::Arg::get_long)
            .any(|flag| self::variable(flag) == variable)
    };
    let of_a_service = |name: &str| {
        name.contains("_SERVICE_") || name.contains("_PORT") || name.ends_with("_SERVICE")
    };
    (environment.keys())
        .filter(|name| name.starts_with(PREFIX) && !known(name) && !of_a_service(name))
        .map(|name| format!("the environment variable {name} sets nothing; gracekeeper run --help lists the flags"))
        .collect()
}

impl LogArgs {
    fn validate(&self, rust_log: Option<&str>, errors: &mut ConfigErrors) -> Option<Log> {
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
                    errors.say(format!(
                        "RUST_LOG={text:?}: {e}; write info or gracekeeper=debug"
                    ));
                    return None;
                }
            },
        };
        Some(Log {
            json: json?,
            targets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SOURCE: &str = "--inflight=prometheus+http://127.0.0.1:8000/metrics#m";

    fn parse(words: &[&str], environment: &[(&str, &str)]) -> Result<Invocation, Stop> {
        let words: Vec<String> = ["gracekeeper", "run"]
            .iter()
            .chain(words)
            .map(|&word| word.to_owned())
            .collect();
        let environment = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        super::parse(&words, &environment)
    }

    fn settings(words: &[&str], environment: &[(&str, &str)]) -> run::Settings {
        match parse(words, environment).unwrap().command {
            Command::Run(settings) => *settings,
            other => panic!("{other:?}"),
        }
    }

    fn errors(words: &[&str], environment: &[(&str, &str)]) -> String {
        match parse(words, environment).unwrap_err() {
            Stop::Usage(text) => text,
            Stop::Help(text) => panic!("help: {text}"),
        }
    }

    #[test]
    fn the_defaults_are_the_documented_ones() {
        let run = settings(&[SOURCE], &[]);
        assert_eq!(run.http.listen.to_string(), "[::]:9903");
        assert_eq!(
            run.drain,
            drain::Policy {
                max_inflight: 0.0,
                min_wait: Duration::from_secs(5),
                quiet_period: Duration::from_secs(1),
                max_quiet: Duration::from_secs(10),
                grace_period: Duration::from_secs(30),
                reserve: Duration::from_secs(5),
                timeout: None,
                readiness: drain::Readiness::Now,
                when_blind: drain::WhenBlind::Wait,
                poll_interval: Duration::from_millis(100),
                exit_with_app: false,
            }
        );
        assert_eq!(run.inflight.read_timeout, Duration::from_secs(1));
        assert_eq!(
            run.notices.termination_log.to_str(),
            Some("/dev/termination-log")
        );
    }

    #[test]
    fn the_budget_is_the_tightest_bound() {
        let budget = |words: &[&str]| settings(&[&[SOURCE], words].concat(), &[]).drain.budget();
        assert_eq!(
            budget(&["--grace-period=60s", "--reserve=10s"]),
            Duration::from_secs(50)
        );
        assert_eq!(budget(&["--timeout=8s"]), Duration::from_secs(8));
        assert_eq!(budget(&["--timeout=80s"]), Duration::from_secs(25));
    }

    #[test]
    fn policies_are_read() {
        let run = settings(
            &[SOURCE, "--readiness=after=10s", "--when-blind=window=1m30s"],
            &[],
        );
        assert_eq!(
            run.drain.readiness,
            drain::Readiness::After(Duration::from_secs(10))
        );
        assert_eq!(
            run.drain.when_blind,
            drain::WhenBlind::Window(Duration::from_secs(90))
        );
    }

    #[test]
    fn the_environment_sets_what_no_flag_does() {
        let environment = [
            ("GRACEKEEPER_MIN_WAIT", "7s"),
            ("GRACEKEEPER_TIMEOUT", "9s"),
            (
                "GRACEKEEPER_INFLIGHT",
                "prometheus+http://a:1/m#x{a=\"b, c\"}\n\n prometheus+http://b:1/m#y\n",
            ),
            ("GRACEKEEPER_TOKEN", "secret"),
        ];
        let run = settings(&["--timeout", "8s"], &environment);
        assert_eq!(
            (run.drain.min_wait, run.drain.budget()),
            (Duration::from_secs(7), Duration::from_secs(8))
        );
        let names: Vec<String> = run
            .inflight
            .sources
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            names,
            [
                "prometheus+http://a:1/m#x{a=\"b, c\"}",
                "prometheus+http://b:1/m#y"
            ]
        );
        assert!(run.http.token.is_some());
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = errors(
            &[
                "--listen=9903",
                "--inflight=gopher://x",
                "--min-wait=soon",
                "--min-weit=5s",
                "--colour",
                "blue",
                "--max-inflight=-1",
                "--readiness=later",
                "--when-blind=window=x",
                "--notify=here",
                "--app-ready=ftp://x",
                "--token-file=/nowhere/token",
                "--drain-file=/nowhere/file",
                "--log-format=xml",
                "--log-level=loud",
                "--poll-interval=0s",
                "--read-timeout=0s",
                "--app-port=http",
                "--max-quiet=0s",
            ],
            &[("GRACEKEEPER_RESERVE", "40s"), ("GRACEKEEPER_TIMEOUT", "")],
        );
        for part in [
            "--listen \"9903\"",
            "--inflight \"gopher://x\"",
            "--min-wait \"soon\"",
            "--min-weit is not a flag; did you mean --min-wait?",
            "--colour is not a flag",
            "--max-inflight \"-1\"",
            "--readiness \"later\"",
            "--when-blind \"window=x\"",
            "--notify \"here\"",
            "--app-ready \"ftp://x\"",
            "--token-file \"/nowhere/token\"",
            "--drain-file \"/nowhere/file\"",
            "--log-format \"xml\"",
            "--log-level \"loud\"",
            "--poll-interval \"0s\"",
            "--read-timeout \"0s\"",
            "--app-port \"http\"",
            "--max-quiet \"0s\"",
            "--reserve \"40s\" (from GRACEKEEPER_RESERVE)",
            "--timeout \"\" (from GRACEKEEPER_TIMEOUT)",
        ] {
            assert!(told.contains(part), "{part:?} in\n{told}");
        }
        assert_eq!(told.lines().count(), 20, "{told}");
    }

    #[test]
    fn nothing_to_watch_is_a_mistake_with_a_remedy() {
        assert!(errors(&[], &[]).contains("write --app-port 8000"));
    }

    #[test]
    fn an_app_port_alone_is_a_source() {
        let run = settings(&["--app-port=8000", "--app-port=8001"], &[]);
        let names: Vec<_> = run
            .inflight
            .sources
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(names, ["tcp-busy://:8000", "tcp-busy://:8001"]);
        assert_eq!(run.inflight.ports, [8000, 8001].into());
        let run = settings(&[SOURCE, "--app-port=8000", "--inflight=tcp://:9000"], &[]);
        assert_eq!(run.inflight.sources.len(), 2);
        assert_eq!(run.inflight.ports, [8000, 9000].into());
    }

    #[test]
    fn a_token_file_is_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "secret\n").unwrap();
        let flag = format!("--token-file={}", file.path().display());
        assert!(settings(&[SOURCE, &flag], &[]).http.token.is_some());
    }

    #[test]
    fn two_tokens_or_an_empty_one_are_mistakes() {
        assert!(
            errors(&[SOURCE, "--token-file=/x"], &[("GRACEKEEPER_TOKEN", "s")])
                .contains("one of the two")
        );
        assert!(errors(&[SOURCE], &[("GRACEKEEPER_TOKEN", " ")]).contains("empty"));
    }

    #[test]
    fn no_secret_is_shown() {
        let told = errors(&["--inflight=prometheus+http://me:hunter2@x:1/m"], &[]);
        assert!(!told.contains("hunter2"), "{told}");
        let run = settings(&[SOURCE], &[("GRACEKEEPER_TOKEN", "hunter2")]);
        assert!(!format!("{run:?}").contains("hunter2"));
    }

    #[test]
    fn suspicious_settings_are_warned_about() {
        let asked = parse(
            &[SOURCE, "--timeout=2s"],
            &[
                ("GRACEKEEPER_MINWAIT", "1s"),
                ("GRACEKEEPER_WEBHOOK_SERVICE_HOST", "10.0.0.1"),
                ("GRACEKEEPER_PORT_9903_TCP", "tcp://10.0.0.1:9903"),
            ],
        )
        .unwrap();
        assert_eq!(asked.warnings.len(), 2, "{:?}", asked.warnings);
        assert!(asked.warnings[0].contains("GRACEKEEPER_MINWAIT"));
        assert!(asked.warnings[1].contains("2s"));
    }

    #[test]
    fn help_is_help() {
        assert!(
            matches!(parse(&["--help"], &[]), Err(Stop::Help(text)) if text.contains("--min-wait"))
        );
        for words in [&["gracekeeper"][..], &["gracekeeper", "--version"]] {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            assert!(matches!(
                super::parse(&words, &BTreeMap::new()),
                Err(Stop::Help(_))
            ));
        }
    }
}
