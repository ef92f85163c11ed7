//! The app under test and its customers, in one binary: a shop whose requests take as long as they are told to, a load
//! that never retries, and a client that asks once.

mod ask;
mod load;
mod monitor;
mod processes;
mod serve;

use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "shop")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The app
    Serve(serve::Args),
    /// Its customers, until a POST /stop comes
    Load(load::Args),
    /// A monitor: the same requests at a steady beat, each on a new connection
    Monitor(monitor::Args),
    /// WebSockets that are open and not used
    Idle(monitor::IdleArgs),
    /// One request, and its answer
    Ask(ask::Args),
    /// Kills a process of the pod, where its processes are shared, as the kernel does that has no memory left
    Kill { words: String },
    /// A preStop hook of the usual kind: tells the app, if asked to, and sleeps
    Sleep(SleepArgs),
}

#[derive(Debug, clap::Args)]
struct SleepArgs {
    #[arg(value_parser = humantime::parse_duration)]
    time: Duration,

    /// Is sent a POST first
    #[arg(long)]
    tell: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Serve(args) => serve::run(args).await,
        Command::Load(args) => load::run(args).await,
        Command::Monitor(args) => monitor::run(args).await,
        Command::Idle(args) => monitor::idle(args).await,
        Command::Ask(args) => ask::run(args).await,
        Command::Kill { words } => processes::kill(&words),
        Command::Sleep(args) => {
            if let Some(url) = &args.tell {
                ask::once("POST", url, &[])
                    .await
                    .context("telling the app")?;
            }
            tokio::time::sleep(args.time).await;
            Ok(())
        }
    }
}

/// The wall clock in milliseconds, since what happens here is laid beside what the API server says.
fn now() -> u64 {
    let since = SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(0, |since| since.as_millis() as u64)
}
