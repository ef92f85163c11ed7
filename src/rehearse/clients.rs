//! The clients: they send requests at a set rate, half of them on new connections, and retry none.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HOST, SERVER, USER_AGENT};
use http::{HeaderName, Method, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::record::Cause;
use super::routes::{Endpoint, Routes};
use super::target::Target;

/// How the clients name themselves.
const AGENT: &str = concat!("gracekeeper-rehearse/", env!("CARGO_PKG_VERSION"));

/// How often a monitoring system reads the metrics.
const SCRAPES: Duration = Duration::from_secs(1);

/// How many kept connections take turns.
const KEPT: usize = 10;

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub began: Instant,
    pub ended: Instant,
    pub reused: bool,
    pub target: usize,
    pub instance: usize,
    pub cause: Option<Cause>,
}

/// What the clients ask for, and how often.
#[derive(Debug, Clone)]
pub struct Load {
    pub targets: Vec<Target>,
    pub body: String,
    /// Requests a second.
    pub rate: u32,
    pub timeout: Duration,
    pub monitors: u32,
}

/// The clients' memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<SeenParts>>);

#[derive(Debug, Default)]
struct SeenParts {
    ended: Vec<Ended>,
    in_flight: usize,
    server: Option<String>,
}

/// A kept connection between two requests.
#[derive(Debug)]
struct Kept {
    sender: SendRequest<Full<Bytes>>,
    endpoint: Endpoint,
}

/// Kept connections that are free, the one that waits longest first.
type Free = Arc<Mutex<VecDeque<Kept>>>;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Seen {
    /// How many requests have ended, how many of them without a good answer, and how many are in flight.
    pub fn counts(&self) -> (usize, usize, usize) {
        let parts = lock(&self.0);
        let failed = parts
            .ended
            .iter()
            .filter(|ended| ended.cause.is_some())
            .count();
        (parts.ended.len(), failed, parts.in_flight)
    }

    /// Every request that has ended, in the order of their ends.
    pub fn requests(&self) -> Vec<Ended> {
        lock(&self.0).ended.clone()
    }

    /// What the app calls itself.
    pub fn server(&self) -> Option<String> {
        lock(&self.0).server.clone()
    }

    fn note_server(&self, headers: &http::HeaderMap) {
        let mut parts = lock(&self.0);
        if parts.server.is_some() {
            return;
        }
        let named = [HeaderName::from_static("x-powered-by"), SERVER];
        let header = named
            .iter()
            .find_map(|name| headers.get(name)?.to_str().ok());
        parts.server = header.map(str::to_owned);
    }
}

/// Sends until told to stop, and then waits for the answers to what is under way.
pub async fn send(load: Load, routes: Routes, seen: Seen, stop: impl Future<Output = ()>) {
    let load = Arc::new(load);
    let free = Free::default();
    let mut requests = JoinSet::new();
    let mut monitors = JoinSet::new();
    for n in 0..load.monitors {
        if let Some(endpoint) = routes.current() {
            monitors.spawn(monitor(endpoint.address, n));
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
    address: SocketAddr,
    body: &str,
    limit: Duration,
) -> Result<StatusCode, Cause> {
    let endpoint = Endpoint {
        instance: 0,
        address,
    };
    let ask = async {
        let mut sender = connect(endpoint.address, Ipv4Addr::LOCALHOST.into()).await?;
        let answer = sender
            .send_request(request(target, address, body, false))
            .await;
        Ok(answer.map_err(|e| cause(&e))?.status())
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
            Some(free) => take(free).await,
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
        lock(&self.seen.0).in_flight += 1;
        let exchange = timeout(self.load.timeout, self.exchange(kept, endpoint));
        let cause = match exchange.await {
            Ok(result) => result.err(),
            Err(_) => Some(Cause::TimedOut),
        };
        let mut seen = lock(&self.seen.0);
        seen.in_flight -= 1;
        seen.ended.push(Ended {
            began,
            ended: Instant::now(),
            reused,
            target: self.target,
            instance: endpoint.instance,
            cause,
        });
    }

    async fn exchange(&self, kept: Option<Kept>, endpoint: Endpoint) -> Result<(), Cause> {
        let mut sender = match kept {
            Some(kept) => kept.sender,
            None => connect(endpoint.address, Ipv4Addr::LOCALHOST.into()).await?,
        };
        let target = &self.load.targets[self.target];
        let request = request(
            target,
            endpoint.address,
            &self.load.body,
            self.free.is_some(),
        );
        let answer = sender.send_request(request).await.map_err(|e| cause(&e))?;
        let status = answer.status();
        self.seen.note_server(answer.headers());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|_| Cause::Cut)?;
        }
        if let Some(free) = &self.free {
            let mut free = lock(free);
            if free.len() < KEPT {
                free.push_back(Kept { sender, endpoint });
            }
        }
        match status.is_server_error() {
            true => Err(Cause::ServerError),
            false => Ok(()),
        }
    }
}

