//! One HTTP request over a connection of its own.
//!
//! A fresh connection that says `Connection: close` is gone from the app's own counts as soon as it has answered, and
//! can be told from its clients' connections by its local port.

use std::fmt;
use std::io;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, HOST, USER_AGENT,
};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How the requests name themselves, so that an app's access log tells who asks.
const AGENT: &str = concat!("gracekeeper/", env!("CARGO_PKG_VERSION"));

/// The most that is read of an answer at once, in bytes.
const BUFFER: usize = 64 * 1024;

/// Where a request goes.
#[derive(Debug, Clone)]
pub struct Url {
    host: String,
    port: u16,
    path: PathAndQuery,
    authority: HeaderValue,
    credentials: Option<HeaderValue>,
}

impl Url {
    /// Parses `http://[USER:PASSWORD@]HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.split_once("://") {
            Some(("http", rest)) => Self::parse_rest(rest),
            Some((other, _)) => Err(format!(
                "\"{other}\" is not a supported scheme; write http://HOST:PORT/PATH"
            )),
            None => Err("it has no scheme; write http://HOST:PORT/PATH".to_owned()),
        }
    }

    /// Parses what follows the scheme's `://`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse_rest(rest: &str) -> Result<Self, String> {
        let uri: Uri = format!("http://{rest}")
            .parse()
            .map_err(|e| format!("{e}; write HOST:PORT/PATH"))?;
        let authority = uri
            .authority()
            .ok_or("it names no host; write HOST:PORT/PATH")?;
        let (credentials, shown) = match authority.as_str().rsplit_once('@') {
            Some((user, shown)) => {
                let user: Vec<u8> = percent_decode_str(user).collect();
                (
                    Some(format!("Basic {}", BASE64_STANDARD.encode(user))),
                    shown,
                )
            }
            None => (None, authority.as_str()),
        };
        let value = |text: &str| HeaderValue::from_str(text).map_err(|e| e.to_string());
        let mut credentials = credentials.as_deref().map(value).transpose()?;
        if let Some(secret) = &mut credentials {
            secret.set_sensitive(true);
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = match shown
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'))
        {
            None => 80,
            Some((_, port)) => (port.parse().ok().filter(|&port| port != 0))
                .ok_or_else(|| format!("{port:?} is not a port; write a number from 1 to 65535"))?,
        };
        if host.is_empty() {
            return Err("it names no host; write HOST:PORT/PATH".to_owned());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            path: uri
                .path_and_query()
                .cloned()
                .unwrap_or_else(|| PathAndQuery::from_static("/")),
            authority: value(shown)?,
            credentials,
        })
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        match self.host.as_str() {
            // Not left to the resolver, which a static binary in an empty image cannot count on.
            "localhost" => match TcpStream::connect(("127.0.0.1", self.port)).await {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    TcpStream::connect(("::1", self.port)).await.map_err(|_| e)
                }
                other => other,
            },
            host => TcpStream::connect((host, self.port)).await,
        }
    }
}

/// Without credentials.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.authority.to_str().unwrap_or(&self.host),
            self.path
        )
    }
}

/// Why a request had no answer.
#[derive(Debug)]
pub enum Error {
    /// Nothing listens there.
    Refused,
    /// No connection, for another reason than that.
    Unreachable(io::Error),
    /// The connection failed, or what came over it is no HTTP.
    Broken(hyper::Error),
    /// No whole answer within this time.
    Timeout(Duration),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Refused => write!(f, "connection refused: nothing listens there"),
            Error::Unreachable(e) => write!(f, "no connection: {e}"),
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

/// Sends one request, without a body and with the media types to accept.
///
/// # Errors
/// When no answer's head comes back. There is no time limit: the caller sets one over the whole exchange.
pub async fn send(method: Method, url: &Url, accept: &'static str) -> Result<Exchange, Error> {
    let stream = url.connect().await.map_err(|e| match e.kind() {
        io::ErrorKind::ConnectionRefused => Error::Refused,
        _ => Error::Unreachable(e),
    })?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(BUFFER)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        // What fails here is seen by whoever reads the answer.
        let _ = connection.await;
    });
    let mut request = Request::new(Empty::<Bytes>::new());
    let has_length = method == Method::POST;
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from(url.path.clone());
    let headers = request.headers_mut();
    headers.insert(HOST, url.authority.clone());
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
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
pub async fn status(method: Method, url: &Url, limit: Duration) -> Result<http::StatusCode, Error> {
    match tokio::time::timeout(limit, send(method, url, "*/*")).await {
        Ok(exchange) => Ok(exchange?.answer.status()),
        Err(_) => Err(Error::Timeout(limit)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_written() {
        for (text, host, port, shown) in [
            (
                "http://127.0.0.1:8000/metrics?x=1",
                "127.0.0.1",
                8000,
                "127.0.0.1:8000/metrics?x=1",
            ),
            ("http://[::1]:81", "::1", 81, "[::1]:81/"),
            ("http://localhost/x", "localhost", 80, "localhost/x"),
            ("http://me:secret@app:9/x", "app", 9, "app:9/x"),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!(
                (url.host.as_str(), url.port, url.to_string().as_str()),
                (host, port, shown)
            );
        }
        let url = Url::parse("http://Aladdin:open sesame@app/").is_err();
        assert!(url, "a blank has no place in a URL");
        let url = Url::parse("http://me:se%63ret@app/").unwrap();
        assert_eq!(url.credentials.unwrap(), "Basic bWU6c2VjcmV0");
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_remedy() {
        for text in [
            "127.0.0.1:8000",
            "https:",
            "ftp://x/",
            "http://",
            "http://:80/",
            "http://x:99999/",
            "http://x:0/",
            "http://x:/",
        ] {
            let refusal = Url::parse(text).unwrap_err();
            assert!(!refusal.is_empty(), "{text}");
        }
    }
}
