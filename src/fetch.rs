//! One HTTP request over a connection of its own.
//!
//! A fresh connection that says `Connection: close` is gone from the app's own counts as soon as it has answered, and
//! can be told from its clients' connections by its local port.

mod own_sockets;
mod protocol;
mod tls;
mod url;

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::threads::connect;
use own_sockets::OwnSockets;
pub use protocol::Protocol;
use tls::Tls;
use url::{Endpoint, Host};
pub use url::{Transport, Url};

/// How the requests name themselves, so that an app's access log shows where they come from.
const AGENT: &str = concat!("gracekeeper/", env!("CARGO_PKG_VERSION"));

/// The most that is read of an answer at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Why a request had no answer.
#[derive(Debug)]
pub enum Error {
    /// Nothing listens there.
    Refused,
    /// There is no such socket or file.
    NotThere,
    /// No connection, for another reason than that.
    Unreachable(io::Error),
    /// A server listens, but the TLS handshake failed or its certificate is not valid.
    Tls(String),
    /// The connection failed, or what came over it is not HTTP.
    Broken(hyper::Error),
    /// No whole answer within this time.
    Timeout(Duration),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused => write!(f, "connection refused: nothing listens there"),
            Error::NotThere => write!(f, "there is no such socket or file"),
            Error::Unreachable(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "it may not be opened: {e}")
            }
            Error::Unreachable(e) => write!(f, "no connection: {e}"),
            Error::Tls(wrong) => write!(f, "no TLS connection: {wrong}"),
            Error::Broken(e) => {
                write!(f, "no whole answer: {e}")?;
                match std::error::Error::source(e) {
                    Some(cause) => write!(f, ": {cause}"),
                    None => Ok(()),
                }
            }
            Error::Timeout(after) => write!(
                f,
                "no whole answer within {}",
                humantime::format_duration(*after)
            ),
        }
    }
}

/// Of an attempt to connect.
impl From<io::Error> for Error {
    fn from(e: io::Error) -> Self {
        match e.kind() {
            io::ErrorKind::ConnectionRefused => Error::Refused,
            io::ErrorKind::NotFound => Error::NotThere,
            _ => Error::Unreachable(e),
        }
    }
}

impl Error {
    /// Whether nothing is there that could answer: it has not started yet, or it is gone.
    pub fn is_absent(&self) -> bool {
        matches!(self, Error::Refused | Error::NotThere)
    }
}

impl From<hyper::Error> for Error {
    fn from(e: hyper::Error) -> Self {
        Error::Broken(e)
    }
}

/// An answer whose body is still on its way; its connection ends with it.
#[derive(Debug)]
pub struct Exchange {
    pub answer: Response<Incoming>,
    _connection: JoinSet<()>,
}

/// Sends requests. All that do share what they know of our connections, and the certificates to trust.
#[derive(Clone, Default)]
pub struct Client(Arc<Parts>);

#[derive(Default)]
struct Parts {
    own_sockets: OwnSockets,
    tls: Tls,
}

/// A connection of any kind. One type for all of them, so that the HTTP code is in the binary once.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client(…)")
    }
}

impl Client {
    /// Our own connections.
    pub fn own_sockets(&self) -> &OwnSockets {
        &self.0.own_sockets
    }

    /// Sends one request, without a body and with the media types to accept.
    ///
    /// # Errors
    /// When no answer's head comes back. There is no time limit: the caller sets one over the whole exchange.
    pub async fn send(
        &self,
        method: Method,
        url: &Url,
        accept: &'static str,
    ) -> Result<Exchange, Error> {
        let accept = (ACCEPT, HeaderValue::from_static(accept));
        self.send_with(method, url, HeaderMap::from_iter([accept]))
            .await
    }

