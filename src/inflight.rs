//! In-flight work: where its count is read, and one read of it.
//!
//! *Unknown is not zero.* A read gives a count, or the reason why there is none; each reason has a name that status,
//! metrics and log share.

pub mod exposition;
pub mod promql;

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{Method, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::fetch::{self, Exchange, Url};
use crate::mistake::Mistakes;
use exposition::Scanner;
use promql::Query;

/// The text format first: every exporter has it, and it has fewer ways to be wrong.
const ACCEPT_METRICS: &str =
    "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1";

/// Flags that say what to watch.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "In-flight work")]
pub struct Args {
    /// What to watch: prometheus+http://HOST:PORT/PATH#SELECTOR. Repeatable; all must be quiet
    ///
    /// The selector is PromQL over that one page, such as http_requests_inprogress{handler!="/metrics"} or
    /// sum(started_total) - sum(finished_total); the series it comes to are summed. It is everything after the first #,
    /// as written.
    #[arg(long, value_name = "SOURCE")]
    pub inflight: Vec<String>,

    /// How long one read of one source may take
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub read_timeout: String,
}

/// What to watch, checked.
#[derive(Debug)]
pub struct Settings {
    /// Each of them must be quiet.
    pub sources: Vec<Source>,
    /// How long one read of one source may take.
    pub read_timeout: Duration,
}

impl Args {
    /// Checks the flags.
    pub fn settle(&self, mistakes: &mut Mistakes) -> Settings {
        let sources: Vec<Source> = (self.inflight.iter())
            .filter_map(|text| {
                mistakes.check("inflight", &without_credentials(text), Source::parse(text))
            })
            .collect();
        if self.inflight.is_empty() {
            mistakes.say(
                "there is nothing to watch; write --inflight \
                 'prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress' with your app's port and metric",
            );
        }
        Settings {
            sources,
            read_timeout: mistakes.positive_duration("read-timeout", &self.read_timeout),
        }
    }
}

/// Where a count is read.
#[derive(Debug)]
pub struct Source {
    /// As the user wrote it, credentials left out.
    name: String,
    url: Url,
    query: Query,
}

impl Source {
    /// Parses `SCHEME+TRANSPORT://HOST:PORT/PATH#SELECTOR`.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        const FORM: &str = "write prometheus+http://HOST:PORT/PATH#SELECTOR";
        let (address, selector) = match text.split_once('#') {
            Some((address, selector)) => (address, Some(selector)),
            None => (text, None),
        };
        let (scheme, rest) = address
            .split_once("://")
            .ok_or_else(|| format!("it has no scheme; {FORM}"))?;
        if scheme != "prometheus+http" {
            return Err(format!("\"{scheme}\" is not a kind of source; {FORM}"));
        }
        let url = Url::parse_rest(rest)?;
        let selector = selector.ok_or_else(|| {
            format!("it has no selector; {FORM}, such as #http_requests_inprogress")
        })?;
        let query = Query::parse(selector).map_err(|wrong| format!("in the selector: {wrong}"))?;
        Ok(Self {
            name: without_credentials(text),
            url,
            query,
        })
    }

    /// Reads the count once.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub async fn read(&self, limit: Duration) -> Result<f64, Error> {
        match timeout(limit, self.fetch()).await {
            Ok(read) => read,
            Err(_) => Err(Error::Http(fetch::Error::Timeout(limit))),
        }
    }

    async fn fetch(&self) -> Result<f64, Error> {
        let exchange = ask(&self.url, ACCEPT_METRICS).await?;
        let headers = exchange.answer.headers();
        let open_metrics = (headers.get(CONTENT_TYPE))
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/openmetrics-text"));
        // Else the page ends where the connection does, and nobody knows whether the server meant it to.
        let length_told = [CONTENT_LENGTH, TRANSFER_ENCODING]
            .iter()
            .any(|header| headers.contains_key(header));
        let mut evaluation = self.query.begin();
        let mut scanner = Scanner::new(self.query.names(), open_metrics);
        pieces(exchange, |piece| {
            scanner.feed(&piece, &mut |sample| evaluation.take(&sample))
        })
        .await?;
        scanner.finish(length_told, &mut |sample| evaluation.take(&sample))?;
        count(evaluation.finish()?.ok_or(Error::Missing)?)
    }
}

/// As the user wrote it, credentials left out.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A source's text without what stands before an `@` in its authority.
fn without_credentials(text: &str) -> String {
    let shown = || {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '#', '?']).unwrap_or(rest.len());
        let (_, host) = rest[..end].rsplit_once('@')?;
        Some(format!("{scheme}://{host}{}", &rest[end..]))
    };
    shown().unwrap_or_else(|| text.to_owned())
}

/// Asks a page for its content, which must come as it is.
async fn ask(url: &Url, accept: &'static str) -> Result<Exchange, Error> {
    let exchange = fetch::send(Method::GET, url, accept).await?;
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

/// A number, if it can be a count.
fn count(value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(value)
    } else {
        Err(Error::NoCount(value))
    }
}

/// Why there is no count.
#[derive(Debug)]
pub enum Error {
    /// The request failed.
    Http(fetch::Error),
    /// The answer's status is not 2xx.
    Status(StatusCode),
    /// The page came compressed, though we asked for it plain.
    Encoded(String),
    /// The page does not parse, or is not whole.
    Page(exposition::Error),
    /// The page has no series that the selector matches.
    Missing,
    /// The page has such series, but they do not come to a value.
    Expression(promql::Error),
    /// The value is negative, infinite or not a number.
    NoCount(f64),
}

