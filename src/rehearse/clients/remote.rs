//! The clients as a program of their own, `gracekeeper rehearse-clients`: what the pod of `rehearse --cluster` runs.
//!
//! It asks for each URL once, sends until SIGTERM, waits for the answers to what is under way, and prints a [`Line`] for
//! each of these. Its clock begins with it, so that it need not agree with the reader's.

use std::io::{self, Write as _};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::super::record::Cause;
use super::super::routes::{Endpoint, Place, Routes};
use super::{Args, Load, Seen, probe};
use crate::config::ConfigErrors;
use crate::signal::Signals;

/// The name of the command.
pub const COMMAND: &str = "rehearse-clients";

/// How often there is a line.
pub const BEAT: Duration = Duration::from_millis(100);

/// How long a URL may take to be served: a proxy beside these clients may start with them.
const SERVED: Duration = Duration::from_secs(10);

/// The time between two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// A line of its output. Times are in microseconds since the program began.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// A URL has no answer, or none that an app gives which serves it.
    Refused { url: String, why: String },
    /// The clients send from now on.
    Sending {},
    /// The requests that have ended since the line before; such a line comes every tenth of a second, numbered.
    Batch {
        number: usize,
        at: u64,
        in_flight: usize,
        ended: Vec<Sent>,
    },
    /// There is no more to come.
    End { server: Option<String> },
}

/// A request: when it began and ended, whether on a kept connection, which URL, and why it had no good answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent(
    pub u64,
    pub u64,
    pub bool,
    pub usize,
    #[serde(default)] pub Option<Cause>,
);

/// What to send.
#[derive(Debug)]
pub struct Settings(Load);

impl Settings {
    /// Checks the flags.
    pub fn new(args: Args, errors: &mut ConfigErrors) -> Option<Self> {
        args.validate("http://web/", errors).map(Self)
    }
}

/// The flags that have a program send this load.
pub fn flags(load: &Load) -> Vec<String> {
    let urls = load
        .targets
        .iter()
        .map(|target| format!("--url={} {} {}", target.weight, target.method, target.url));
    urls.chain([
        format!("--body={}", load.body),
        format!("--rate={}", load.rate),
        format!(
            "--client-timeout={}",
            humantime::format_duration(load.timeout)
        ),
    ])
    .collect()
}

/// Sends until a signal comes.
///
/// # Errors
/// When a URL is not served, or when nothing reads the lines.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut signals = Signals::catch()?;
    let began = Instant::now();
    let load = settings.0;
    let serving = async {
        for target in &load.targets {
            let first = Instant::now();
            loop {
                let answer = probe(target, Place::AsWritten, &load.body, load.timeout).await;
                let why = match answer {
                    Ok(status) if status.is_good() => break,
                    Ok(status) => format!("answers {status}; write a URL that the app serves"),
                    Err(cause) => format!(
                        "has no answer: {}; look at its port, and whether a NetworkPolicy lets a pod in this namespace ask",
                        cause.title()
                    ),
                };
                if first.elapsed() > SERVED {
                    print(&Line::Refused {
                        url: target.url.clone(),
                        why: why.clone(),
                    })?;
                    bail!("{} {why}", target.url);
                }
                sleep(PAUSE).await;
            }
        }
        anyhow::Ok(())
    };
    tokio::select! {
        served = serving => served?,
        _ = signals.next() => return print(&Line::End { server: None }),
    }
    print(&Line::Sending {})?;
    let seen = Seen::default();
    let routes = Routes::to(Endpoint {
        instance: 0,
        place: Place::AsWritten,
    });
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async {
        let _ = stopped.await;
    };
    let mut stop = Some(stop);
    let sending = super::send(load, routes, seen.clone(), stopped);
    tokio::pin!(sending);
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Told {
        began,
        number: 0,
        requests: 0,
    };
    loop {
        tokio::select! {
            () = &mut sending => break,
            _ = beats.tick() => told.tell(&seen)?,
            _ = signals.next() => drop(stop.take()),
        }
    }
    told.tell(&seen)?;
    print(&Line::End {
        server: seen.server(),
    })
}

/// How far the output has come.
struct Told {
    began: Instant,
    number: usize,
    requests: usize,
}

impl Told {
    /// Prints what has ended since.
    fn tell(&mut self, seen: &Seen) -> anyhow::Result<()> {
        let since = |at: Instant| at.saturating_duration_since(self.began).as_micros() as u64;
        let ended = seen.requests(self.requests);
        let line = Line::Batch {
            number: self.number,
            at: since(Instant::now()),
            in_flight: seen.counts().2,
            ended: (ended.iter())
                .map(|it| {
                    Sent(
                        since(it.began),
                        since(it.ended),
                        it.reused,
                        it.target,
                        it.cause,
                    )
                })
                .collect(),
        };
        self.number += 1;
        self.requests += ended.len();
        print(&line)
    }
}

fn print(line: &Line) -> anyhow::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut out = io::stdout().lock();
    (out.write_all(&text).and_then(|()| out.flush())).context("the result cannot be printed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_as_it_was_written() {
        let lines = [
            Line::Sending {},
            Line::Batch {
                number: 3,
                at: 400_000,
                in_flight: 2,
                ended: vec![
                    Sent(1, 2, true, 0, Some(Cause::ServerError)),
                    Sent(1, 3, false, 1, None),
                ],
            },
            Line::End { server: None },
        ];
        for line in lines {
            let text = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
        }
    }

    #[test]
    fn the_flags_are_those_of_the_same_load() {
        use crate::cli::{Command, parse};
        let targets = [
            "3 POST http://web/orders",
            "grpc://web:50051/shop.Shop/Hello",
        ];
        let load = Load {
            targets: targets.map(|text| text.parse().unwrap()).to_vec(),
            body: "{\"a\": 1}".to_owned(),
            rate: 7,
            timeout: Duration::from_millis(2500),
            monitors: 0,
        };
        let words = ["gracekeeper".to_owned(), COMMAND.to_owned()];
        let words: Vec<String> = words.into_iter().chain(flags(&load)).collect();
        let Command::RehearseClients(settings) =
            parse(&words, &Default::default()).unwrap().command
        else {
            panic!("{words:?}");
        };
        let Settings(parsed) = *settings;
        assert_eq!(
            (parsed.body, parsed.rate, parsed.timeout),
            (load.body, load.rate, load.timeout)
        );
        let written = |targets: &[super::super::Target]| {
            let one = |t: &super::super::Target| (t.weight, t.method.clone(), t.url.clone());
            targets.iter().map(one).collect::<Vec<_>>()
        };
        assert_eq!(written(&parsed.targets), written(&load.targets));
    }
}
