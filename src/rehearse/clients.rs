//! The clients: they send requests at a set rate, half of them on new connections, and retry none.
//!
//! `connection` is what a request is sent on, `seen` what became of requests, `monitor` a monitoring system. `remote` is
//! the same clients as a program of their own, for a pod.

pub mod connection;
mod monitor;
pub mod remote;
mod seen;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::record::Cause;
use super::routes::{Endpoint, Place, Routes};
use super::target::Target;
use crate::config::ConfigErrors;
use connection::{Connection, Status};
pub use seen::{Ended, Seen};

/// How many kept connections take turns.
const KEPT: usize = 10;

/// Where clients call from, where the app is on this machine.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Flags of what clients ask for.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    /// What clients ask for, such as http://127.0.0.1:{port}/work. Repeatable
    ///
    /// A weight and a method may stand before it: '3 POST http://127.0.0.1:{port}/orders' is asked for three times as often
    /// as a URL without a weight, by POST. grpc://127.0.0.1:{port}/PACKAGE.SERVICE/METHOD is a unary call with an empty
    /// message.
    #[arg(long, value_name = "URL")]
    url: Vec<String>,

    /// The body of each POST, sent as application/json
    #[arg(long, value_name = "TEXT", default_value = "{}")]
    body: String,

    /// Requests a second: half on new connections, half on kept ones; none is retried
    #[arg(long, value_name = "N", default_value = "50")]
    rate: String,

    /// How long a client waits for an answer
    #[arg(long, value_name = "DURATION", default_value = "15s")]
    client_timeout: String,
}

/// What the clients ask for, and how often.
#[derive(Debug, Clone, Default)]
pub struct Load {
    pub targets: Vec<Target>,
    pub body: String,
    /// Requests a second.
    pub rate: u32,
    pub timeout: Duration,
    pub monitors: u32,
}

impl Args {
    /// Checks the flags. `example` is a URL as it could be written here.
    pub fn validate(self, example: &str, errors: &mut ConfigErrors) -> Option<Load> {
        let targets: Vec<Target> = (self.url.iter())
            .filter_map(|text| errors.check("url", text, text.parse()))
            .collect();
        if self.url.is_empty() {
            errors.say(format!(
                "there is no URL; write --url '{example}' with a path that the app serves"
            ));
        }
        let rate = errors.check("rate", &self.rate, super::count(&self.rate, 1, 1000));
        let timeout = errors.positive_duration("client-timeout", &self.client_timeout);
        Some(Load {
            targets,
            body: self.body,
            rate: rate?,
            timeout,
            monitors: 0,
        })
    }
}

/// A kept connection between two requests.
#[derive(Debug)]
struct Kept {
    connection: Connection,
    endpoint: Endpoint,
    /// The target that it was opened for.
    target: usize,
}

/// Kept connections that are free, the one that waits longest first.
type Free = Arc<Mutex<VecDeque<Kept>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sends until told to stop, and then waits for the answers to what is under way.
pub async fn send(load: Load, routes: Routes, seen: Seen, stop: impl Future<Output = ()>) {
    let load = Arc::new(load);
    let free = Free::default();
    let mut requests = JoinSet::new();
    let mut monitors = JoinSet::new();
    for n in 0..load.monitors {
        if let Some(Place::At(address)) = routes.current().map(|endpoint| endpoint.place) {
            monitors.spawn(monitor::monitor(address, n));
        }
    }
    let mut ticks = interval(Duration::from_secs(1) / load.rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut turns = turns(&load.targets).into_iter().cycle();
    let mut keep = false;
    tokio::pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => break,
            _ = ticks.tick() => {}
        }
        while requests.try_join_next().is_some() {}
        let target = turns.next().unwrap_or_default();
        // Each URL is asked for in both ways.
        keep = !keep;
        let client = Request {
            load: load.clone(),
            target,
            routes: routes.clone(),
            seen: seen.clone(),
            free: keep.then(|| free.clone()),
        };
        requests.spawn(client.send());
    }
    while requests.join_next().await.is_some() {}
}

/// Which URL is asked for when: each as often as its weight says, and twice in a row for both kinds of connections.
fn turns(targets: &[Target]) -> Vec<usize> {
    let weighted = targets.iter().enumerate();
    weighted
        .flat_map(|(n, target)| vec![n; 2 * target.weight as usize])
        .collect()
}