    /// Sends one request, without a body and with these headers too, of which `User-Agent` alone replaces one of ours.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn send_with(
        &self,
        method: Method,
        url: &Url,
        headers: HeaderMap,
    ) -> Result<Exchange, Error> {
        let stream = self.connect(url).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(BUFFER)
            .handshake(TokioIo::new(stream))
            .await?;
        let mut driver = JoinSet::new();
        driver.spawn(async move {
            // A failure also shows where the answer is read.
            let _ = connection.await;
        });
        let mut request = Request::new(Empty::<Bytes>::new());
        let has_length = method == Method::POST;
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from(url.path.clone());
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        headers.insert(HOST, url.authority.clone());
        let agent = headers.entry(USER_AGENT);
        agent.or_insert(HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        if has_length {
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        if let Some(credentials) = &url.credentials {
            headers.insert(AUTHORIZATION, credentials.clone());
        }
        let answer = sender.send_request(request).await?;
        Ok(Exchange {
            answer,
            _connection: driver,
        })
    }

    /// Sends one request and gives the answer's status, body unread.
    ///
    /// # Errors
    /// When no answer's head comes back within `limit`.
    pub async fn status(
        &self,
        method: Method,
        url: &Url,
        limit: Duration,
    ) -> Result<StatusCode, Error> {
        match timeout(limit, self.send(method, url, "*/*")).await {
            Ok(exchange) => Ok(exchange?.answer.status()),
            Err(_) => Err(Error::Timeout(limit)),
        }
    }

    async fn connect(&self, url: &Url) -> Result<Box<dyn Stream>, Error> {
        match &url.endpoint {
            Endpoint::Tcp(host) => Ok(Box::new(self.tcp(host).await?)),
            Endpoint::Tls(host, name) => {
                let connector = self.0.tls.connector(host.is_loopback());
                let connector = connector.map_err(Error::Tls)?;
                let stream = self.tcp(host).await?;
                match connector.connect(name.clone(), stream).await {
                    Ok(stream) => Ok(Box::new(stream)),
                    Err(e) => Err(Error::Tls(tls::explain(&e))),
                }
            }
            Endpoint::Unix(socket) => match UnixStream::connect(socket).await {
                Ok(stream) => Ok(Box::new(stream)),
                Err(e) => Err(e.into()),
            },
        }
    }

    async fn tcp(&self, host: &Host) -> Result<TcpStream, Error> {
        let stream = if host.is_localhost() {
            // Not left to the resolver, which a static binary in an empty image cannot count on.
            match TcpStream::connect((Ipv4Addr::LOCALHOST, host.port)).await {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    let other = TcpStream::connect((Ipv6Addr::LOCALHOST, host.port)).await;
                    other.map_err(|_| e)?
                }
                other => other?,
            }
        } else {
            connect(&host.name, host.port).await?
        };
        self.0
            .own_sockets
            .note(stream.local_addr().map_err(Error::Unreachable)?);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt as _;
    use std::os::unix::net::UnixListener as StdUnixListener;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UnixListener};

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

    /// Takes in one request's head, and answers it.
    async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        stream.write_all(ANSWER).await.unwrap();
        String::from_utf8(head).unwrap()
    }

    async fn get(client: &Client, url: &str) -> Result<Bytes, Error> {
        let url = Url::parse(url).unwrap();
        let exchange = client.send(Method::GET, &url, "*/*").await?;
        Ok(exchange.answer.into_body().collect().await?.to_bytes())
    }

    #[tokio::test]
    async fn a_connection_is_known_as_ours_before_it_says_anything() {
        for (listen, host) in [
            ("127.0.0.1:0", "127.0.0.1"),
            ("127.0.0.1:0", "localhost"),
            ("[::]:0", "127.0.0.1"),
        ] {
            let Ok(listener) = TcpListener::bind(listen).await else {
                continue; // Without IPv6.
            };
            let port = listener.local_addr().unwrap().port();
            let client = Client::default();
            let server = {
                let client = client.clone();
                async move {
                    let (mut stream, peer) = listener.accept().await.unwrap();
                    let first = stream.read_u8().await.unwrap();
                    assert_eq!(first, b'G');
                    assert!(client.own_sockets().contains(peer), "{peer}");
                    answer(stream).await
                }
            };
            let url = format!("http://{host}:{port}/x");
            let (head, body) = tokio::join!(server, get(&client, &url));
            assert_eq!(body.unwrap(), "ok");
            assert!(head.contains("connection: close\r\n"), "{head}");
        }
    }

    #[tokio::test]
    async fn a_unix_socket_is_asked_for_a_page_like_any_host() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("app.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = async { answer(listener.accept().await.unwrap().0).await };
        let (client, url) = (
            Client::default(),
            format!("unix://{}:/x?y", socket.display()),
        );
        let (head, body) = tokio::join!(server, get(&client, &url));
        assert_eq!(body.unwrap(), "ok");
        assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("host: localhost\r\n"), "{head}");
    }

    #[tokio::test]
    async fn where_nothing_listens_it_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let stale = folder.path().join("stale.sock");
        drop(StdUnixListener::bind(&stale).unwrap());
        let never = folder.path().join("never.sock");
        let port = {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            listener.local_addr().unwrap().port()
        };
        for url in [
            format!("unix://{}", stale.display()),
            format!("unix://{}", never.display()),
            format!("http://127.0.0.1:{port}/"),
            format!("https://localhost:{port}/"),
        ] {
            let e = get(&Client::default(), &url).await.unwrap_err();
            assert!(e.is_absent(), "{url}: {e}");
        }
        let folder = format!("unix://{}", folder.path().display());
        let e = get(&Client::default(), &folder).await.unwrap_err();
        assert!(
            e.is_absent() || matches!(e, Error::Unreachable(_)),
            "a folder is no socket: {e}"
        );
    }

    #[tokio::test]
    async fn what_speaks_no_tls_is_told_from_what_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(ANSWER).await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let client = Client::default();
        let (_, e) = tokio::join!(server, get(&client, &url));
        let e = e.unwrap_err();
        assert!(matches!(e, Error::Tls(_)), "{e}");
        assert!(e.to_string().contains("plain HTTP"), "{e}");
    }
}
