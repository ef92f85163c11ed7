//! A page that the app serves: where it is, what is on it, and what of it is the count.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::Mutex;

use super::exposition::{Names, Scanner};
use super::json::Pointer;
use super::nearest::Nearest;
use super::promql::Query;
use super::{Error, nginx, text};
use crate::fetch::{self, Client, Exchange, Transport, Url};

/// The text format first: every exporter has it, and it has fewer ways to be wrong.
const ACCEPT_METRICS: &str =
    "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1";

const ACCEPT_JSON: &str = "application/json,*/*;q=0.1";

const ACCEPT_TEXT: &str = "text/plain,*/*;q=0.1";

/// A page that the app serves.
#[derive(Debug)]
pub struct Page {
    pub(super) url: Url,
    format: Format,
    /// How often we have asked for it, or for the same page through another source: nginx counts these requests too.
    reads: Arc<Mutex<u64>>,
}

/// What is on a page, and what of it is the count.
#[derive(Debug)]
enum Format {
    Prometheus(Query),
    Json(Pointer),
    Text,
    Nginx,
    /// The requests that nginx has counted, less our own.
    NginxRequests,
}

impl Page {
    /// Parses the parts of a source's text: what is before its `://`, what follows that, and what follows a `#`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(scheme: &str, rest: &str, selector: Option<&str>) -> Result<Self, String> {
        let (kind, transport) = match scheme.split_once('+') {
            Some((kind, transport)) => (kind, Some(transport)),
            None => (scheme, None),
        };
        let format = Format::parse(kind, selector)?;
        let transports = || format!("write {kind}+http://, {kind}+https:// or {kind}+unix://");
        let transport =
            transport.ok_or_else(|| format!("it has no transport; {}", transports()))?;
        let transport = Transport::named(transport)
            .ok_or_else(|| format!("\"{transport}\" is not a transport; {}", transports()))?;
        let url = Url::parse_rest(transport, rest)?;
        Ok(Self {
            url,
            format,
            reads: Arc::default(),
        })
    }

    /// It is read for how many requests there have been.
    pub fn counts_requests(&mut self) {
        if self.is_nginx() {
            self.format = Format::NginxRequests;
        }
    }

    /// Whether it is nginx's.
    pub fn is_nginx(&self) -> bool {
        matches!(self.format, Format::Nginx | Format::NginxRequests)
    }

    /// Counts its own reads together with another page's of the same server.
    pub fn share_reads(&mut self, other: &Page) {
        if self.url.to_string() == other.url.to_string() {
            self.reads = other.reads.clone();
        }
    }

    /// Reads the count once, whatever number it is.
    ///
    /// # Errors
    /// When there is none.
    pub async fn read(&self, client: &Client) -> Result<f64, Error> {
        match &self.format {
            Format::Prometheus(query) => {
                let exchange = ask(client, &self.url, ACCEPT_METRICS).await?;
                let headers = exchange.answer.headers();
                let open_metrics = is_open_metrics(&exchange);
                // Else the page ends where the connection does, which may be too early.
                let length_told = [CONTENT_LENGTH, TRANSFER_ENCODING]
                    .iter()
                    .any(|header| headers.contains_key(header));
                let mut evaluation = query.begin();
                let mut scanner = Scanner::new(query.names(), open_metrics);
                pieces(exchange, |piece| {
                    scanner.feed(&piece, &mut |sample| evaluation.take(&sample))
                })
                .await?;
                scanner.finish(length_told, &mut |sample| evaluation.take(&sample))?;
                evaluation.finish()?.ok_or(Error::Missing(
                    "the page has no series that the selector matches",
                ))
            }
            Format::Json(pointer) => {
                let mut reader = pointer.begin();
                let exchange = ask(client, &self.url, ACCEPT_JSON).await?;
                pieces(exchange, |piece| reader.feed(&piece)).await?;
                reader.finish()
            }
            Format::Text => {
                let exchange = ask(client, &self.url, ACCEPT_TEXT).await?;
                text::parse(&whole(exchange, text::LONGEST).await?)
            }
            Format::Nginx | Format::NginxRequests => {
                // One at a time: a request that we have sent and nginx has not counted would be missing.
                let mut reads = self.reads.lock().await;
                *reads += 1;
                let exchange = ask(client, &self.url, ACCEPT_TEXT).await?;
                let page = nginx::parse(&whole(exchange, nginx::LONGEST).await?)?;
                Ok(match self.format {
                    Format::NginxRequests => (page.requests - *reads as f64).max(0.0),
                    _ => page.inflight,
                })
            }
        }
    }
}