/// A kept connection that the app has not closed. A client sees that before it sends.
async fn take(free: &Free) -> Option<Kept> {
    loop {
        let mut kept = lock(free).pop_front()?;
        if !kept.sender.is_closed() && kept.sender.ready().await.is_ok() {
            return Some(kept);
        }
    }
}

/// A connection from an address.
async fn connect(to: SocketAddr, from: IpAddr) -> Result<SendRequest<Full<Bytes>>, Cause> {
    let stream = open(to, from).await.map_err(|e| io_cause(&e))?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| cause(&e))?;
    // It ends with its sender, or when the app closes it.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}

/// A TCP connection; from an address of IPv4's loopback network where the app is there too.
pub async fn open(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    if to.is_ipv6() {
        return TcpStream::connect(to).await;
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

fn request(target: &Target, to: SocketAddr, body: &str, keep: bool) -> http::Request<Full<Bytes>> {
    let mut builder = http::Request::builder()
        .method(target.method.clone())
        .uri(target.path())
        .header(HOST, to.to_string())
        .header(USER_AGENT, AGENT);
    if !keep {
        builder = builder.header(CONNECTION, "close");
    }
    let body = match target.method == Method::POST {
        true => Bytes::from(body.to_owned()),
        false => Bytes::new(),
    };
    if target.method == Method::POST {
        builder = builder.header(CONTENT_TYPE, "application/json");
    }
    builder.body(Full::new(body)).unwrap_or_default()
}

/// Why a request had no answer.
fn cause(error: &hyper::Error) -> Cause {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(e) = inner.downcast_ref::<io::Error>() {
            return io_cause(e);
        }
        source = inner.source();
    }
    Cause::Closed
}

fn io_cause(error: &io::Error) -> Cause {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Cause::Refused,
        io::ErrorKind::TimedOut => Cause::TimedOut,
        io::ErrorKind::UnexpectedEof => Cause::Closed,
        _ => Cause::Reset,
    }
}

/// Reads the metrics again and again from an address of its own, until it cannot.
async fn monitor(app: SocketAddr, n: u32) -> Option<Infallible> {
    let from = Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 1, 1)) + n);
    let mut sender = connect(app, from.into()).await.ok()?;
    let metrics: Target = "http://127.0.0.1:{port}/metrics".parse().ok()?;
    let mut ticks = interval(SCRAPES);
    loop {
        ticks.tick().await;
        if sender.ready().await.is_err() {
            sender = connect(app, from.into()).await.ok()?;
        }
        let answer = sender
            .send_request(request(&metrics, app, "", true))
            .await
            .ok()?;
        answer.into_body().collect().await.ok()?;
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
                address,
            }),
            seen: seen.clone(),
            free: None,
        };
        request.send().await;
        server.await.unwrap();
        seen.requests()[0].cause
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
        let free = super::super::ports::free(Ipv4Addr::LOCALHOST.into()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free));
        let refused = probe(&target, address, "", Duration::from_secs(20)).await;
        assert_eq!(refused, Err(Cause::Refused));
    }

    #[test]
    fn each_url_has_its_share() {
        let targets =
            ["3 http://127.0.0.1/a", "http://127.0.0.1/b"].map(|text| text.parse().unwrap());
        assert_eq!(turns(&targets), [0, 0, 0, 0, 0, 0, 1, 1]);
    }
}
