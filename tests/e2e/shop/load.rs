//! Customers: requests that come at a given rate whether the ones before are answered or not, are sent once, and are
//! counted.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::error::Error as StdError;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);

/// How much longer than it should an answer may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// How many moments the report looks at.
const MOMENTS: u64 = 400;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shop's address, as IP:PORT
    to: SocketAddr,

    /// Requests a second
    #[arg(long, default_value_t = 80.0)]
    rate: f64,

    #[arg(long, value_enum, default_value_t = Connections::New)]
    connections: Connections,

    #[arg(long, value_enum, default_value_t = What::Work)]
    what: What,

    /// No request is longer than this
    #[arg(long, default_value = "25s", value_parser = humantime::parse_duration)]
    longest: Duration,

    /// The same seed asks for the same things at the same times
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// Where POST /stop is waited for; GET / says how many requests have been answered
    #[arg(long, default_value_t = 9000)]
    control: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Connections {
    /// One for each request.
    New,
    /// Kept, and used in turn.
    KeepAlive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Work,
    Stream,
    Websocket,
}

/// What became of a request.
#[derive(Debug, Serialize)]
struct Fate {
    /// When it was sent, and when it was answered or lost, in milliseconds.
    began: u64,
    ended: u64,
    /// Who answered, or had the connection that it was sent on; unknown where it was lost on a new one.
    pod: Option<String>,
    /// How it was lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<String>,
}

/// A connection between two requests.
struct Kept {
    sender: SendRequest<Empty<Bytes>>,
    pod: Option<String>,
}

/// What the requests share.
struct Load {
    to: SocketAddr,
    connections: Connections,
    what: What,
    idle: Mutex<VecDeque<Kept>>,
    fates: Mutex<Vec<Fate>>,
}

/// Sends requests until told to stop, waits for what is under way, and prints what became of them.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let load = Arc::new(Load {
        to: args.to,
        connections: args.connections,
        what: args.what,
        idle: Mutex::default(),
        fates: Mutex::default(),
    });
    let stop = Arc::new(Notify::new());
    let control = TcpListener::bind(("0.0.0.0", args.control)).await?;
    tokio::spawn(obey(control, load.clone(), stop.clone()));

    // Whether a Service that was just made leads anywhere yet is not what is asked here.
    let door = format!("http://{}/livez", load.to);
    while !matches!(
        timeout(CONNECT, crate::ask::once("GET", &door, &[])).await,
        Ok(Ok(_))
    ) {
        sleep(Duration::from_millis(100)).await;
    }

    let mut random = fastrand::Rng::with_seed(args.seed);
    let mut due = Instant::now();
    let mut requests = JoinSet::new();
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            () = stop.notified() => break,
        }
        let length = length(&mut random).min(args.longest);
        requests.spawn(request(load.clone(), length));
        while requests.try_join_next().is_some() {}
        // As independent people come.
        due += Duration::from_secs_f64(-random.f64().max(1e-9).ln() / args.rate);
    }
    while requests.join_next().await.is_some() {}
    let fates = std::mem::take(&mut *lock(&load.fates));
    writeln!(io::stdout(), "{}", summary(&fates))?;
    Ok(())
}

/// How long people want to be served: most of them shortly, a few for very long.
fn length(random: &mut fastrand::Rng) -> Duration {
    Duration::from_millis(match random.u8(0..100) {
        0..90 => random.u64(20..=120),
        90..98 => random.u64(1_000..=3_000),
        _ => random.u64(3_000..=25_000),
    })
}

async fn request(load: Arc<Load>, length: Duration) {
    let began = crate::now();
    let mut pod = None;
    let limit = length + PATIENCE;
    let served = timeout(limit, async {
        match load.what {
            What::Websocket => chat(&load, length, &mut pod).await,
            What::Work | What::Stream => visit(&load, length, &mut pod).await,
        }
    });
    let lost = match served.await {
        Ok(result) => result.err(),
        Err(_) => Some("no answer".to_owned()),
    };
    let fate = Fate {
        began,
        ended: crate::now(),
        pod,
        lost,
    };
    if fate.lost.is_some() {
        let _ = writeln!(io::stdout(), "{}", json!({ "lost": fate }));
    }
    lock(&load.fates).push(fate);
}

/// A request over HTTP, or why it was lost.
async fn visit(load: &Load, length: Duration, pod: &mut Option<String>) -> Result<(), String> {
    let path = match load.what {
        What::Stream => "stream",
        _ => "work",
    };
    let mut request = Request::get(format!("/{path}?ms={}", length.as_millis()))
        .header(header::HOST, load.to.to_string())
        .header(header::USER_AGENT, "shop-load/1");
    if load.connections == Connections::New {
        request = request.header(header::CONNECTION, "close");
    }
    let mut request = request.body(Empty::new()).map_err(|e| e.to_string())?;
    let (answer, sender) = loop {
        let (mut connection, is_new) = match load.kept() {
            Some(kept) => (kept, false),
            None => (load.connect().await?, true),
        };
        *pod = connection.pod;
        match connection.sender.try_send_request(request).await {
            Ok(answer) => break (answer, connection.sender),
            // Not a byte of it was sent, since a kept connection was found closed: no client would call that lost. A new
            // one that is closed at once is.
            Err(mut e) => match e.take_message().filter(|_| !is_new) {
                Some(unsent) => request = unsent,
                None => return Err(cause(e.error())),
            },
        }
    };
    let says = |name| answer.headers().get(name)?.to_str().ok();
    *pod = says("x-pod").map(str::to_owned);
    let goodbye = says("connection") == Some("close");
    let status = answer.status();
    let body = answer.into_body().collect().await;
    let body = body.map_err(|e| format!("in the middle: {}", cause(&e)))?;
    if status != StatusCode::OK {
        return Err(format!("status {status}"));
    }
    if load.what == What::Stream && !body.to_bytes().ends_with(b"event: end\ndata:\n\n") {
        return Err("in the middle: no end".to_owned());
    }
    if load.connections == Connections::KeepAlive && !goodbye {
        let pod = pod.clone();
        lock(&load.idle).push_back(Kept { sender, pod });
    }
    Ok(())
}