impl Page {
    /// What a page that lacks what the selector names has that looks like it, if anything does.
    ///
    /// # Errors
    /// When the page cannot be read.
    pub async fn nearest(&self, client: &Client) -> Result<Option<String>, Error> {
        let Format::Prometheus(query) = &self.format else {
            return Ok(None);
        };
        let exchange = ask(client, &self.url, ACCEPT_METRICS).await?;
        let mut nearest = Nearest::new(query.wanted());
        let mut scanner = Scanner::new(&Names::Any, is_open_metrics(&exchange));
        pieces(exchange, |piece| {
            scanner.feed(&piece, &mut |sample| nearest.take(&sample))
        })
        .await?;
        Ok(nearest.message())
    }
}

/// Whether a page says that it is OpenMetrics.
fn is_open_metrics(exchange: &Exchange) -> bool {
    let kind = exchange.answer.headers().get(CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/openmetrics-text"))
}

impl Format {
    fn parse(kind: &str, selector: Option<&str>) -> Result<Self, String> {
        const KINDS: &str = "write prometheus, json, text or nginx";
        let wrong = |wrong: String| format!("in the selector: {wrong}");
        match (kind, selector) {
            ("prometheus", Some(query)) => {
                Query::parse(query).map(Format::Prometheus).map_err(wrong)
            }
            ("prometheus", None) => Err(
                "it has no selector; write the metric after a #, such as #http_requests_inprogress"
                    .to_owned(),
            ),
            ("json", Some(pointer)) => Pointer::parse(pointer).map(Format::Json).map_err(wrong),
            ("json", None) => Err(
                "it has no selector; write a JSON pointer after a #, such as #/busy, or # alone to count the members \
                 of the whole document"
                    .to_owned(),
            ),
            ("text" | "nginx", Some(_)) => Err(format!(
                "{kind} takes no selector; leave out the # and what follows"
            )),
            ("text", None) => Ok(Format::Text),
            ("nginx", None) => Ok(Format::Nginx),
            _ if Transport::named(kind).is_some() => Err(format!(
                "\"{kind}\" says how to reach a page but not what is on it; {KINDS} and a plus before it, such as \
                 prometheus+{kind}://"
            )),
            _ => Err(format!("\"{kind}\" is not a kind of source; {KINDS}")),
        }
    }
}

/// Asks a page for its content, which must come as it is.
async fn ask(client: &Client, url: &Url, accept: &'static str) -> Result<Exchange, Error> {
    let exchange = client.send(Method::GET, url, accept).await?;
    let status = exchange.answer.status();
    if !status.is_success() {
        return Err(Error::Status(status));
    }
    match exchange.answer.headers().get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(
            Error::Encoded(String::from_utf8_lossy(encoding.as_bytes()).into_owned()),
        ),
        _ => Ok(exchange),
    }
}

/// Hands out a page's body piece by piece, until its end.
async fn pieces<E>(
    exchange: Exchange,
    mut each: impl FnMut(Bytes) -> Result<(), E>,
) -> Result<(), Error>
where
    Error: From<E>,
{
    let mut exchange = exchange;
    let body: &mut Incoming = exchange.answer.body_mut();
    while let Some(frame) = body.frame().await {
        if let Ok(piece) = frame.map_err(fetch::Error::from)?.into_data() {
            each(piece)?;
        }
    }
    Ok(())
}

/// The whole body of a page that is never long.
async fn whole(exchange: Exchange, longest: usize) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    pieces(exchange, |piece| {
        if body.len() + piece.len() > longest {
            return Err(Error::Malformed(format!(
                "it is longer than {longest} bytes"
            )));
        }
        body.extend_from_slice(&piece);
        Ok(())
    })
    .await?;
    Ok(body)
}
