//! gracekeeper: a drain sidecar for Kubernetes pods.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _};
use std::process::ExitCode;

use gracekeeper::cli::{self, Command, Log, Stop};
use gracekeeper::{hook, install, run};
use tracing::{error, info, warn};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Layer, fmt};

/// Something went wrong.
const FAILURE: u8 = 1;
/// The command line or the environment is wrong: `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args_os()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let environment: BTreeMap<String, String> = std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect();
    let asked = match cli::parse(&words, &environment) {
        Ok(asked) => asked,
        Err(Stop::Help(text)) => return tell(io::stdout(), &text, ExitCode::SUCCESS),
        Err(Stop::Usage(text)) => {
            return tell(io::stderr(), &format!("{text}\n"), ExitCode::from(USAGE));
        }
    };
    start_log(asked.log);
    for warning in asked.warnings {
        warn!("{warning}");
    }
    match run(asked.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error!("{e:#}");
            ExitCode::from(FAILURE)
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match command {
        Command::Run(settings) => runtime.block_on(run::run(*settings)),
        Command::Hook(settings) => {
            let line = runtime.block_on(hook::run(*settings))?;
            hook::tell(&line);
            Ok(())
        }
        Command::Install(args) => {
            let copy = install::run(&args)?;
            info!(path = %copy.display(), "installed");
            Ok(())
        }
    }
}

/// Logs to standard error.
fn start_log(log: Log) {
    let text = fmt::layer().with_writer(io::stderr).with_target(false);
    let layer = match log.json {
        true => text
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        false => text.with_ansi(io::stderr().is_terminal()).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(log.targets))
        .init();
}

/// Prints what somebody asked for or has to know. Where nobody listens there is nobody to tell.
fn tell(mut to: impl io::Write, text: &str, code: ExitCode) -> ExitCode {
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
    code
}