/// A WebSocket for one wish, or why it was not granted.
async fn chat(load: &Load, length: Duration, pod: &mut Option<String>) -> Result<(), String> {
    let stream = load.dial().await?;
    let url = format!("ws://{}/websocket", load.to);
    let opened = tokio_tungstenite::client_async(url, stream).await;
    let (mut socket, answer) = opened.map_err(|e| cause(&e))?;
    let name = answer.headers().get("x-pod");
    *pod = name.and_then(|name| Some(name.to_str().ok()?.to_owned()));
    let wish = Message::text(length.as_millis().to_string());
    socket.send(wish).await.map_err(|e| cause(&e))?;
    match socket.next().await {
        Some(Ok(Message::Text(_))) => {}
        Some(Ok(_)) => return Err("goodbye instead of an answer".to_owned()),
        Some(Err(e)) => return Err(cause(&e)),
        None => return Err("closed".to_owned()),
    }
    let _ = socket.close(None).await;
    while let Some(Ok(_)) = socket.next().await {}
    Ok(())
}

impl Load {
    /// The connection that has been idle for longest, of those that are still open.
    fn kept(&self) -> Option<Kept> {
        let mut idle = lock(&self.idle);
        while let Some(kept) = idle.pop_front() {
            if !kept.sender.is_closed() {
                return Some(kept);
            }
        }
        None
    }

    async fn connect(&self) -> Result<Kept, String> {
        let stream = self.dial().await?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|e| cause(&e))?;
        tokio::spawn(connection);
        Ok(Kept { sender, pod: None })
    }

    async fn dial(&self) -> Result<TcpStream, String> {
        let stream = match timeout(CONNECT, TcpStream::connect(self.to)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(e)) => return Err(format!("no connection: {}", cause(&e))),
            Err(_) => return Err("no connection: timed out".to_owned()),
        };
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }
}

/// Stops when told to.
async fn obey(control: TcpListener, load: Arc<Load>, stop: Arc<Notify>) {
    while let Ok((stream, _)) = control.accept().await {
        let service = service_fn(|request: Request<Incoming>| {
            let answered = lock(&load.fates).len();
            if (request.method(), request.uri().path()) == (&Method::POST, "/stop") {
                stop.notify_one();
            }
            async move { Ok::<_, Infallible>(Response::new(answered.to_string())) }
        });
        let connection = hyper::server::conn::http1::Builder::new();
        let _ = connection
            .serve_connection(TokioIo::new(stream), service)
            .await;
    }
}

/// The deepest reason, in a word or two where it is a usual one.
fn cause(error: &(dyn StdError + 'static)) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    if let Some(error) = deepest.downcast_ref::<io::Error>() {
        return match error.kind() {
            io::ErrorKind::ConnectionRefused => "refused",
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "reset",
            io::ErrorKind::HostUnreachable => "no route",
            io::ErrorKind::TimedOut => "timed out",
            _ => return error.to_string(),
        }
        .to_owned();
    }
    match deepest.downcast_ref::<hyper::Error>() {
        Some(error) if error.is_incomplete_message() => "closed".to_owned(),
        _ => deepest.to_string(),
    }
}

/// What became of all of them: how many, how they were lost, and how many each pod had in flight when.
fn summary(fates: &[Fate]) -> serde_json::Value {
    let began = fates.iter().map(|fate| fate.began).min().unwrap_or(0);
    let ended = fates.iter().map(|fate| fate.ended).max().unwrap_or(0);
    let mut losses: BTreeMap<&str, usize> = BTreeMap::new();
    let mut pods: BTreeMap<&str, Vec<&Fate>> = BTreeMap::new();
    for fate in fates {
        if let Some(lost) = &fate.lost {
            *losses.entry(lost).or_default() += 1;
        }
        if let Some(pod) = &fate.pod {
            pods.entry(pod).or_default().push(fate);
        }
    }
    let step = ((ended - began) / MOMENTS).max(100);
    let inflight = |fates: &[&Fate]| {
        let mut changes: Vec<(u64, usize)> = Vec::new();
        for at in (began..=ended).step_by(step as usize) {
            let there = |fate: &&&Fate| (fate.began..fate.ended).contains(&at);
            let n = fates.iter().filter(there).count();
            if changes.last().map_or(0, |&(_, last)| last) != n {
                changes.push((at, n));
            }
        }
        changes
    };
    let answered = |fates: &[&Fate]| fates.iter().filter(|fate| fate.lost.is_none()).count();
    let pods: BTreeMap<_, _> = pods
        .into_iter()
        .map(|(pod, fates)| {
            let view = json!({"answered": answered(&fates), "inflight": inflight(&fates)});
            (pod, view)
        })
        .collect();
    json!({
        "requests": fates.len(),
        "failed": losses.values().sum::<usize>(),
        "losses": losses,
        "began": began,
        "ended": ended,
        "pods": pods,
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