/// Sends one request, to see how the app answers.
///
/// # Errors
/// The cause, where there is no answer.
pub async fn probe(
    target: &Target,
    place: Place,
    body: &str,
    limit: Duration,
) -> Result<Status, Cause> {
    let ask = async {
        let mut connection = Connection::open(target, place, CLIENT).await?;
        connection.exchange(target, place, body, false, None).await
    };
    timeout(limit, ask).await.unwrap_or(Err(Cause::TimedOut))
}

/// A request of one client.
struct Request {
    load: Arc<Load>,
    target: usize,
    routes: Routes,
    seen: Seen,
    /// Where kept connections are, for a client that keeps them.
    free: Option<Free>,
}

impl Request {
    async fn send(self) {
        let kept = match &self.free {
            Some(free) => self.take(free).await,
            None => None,
        };
        let reused = kept.is_some();
        let Some(endpoint) = kept
            .as_ref()
            .map(|kept| kept.endpoint)
            .or_else(|| self.routes.current())
        else {
            // Another pod takes it.
            return;
        };
        let began = Instant::now();
        self.seen.begin();
        let exchange = timeout(self.load.timeout, self.exchange(kept, endpoint));
        let cause = match exchange.await {
            Ok(result) => result.err(),
            Err(_) => Some(Cause::TimedOut),
        };
        self.seen.end(Ended {
            began,
            ended: Instant::now(),
            reused,
            target: self.target,
            instance: endpoint.instance,
            cause,
        });
    }

    async fn exchange(&self, kept: Option<Kept>, endpoint: Endpoint) -> Result<(), Cause> {
        let target = &self.load.targets[self.target];
        let place = endpoint.place;
        let mut connection = match kept {
            Some(kept) => kept.connection,
            None => Connection::open(target, place, CLIENT).await?,
        };
        let keep = self.free.is_some();
        let exchange = connection.exchange(target, place, &self.load.body, keep, Some(&self.seen));
        let status = exchange.await?;
        if let Some(free) = &self.free {
            let mut free = lock(free);
            if free.len() < KEPT {
                free.push_back(Kept {
                    connection,
                    endpoint,
                    target: self.target,
                });
            }
        }
        match status.cause() {
            Some(cause) => Err(cause),
            None => Ok(()),
        }
    }

    /// A kept connection for this target that the app has not closed.
    async fn take(&self, free: &Free) -> Option<Kept> {
        let targets = &self.load.targets;
        let serves = |kept: &Kept| targets[kept.target].shares_connections(&targets[self.target]);
        loop {
            let mut kept = {
                let mut free = lock(free);
                let at = free.iter().position(serves)?;
                free.remove(at)?
            };
            if kept.connection.is_usable().await {
                return Some(kept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// How a server answers one request.
    async fn answered_with(answer: &'static [u8], reset: bool) -> Option<Cause> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            // What is not read resets the connection when it is closed.
            if !reset {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await.unwrap();
            } else {
                let _ = stream.peek(&mut [0]).await.unwrap();
            }
            stream.write_all(answer).await.unwrap();
        });
        let seen = Seen::default();
        let load = Load {
            targets: vec!["http://127.0.0.1:{port}/".parse().unwrap()],
            body: String::new(),
            rate: 1,
            timeout: Duration::from_secs(20),
            monitors: 0,
        };
        let request = Request {
            load: load.into(),
            target: 0,
            routes: Routes::to(Endpoint {
                instance: 0,
                place: Place::At(address),
            }),
            seen: seen.clone(),
            free: None,
        };
        request.send().await;
        server.await.unwrap();
        seen.requests(0)[0].cause
    }

    #[tokio::test]
    async fn each_failure_has_its_cause() {
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        assert_eq!(answered_with(whole, false).await, None);
        assert_eq!(answered_with(b"", false).await, Some(Cause::Closed));
        assert_eq!(answered_with(b"", true).await, Some(Cause::Reset));
        let half = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok";
        assert_eq!(answered_with(half, false).await, Some(Cause::Cut));
        let error = b"HTTP/1.1 503 Later\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(answered_with(error, false).await, Some(Cause::ServerError));
        let target = "http://127.0.0.1:{port}/".parse().unwrap();
        let free = super::super::ports::free(CLIENT).unwrap();
        let place = Place::At((CLIENT, free).into());
        let refused = probe(&target, place, "", Duration::from_secs(20)).await;
        assert_eq!(refused, Err(Cause::Refused));
    }

    #[test]
    fn each_url_has_its_share() {
        let targets =
            ["3 http://127.0.0.1/a", "http://127.0.0.1/b"].map(|text| text.parse().unwrap());
        assert_eq!(turns(&targets), [0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
