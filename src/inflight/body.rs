//! The body of a page, piece by piece: an answer's over HTTP, or a file's.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;

use super::Error;
use super::opening::{first_words, quote};
use crate::fetch::{self, Client, Exchange, Url};
use crate::threads::apart_if_possible;

/// How much of a file is read at once, in bytes.
const FILE_PIECE: usize = 64 * 1024;

/// How much is read of an answer that is no success, in bytes.
const LONGEST_REFUSAL: usize = 4 * 1024;

/// Where a page is.
#[derive(Debug)]
pub enum Place {
    Url(Url),
    File(PathBuf),
}

/// As it is written after the kind's plus.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Url(url) => f.write_str(&url.whole()),
            Place::File(path) => write!(f, "file://{}", path.display()),
        }
    }
}

/// A page's body, the rest of which is still to come.
#[derive(Debug)]
pub enum Body {
    Answer(Exchange),
    File(Arc<File>),
}

/// An answer that is no success.
#[derive(Debug)]
pub struct Refusal {
    status: StatusCode,
    /// The first line of its body.
    words: String,
    /// Where a redirect leads, as a whole URL.
    redirect: Option<String>,
    /// The host that was asked.
    host: String,
    /// What to write.
    remedy: String,
}

impl Body {
    /// Asks for a page, which must come as it is, or opens a file.
    ///
    /// # Errors
    /// When there is no such page or file.
    pub async fn open(place: &Place, client: &Client, accept: &'static str) -> Result<Self, Error> {
        let url = match place {
            Place::Url(url) => url,
            Place::File(path) => return Ok(Body::File(open(path).await?)),
        };
        let exchange = client.send(Method::GET, url, accept).await?;
        if !exchange.answer.status().is_success() {
            return Err(Error::Status(Box::new(Refusal::read(url, exchange).await)));
        }
        match exchange.answer.headers().get(CONTENT_ENCODING) {
            Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(
                Error::Encoded(String::from_utf8_lossy(encoding.as_bytes()).into_owned()),
            ),
            _ => Ok(Body::Answer(exchange)),
        }
    }

    /// The next piece; none at the end.
    ///
    /// # Errors
    /// When the connection or the file fails.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        match self {
            Body::Answer(exchange) => {
                while let Some(frame) = exchange.answer.body_mut().frame().await {
                    if let Ok(piece) = frame.map_err(fetch::Error::from)?.into_data() {
                        return Ok(Some(piece));
                    }
                }
                Ok(None)
            }
            Body::File(file) => {
                let file = file.clone();
                let read = apart_if_possible(move || {
                    let mut piece = vec![0; FILE_PIECE];
                    let length = (&*file).read(&mut piece)?;
                    piece.truncate(length);
                    Ok::<_, io::Error>(piece)
                });
                let piece = (read.await)
                    .map_err(|e| Error::Malformed(format!("it cannot be read: {e}")))?;
                Ok((!piece.is_empty()).then(|| piece.into()))
            }
        }
    }

    /// What the server says that it is.
    pub fn content_type(&self) -> Option<&[u8]> {
        match self {
            Body::Answer(exchange) => {
                let value = exchange.answer.headers().get(CONTENT_TYPE);
                value.map(http::HeaderValue::as_bytes)
            }
            Body::File(_) => None,
        }
    }

    /// Whether the server says that it is OpenMetrics.
    pub fn is_open_metrics(&self) -> bool {
        self.content_type()
            .is_some_and(|kind| kind.starts_with(b"application/openmetrics-text"))
    }

    /// Whether its length is known, so that no end of it can be missing.
    pub fn has_length(&self) -> bool {
        match self {
            Body::Answer(exchange) => {
                let headers = exchange.answer.headers();
                [CONTENT_LENGTH, TRANSFER_ENCODING]
                    .iter()
                    .any(|header| headers.contains_key(header))
            }
            // An app that is about to write more of it has not written its last line's end.
            Body::File(_) => false,
        }
    }
}

/// Opens a regular file. A pipe or a device would hold up the read.
async fn open(path: &Path) -> Result<Arc<File>, Error> {
    let path = path.to_owned();
    let opened = apart_if_possible(move || {
        let is_file = std::fs::metadata(&path)?.is_file();
        is_file.then(|| File::open(&path)).transpose()
    });
    match opened.await {
        Ok(Some(file)) => Ok(Arc::new(file)),
        Ok(None) => Err(Error::Malformed(
            "it is no regular file; write the path of a file that the app writes".to_owned(),
        )),
        Err(e) => Err(Error::Http(file_error(e))),
    }
}

/// A file that is not there yet, or not any more, is like a port on which nothing listens.
fn file_error(e: io::Error) -> fetch::Error {
    match e.kind() {
        io::ErrorKind::NotFound => fetch::Error::NotThere,
        _ => fetch::Error::Unreachable(e),
    }
}

impl Refusal {
    async fn read(url: &Url, exchange: Exchange) -> Self {
        let status = exchange.answer.status();
        let location = exchange.answer.headers().get(LOCATION);
        let redirect = (location.filter(|_| status.is_redirection()))
            .map(|location| url.resolve(&String::from_utf8_lossy(location.as_bytes())));
        let mut body = Body::Answer(exchange);
        let mut kept = Vec::new();
        while kept.len() < LONGEST_REFUSAL
            && let Ok(Some(piece)) = body.next().await
        {
            kept.extend_from_slice(&piece[..piece.len().min(LONGEST_REFUSAL - kept.len())]);
        }
        Self {
            status,
            words: first_words(&kept),
            redirect,
            host: url.host_header(),
            remedy: String::new(),
        }
    }

    /// The answer's status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Says what to write instead; `flag` gives the source with its page at another URL.
    pub fn add_remedy(&mut self, flag: impl Fn(&str) -> String) {
        const LOGIN: &str = "USER:PASSWORD@ before the host, or serve the page without a login on a port of its own";
        self.remedy = match (self.status, &self.redirect) {
            (_, Some(to)) => {
                let login = ["login", "signin", "sign-in", "auth", "sso"];
                let asks_for_login = login.iter().any(|word| to.to_lowercase().contains(word));
                let or = match asks_for_login {
                    true => format!("; if that is a login, write {LOGIN}"),
                    false => String::new(),
                };
                format!("; write {}{or}", flag(to))
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => format!("; write {LOGIN}"),
            (StatusCode::BAD_REQUEST | StatusCode::MISDIRECTED_REQUEST, _) => format!(
                "; if the app checks the Host header, let it accept {} (Django: ALLOWED_HOSTS, Rails: config.hosts)",
                self.host
            ),
            (StatusCode::NOT_FOUND, _) => "; write the path of the app's own page".to_owned(),
            (status, _) if status.is_server_error() => "; the app's log says why".to_owned(),
            _ => String::new(),
        };
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it answered {}", self.status)?;
        if let Some(to) = &self.redirect {
            write!(f, ", a redirect to {to}")?;
        } else if !self.words.is_empty() {
            write!(f, ":{}", quote(&self.words))?;
        }
        f.write_str(&self.remedy)
    }
}
