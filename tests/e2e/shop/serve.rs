//! The app: requests that take as long as they say, counted while they do.
//!
//! | request | answers |
//! | --- | --- |
//! | `GET /work?ms=N` | after N milliseconds |
//! | `GET /stream?ms=N` | server-sent events for N milliseconds, the last of which says `end` |
//! | `GET /websocket` | each message, a number of milliseconds, with `done` after that time |
//! | `GET /metrics` | `shop_customers`: how many requests are in flight, this one not among them |
//! | `GET /livez?ms=N` | 200 after N milliseconds, or 500 at once after a `POST /sick` |
//! | `GET /memory` | how many KiB the sidecar has resident, where the pod shares its processes |
//! | `POST /closing` | from now on no connection is kept beyond its next answer, which says so |

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::time::{interval, sleep};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use crate::processes;

/// The time between two events of a stream.
const BEAT: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long, default_value_t = 8000)]
    port: u16,

    /// Dies at once on SIGTERM, instead of ending what it has begun
    #[arg(long)]
    rude: bool,

    /// Ends by itself after this time
    #[arg(long = "for", value_parser = humantime::parse_duration)]
    time: Option<Duration>,

    /// Pings its WebSockets so often, as Socket.IO and many servers do
    #[arg(long, value_parser = humantime::parse_duration)]
    ping: Option<Duration>,

    /// Where the time of the SIGTERM goes, and how many requests it has taken in its life
    #[arg(long, default_value = "/dev/termination-log")]
    termination_log: String,
}

/// Which connections it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Door {
    /// All.
    Open,
    /// All, for one more request each.
    Closing,
    /// Those who are being served.
    Closed,
}

/// What all connections share.
struct Shop {
    /// The pod's name: who answered.
    name: String,
    customers: AtomicUsize,
    /// How many there ever were.
    taken: Arc<AtomicUsize>,
    sick: AtomicBool,
    /// The time between two pings of a WebSocket.
    ping: Option<Duration>,
    door: watch::Sender<Door>,
    /// A task that holds one of these still has something to do.
    busy: mpsc::Sender<Infallible>,
}

/// A request in flight.
struct Customer(Arc<Shop>);

impl Customer {
    fn enters(shop: &Arc<Shop>) -> Self {
        shop.customers.fetch_add(1, Ordering::SeqCst);
        shop.taken.fetch_add(1, Ordering::SeqCst);
        Self(shop.clone())
    }
}

impl Drop for Customer {
    fn drop(&mut self) {
        self.0.customers.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Serves until SIGTERM, and, if it is polite, until what it had then has ended.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    let listener = TcpListener::bind(("::", args.port)).await;
    let listener = match listener {
        Ok(listener) => listener,
        // A host without IPv6.
        Err(_) => TcpListener::bind(("0.0.0.0", args.port)).await?,
    };
    let (busy, mut idle) = mpsc::channel(1);
    let shop = Arc::new(Shop {
        name: std::env::var("HOSTNAME").unwrap_or_default(),
        customers: AtomicUsize::new(0),
        taken: Arc::default(),
        sick: AtomicBool::new(false),
        ping: args.ping,
        door: watch::Sender::new(Door::Open),
        busy,
    });
    let over = async {
        match args.time {
            Some(time) => sleep(time).await,
            None => std::future::pending().await,
        }
    };
    let mut over = std::pin::pin!(over);
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(shop.clone(), stream));
                }
            }
            _ = terminated.recv() => break,
            () = over.as_mut() => return Ok(()),
        }
    }
    let at = crate::now();
    // Read from the pod's status, which outlives the pod's log.
    let taken = shop.taken.clone();
    let say = || {
        let taken = taken.load(Ordering::SeqCst);
        let said = format!("SIGTERM at {at}, {taken} requests taken\n");
        let _ = std::fs::write(&args.termination_log, said);
    };
    say();
    if args.rude {
        return Ok(());
    }
    drop(listener);
    shop.door.send_replace(Door::Closed);
    drop(shop);
    let _ = idle.recv().await;
    say();
    Ok(())
}