impl Error {
    /// The name of the reason, in status, metrics and log.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Http(fetch::Error::Refused) => "refused",
            Error::Http(fetch::Error::Unreachable(_)) => "unreachable",
            Error::Http(fetch::Error::Broken(_)) => "broken",
            Error::Http(fetch::Error::Timeout(_)) => "timeout",
            Error::Status(_) => "status",
            Error::Encoded(_) => "encoded",
            Error::Page(exposition::Error::CutOff(_)) => "truncated",
            Error::Page(exposition::Error::Line { .. }) => "malformed",
            Error::Missing => "missing",
            Error::Expression(promql::Error::Ambiguous(_)) => "ambiguous",
            Error::Expression(promql::Error::TooMany) => "too-many-series",
            Error::NoCount(_) => "no-count",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http(e) => e.fmt(f),
            Error::Status(status) => write!(f, "it answered {status}"),
            Error::Encoded(how) => write!(f, "it sent {how:?} though it was asked for plain text"),
            Error::Page(e) => e.fmt(f),
            Error::Missing => write!(f, "the page has no series that the selector matches"),
            Error::Expression(e) => e.fmt(f),
            Error::NoCount(value) => write!(f, "its value {value} is not a count"),
        }
    }
}

impl From<fetch::Error> for Error {
    fn from(e: fetch::Error) -> Self {
        Error::Http(e)
    }
}

impl From<exposition::Error> for Error {
    fn from(e: exposition::Error) -> Self {
        Error::Page(e)
    }
}

impl From<promql::Error> for Error {
    fn from(e: promql::Error) -> Self {
        Error::Expression(e)
    }
}

/// A source together with what was last read from it.
#[derive(Debug)]
pub struct Meter {
    source: Source,
    read_timeout: Duration,
    record: Mutex<Record>,
}

/// What is known of a source.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// The last read: when it ended, and what it gave.
    pub last: Option<(Instant, Reading)>,
    /// Something has listened there since the start.
    pub heard: bool,
}

/// What one read gave: a count, or the name of the reason why there is none.
pub type Reading = Result<f64, &'static str>;

impl Meter {
    /// A meter that has read nothing yet.
    pub fn new(source: Source, read_timeout: Duration) -> Self {
        Self {
            source,
            read_timeout,
            record: Mutex::default(),
        }
    }

    /// The source as the user wrote it, credentials left out.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// What is known now.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Reads once and records it. A reason that differs from the last one is logged.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub async fn read(&self) -> Result<f64, Error> {
        let read = self.source.read(self.read_timeout).await;
        let reading = read.as_ref().copied().map_err(Error::kind);
        let before = {
            let mut record = self.lock();
            record.heard |= !matches!(reading, Err("refused" | "unreachable"));
            record
                .last
                .replace((Instant::now(), reading))
                .map(|(_, reading)| reading)
        };
        match (&read, before) {
            // An app takes its time to start; that is no news.
            (Err(e @ Error::Http(fetch::Error::Refused)), None) => {
                info!(source = self.name(), "not listening yet: {e}");
            }
            (Err(e), before) if before != Some(Err(e.kind())) => {
                warn!(source = self.name(), result = e.kind(), "unreadable: {e}");
            }
            (Ok(inflight), Some(Err(_))) => info!(source = self.name(), inflight, "readable"),
            _ => {}
        }
        read
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_read_as_written() {
        let source =
            Source::parse("prometheus+http://me:pw@127.0.0.1:8000/metrics#m{a=\"#%20\"}").unwrap();
        assert_eq!(
            source.name,
            "prometheus+http://127.0.0.1:8000/metrics#m{a=\"#%20\"}"
        );
        assert_eq!(source.url.to_string(), "127.0.0.1:8000/metrics");
    }

    #[test]
    fn credentials_are_never_shown() {
        for (text, shown) in [
            ("x+http://u:p@h/a", "x+http://h/a"),
            ("x+http://u:p@h#a@b", "x+http://h#a@b"),
            ("x+http://h/a@b", "x+http://h/a@b"),
            ("rubbish", "rubbish"),
        ] {
            assert_eq!(without_credentials(text), shown);
        }
    }

    #[test]
    fn a_wrong_source_is_refused_with_a_remedy() {
        for (text, part) in [
            ("127.0.0.1:8000", "no scheme"),
            ("gopher://x/#m", "\"gopher\""),
            ("prometheus+http://127.0.0.1:8000/metrics", "no selector"),
            (
                "prometheus+http://127.0.0.1:8000/metrics#",
                "in the selector",
            ),
            (
                "prometheus+http://127.0.0.1:8000/metrics#rate(m[5m])",
                "a function",
            ),
            ("prometheus+http://:8000/metrics#m", "host"),
        ] {
            let refusal = Source::parse(text).unwrap_err();
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }

    #[test]
    fn only_finite_numbers_from_zero_up_are_counts() {
        assert_eq!(count(0.0).unwrap(), 0.0);
        assert_eq!(count(1.5).unwrap(), 1.5);
        for value in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(count(value).unwrap_err().kind(), "no-count");
        }
    }
}
