//! A client's connection: HTTP/1.1, or HTTP/2 for gRPC; and why a request on it had no good answer.

use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, Method, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpSocket, TcpStream, lookup_host};

use super::super::record::Cause;
use super::super::routes::Place;
use super::super::target::{Protocol, Target};
use super::seen::Seen;

/// How the clients name themselves.
const AGENT: &str = concat!("gracekeeper-rehearse/", env!("CARGO_PKG_VERSION"));

/// A gRPC message without a field: not compressed, no bytes long.
const EMPTY_MESSAGE: &[u8] = &[0, 0, 0, 0, 0];

/// gRPC statuses that are the caller's doing, as HTTP's 4xx are: invalid argument, not found, already exists, permission
/// denied, failed precondition, out of range, unimplemented, unauthenticated.
const CALLERS: [u32; 8] = [3, 5, 6, 7, 9, 11, 12, 16];

/// A connection on which requests can be sent.
#[derive(Debug)]
pub enum Connection {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What an app answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Http(StatusCode),
    /// The `grpc-status` of a call; 0 is good.
    Grpc(u32),
}

impl Status {
    /// Whether the app serves what was asked for.
    pub fn is_good(self) -> bool {
        match self {
            Status::Http(status) => status.as_u16() < 400,
            Status::Grpc(status) => status == 0,
        }
    }

    /// Why a request with this answer counts as lost.
    pub fn cause(self) -> Option<Cause> {
        match self {
            Status::Http(status) => status.is_server_error().then_some(Cause::ServerError),
            Status::Grpc(0) => None,
            Status::Grpc(status) => (!CALLERS.contains(&status)).then_some(Cause::GrpcError),
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Http(status) => write!(f, "{status}"),
            Status::Grpc(12) => f.write_str("gRPC status 12 (unimplemented)"),
            Status::Grpc(status) => write!(f, "gRPC status {status}"),
        }
    }
}

impl Connection {
    /// A connection to where a target is served.
    ///
    /// # Errors
    /// The cause, where there is none.
    pub async fn open(target: &Target, place: Place, from: IpAddr) -> Result<Self, Cause> {
        let stream = match place {
            Place::At(address) => open(address, from).await,
            Place::AsWritten => {
                let (host, port) = target.authority();
                let addresses = lookup_host((host, port)).await;
                let addresses: Vec<_> = addresses.map_err(|_| Cause::Unresolved)?.collect();
                TcpStream::connect(addresses.as_slice()).await
            }
        };
        let io = TokioIo::new(stream.map_err(|e| io_cause(&e))?);
        // A connection ends with its sender, or when the app closes it.
        match target.protocol {
            Protocol::Http => {
                let (sender, connection) = http1::handshake(io).await.map_err(|e| cause(&e))?;
                tokio::spawn(connection);
                Ok(Self::Http1(sender))
            }
            Protocol::Grpc => {
                let handshake = http2::handshake(TokioExecutor::new(), io).await;
                let (sender, connection) = handshake.map_err(|e| cause(&e))?;
                tokio::spawn(connection);
                Ok(Self::Http2(sender))
            }
        }
    }

    /// Whether it can serve another request. A client sees that before it sends.
    pub async fn is_usable(&mut self) -> bool {
        match self {
            Self::Http1(sender) => !sender.is_closed() && sender.ready().await.is_ok(),
            Self::Http2(sender) => !sender.is_closed() && sender.ready().await.is_ok(),
        }
    }

    /// Sends one request and reads its whole answer.
    ///
    /// # Errors
    /// The cause, where there is no whole answer.
    pub async fn exchange(
        &mut self,
        target: &Target,
        place: Place,
        body: &str,
        keep: bool,
        seen: Option<&Seen>,
    ) -> Result<Status, Cause> {
        let request = request(target, place, body, keep);
        let answer = match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        };
        let answer = answer.map_err(|e| cause(&e))?;
        let status = answer.status();
        if let Some(seen) = seen {
            seen.note_server(answer.headers());
        }
        let mut grpc = grpc_status(answer.headers());
        let mut body = answer.into_body();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Cause::Cut)?;
            grpc = grpc.or(frame.trailers_ref().and_then(grpc_status));
        }
        match target.protocol {
            Protocol::Grpc if status.is_success() => grpc.map(Status::Grpc).ok_or(Cause::Cut),
            _ => Ok(Status::Http(status)),
        }
    }
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

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

fn request(target: &Target, place: Place, body: &str, keep: bool) -> http::Request<Full<Bytes>> {
    let host = match place {
        Place::At(address) => address.to_string(),
        Place::AsWritten => target.host_header(),
    };
    let builder = http::Request::builder().header(USER_AGENT, AGENT);
    let request = match target.protocol {
        Protocol::Http => {
            let mut builder = builder
                .method(target.method.clone())
                .uri(target.path())
                .header(HOST, host);
            if !keep {
                builder = builder.header(CONNECTION, "close");
            }
            let body = match target.method == Method::POST {
                true => {
                    builder = builder.header(CONTENT_TYPE, "application/json");
                    Bytes::from(body.to_owned())
                }
                false => Bytes::new(),
            };
            builder.body(Full::new(body))
        }
        Protocol::Grpc => {
            let uri = Uri::builder().scheme("http").authority(host);
            builder
                .method(Method::POST)
                .uri(
                    uri.path_and_query(target.path())
                        .build()
                        .unwrap_or_default(),
                )
                .header(CONTENT_TYPE, "application/grpc")
                .header(TE, "trailers")
                .body(Full::new(BytesMut::from(EMPTY_MESSAGE).freeze()))
        }
    };
    request.unwrap_or_default()
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
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Cause::Unreachable,
        io::ErrorKind::UnexpectedEof => Cause::Closed,
        _ => Cause::Reset,
    }
}