async fn connection(shop: Arc<Shop>, stream: TcpStream) {
    let _busy = shop.busy.clone();
    let _ = stream.set_nodelay(true);
    let mut door = shop.door.subscribe();
    let service = service_fn(move |request| answer(shop.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = door.wait_for(|&door| door == Door::Closed) => {}
    }
    // Says Connection: close with the answer to what is under way; where nothing is, closes now.
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

type Body = BoxBody<Bytes, Infallible>;

async fn answer(
    shop: Arc<Shop>,
    request: Request<Incoming>,
) -> Result<Response<Body>, http::Error> {
    let mut answer = serve(&shop, request).await?;
    let upgrades = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !upgrades && *shop.door.borrow() >= Door::Closing {
        let close = HeaderValue::from_static("close");
        answer.headers_mut().insert(header::CONNECTION, close);
    }
    Ok(answer)
}

async fn serve(
    shop: &Arc<Shop>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, http::Error> {
    let answer = Response::builder().header("x-pod", &shop.name);
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/work") => {
            let _customer = Customer::enters(shop);
            sleep(wanted(&request)).await;
            answer.body(text("done\n"))
        }
        (&Method::GET, "/stream") => answer
            .header(header::CONTENT_TYPE, "text/event-stream")
            .body(events(Customer::enters(shop), wanted(&request))),
        (&Method::GET, "/websocket") => {
            let key = request.headers().get(header::SEC_WEBSOCKET_KEY).cloned();
            let Some(key) = key else {
                return answer
                    .status(StatusCode::BAD_REQUEST)
                    .body(text("no WebSocket\n"));
            };
            tokio::spawn(talk(shop.clone(), hyper::upgrade::on(&mut request)));
            answer
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header(header::CONNECTION, "Upgrade")
                .header(header::UPGRADE, "websocket")
                .header(
                    header::SEC_WEBSOCKET_ACCEPT,
                    derive_accept_key(key.as_bytes()),
                )
                .body(text(""))
        }
        (&Method::GET, "/metrics") => answer.body(text(&format!(
            "# TYPE shop_customers gauge\nshop_customers {}\n",
            shop.customers.load(Ordering::SeqCst)
        ))),
        (&Method::GET, "/livez") if shop.sick.load(Ordering::SeqCst) => answer
            .status(StatusCode::INTERNAL_SERVER_ERROR)
            .body(text("sick\n")),
        (&Method::GET, "/livez") => {
            sleep(wanted(&request)).await;
            answer.body(text("well\n"))
        }
        (&Method::GET, "/memory") => match processes::memory("gracekeeper run") {
            Some(kib) => answer.body(text(&format!("{kib}\n"))),
            None => answer
                .status(StatusCode::NOT_FOUND)
                .body(text("no such process\n")),
        },
        (&Method::POST, "/sick") => {
            shop.sick.store(true, Ordering::SeqCst);
            answer.body(text(""))
        }
        (&Method::POST, "/closing") => {
            shop.door.send_replace(Door::Closing);
            answer.body(text(""))
        }
        _ => answer.status(StatusCode::NOT_FOUND).body(text("")),
    }
}

fn text(text: &str) -> Body {
    Full::new(Bytes::from(text.to_owned())).boxed()
}

/// One event a beat, and at last one that says that there are no more.
fn events(customer: Customer, length: Duration) -> Body {
    let beats = (length.as_millis() / BEAT.as_millis()) as u32;
    let events = stream::unfold((0, customer), move |(n, customer)| async move {
        if n > beats {
            return None;
        }
        sleep(BEAT).await;
        let event = if n == beats {
            "event: end\ndata:\n\n"
        } else {
            "data: beat\n\n"
        };
        Some((
            Ok(Frame::data(Bytes::from_static(event.as_bytes()))),
            (n + 1, customer),
        ))
    });
    http_body_util::BodyExt::boxed(StreamBody::new(events))
}

/// Answers each message after the time that it asks for, and says goodbye after one when the shop closes.
async fn talk(shop: Arc<Shop>, upgrade: OnUpgrade) {
    let _busy = shop.busy.clone();
    let mut door = shop.door.subscribe();
    let Ok(upgraded) = upgrade.await else { return };
    let io = TokioIo::new(upgraded);
    let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
    let mut leaving = None;
    // Without pings the beat is never waited for.
    let mut beat = interval(shop.ping.unwrap_or(Duration::from_secs(1)));
    beat.tick().await;
    loop {
        let message = tokio::select! {
            message = socket.next() => Some(message),
            _ = beat.tick(), if shop.ping.is_some() => None,
            _ = door.wait_for(|&door| door == Door::Closed) => break,
        };
        let Some(message) = message else {
            if socket.send(Message::Ping(Bytes::new())).await.is_err() {
                return;
            }
            continue;
        };
        let Some(Ok(message)) = message else { return };
        let Message::Text(wish) = message else {
            continue;
        };
        let customer = Customer::enters(&shop);
        sleep(Duration::from_millis(wish.parse().unwrap_or_default())).await;
        if socket.send(Message::text("done")).await.is_err() {
            return;
        }
        if *shop.door.borrow() >= Door::Closing {
            // A client that has its answer and has not left yet is still there.
            leaving = Some(customer);
            break;
        }
    }
    let _ = socket.close(None).await;
    // What comes until the other side has said goodbye as well was on its way.
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    drop(leaving);
}

/// How long the answer is to take.
fn wanted(request: &Request<Incoming>) -> Duration {
    let query = request.uri().query().unwrap_or_default();
    let ms = query.strip_prefix("ms=").and_then(|ms| ms.parse().ok());
    Duration::from_millis(ms.unwrap_or_default())
}
