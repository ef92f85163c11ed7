//! gracekeeper: a drain sidecar for Kubernetes pods.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitCode;

#[cfg(feature = "tools")]
use gracekeeper::check;
use gracekeeper::cli::{self, Command, NoInvocation};
#[cfg(feature = "tools")]
use gracekeeper::inject;
#[cfg(feature = "tools")]
use gracekeeper::rehearse;
use gracekeeper::{exit, hook, install, run};
use tracing::{error, info, warn};

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
    let invocation = match cli::parse(&words, &environment) {
        Ok(invocation) => invocation,
        Err(NoInvocation::Help(text)) => return print(io::stdout(), &text, exit::SUCCESS),
        Err(NoInvocation::Usage(text)) => {
            return print(io::stderr(), &format!("{text}\n"), exit::USAGE);
        }
    };
    invocation.log.start();
    for warning in invocation.warnings {
        warn!("{warning}");
    }
    match execute(invocation.command) {
        Ok(status) => status.into(),
        Err(e) => {
            error!("{e:#}");
            exit::FAILURE.into()
        }
    }
}

fn execute(command: Command) -> anyhow::Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    match command {
        Command::Run(settings) => runtime.block_on(run::run(*settings))?,
        Command::Hook(settings) => {
            let line = runtime.block_on(hook::run(*settings))?;
            hook::tell(&line);
        }
        Command::Install(args) => {
            let copy = install::run(&args)?;
            info!(path = %copy.display(), "installed");
        }
        #[cfg(feature = "tools")]
        Command::Check(settings) => {
            if runtime.block_on(check::run(*settings))? == check::Outcome::Findings {
                return Ok(exit::FAILURE);
            }
        }
        #[cfg(feature = "tools")]
        Command::Inject(injection) => {
            let output = inject::run(&injection)?;
            print(
                io::stderr(),
                &inject::lines(&output.warnings),
                exit::SUCCESS,
            );
            print(io::stdout(), &output.text, exit::SUCCESS);
        }
        #[cfg(feature = "tools")]
        Command::Rehearse(settings) => {
            if runtime.block_on(rehearse::run(*settings))? == rehearse::Outcome::TooManyLost {
                return Ok(exit::FAILURE);
            }
        }
        #[cfg(feature = "tools")]
        Command::RehearseClients(settings) => {
            runtime.block_on(rehearse::run_clients(*settings))?;
        }
        #[cfg(feature = "tools")]
        Command::RehearseNetwork(args) => {
            runtime.block_on(rehearse::run_network(args))?;
        }
    }
    Ok(exit::SUCCESS)
}

/// Prints a text and gives the exit status. That the text cannot be written changes nothing: nothing reads it.
fn print(mut to: impl io::Write, text: &str, status: u8) -> ExitCode {
    let _ = to.write_all(text.as_bytes());
    let _ = to.flush();
    status.into()
}
