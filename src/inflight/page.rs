//! A page that the app serves, or a file that it writes: where it is, what is on it, and what of it is the count.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Mutex;

use super::body::{Body, Place};
use super::exposition::Scanner;
use super::json::Pointer;
use super::opening::{Expected, Opening};
use super::processes::{Signs, SignsReader};
use super::promql::Query;
use super::{Error, nginx, text};
use crate::fetch::{Client, Transport, Url};

/// The text format first: every exporter has it, and it has fewer ways to be wrong.
pub(super) const ACCEPT_METRICS: &str =
    "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1";

const ACCEPT_JSON: &str = "application/json,*/*;q=0.1";

const ACCEPT_TEXT: &str = "text/plain,*/*;q=0.1";

/// A page that the app serves, or a file that it writes.
#[derive(Debug)]
pub struct Page {
    pub(super) place: Place,
    pub(super) format: Format,
    /// What the user wrote before the transport's plus, and after the `#`: for messages that show a whole source.
    kind: String,
    selector: Option<String>,
    /// The flag that it is written with.
    flag: &'static str,
    /// How often we have asked for it, or for the same page through another source: nginx counts these requests too.
    reads: Arc<Mutex<u64>>,
}

/// What is on a page, and what of it is the count.
#[derive(Debug)]
pub(super) enum Format {
    Prometheus(Query),
    Json(Pointer),
    Text,
    Nginx,
    /// The requests that nginx has counted, less our own.
    NginxRequests,
}

/// What one read of a page gives.
#[derive(Debug, PartialEq)]
pub struct PageRead {
    /// Whatever number it is.
    pub value: f64,
    /// Which process of the app may have answered.
    pub signs: Signs,
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
        let transports =
            || format!("write {kind}+http://, {kind}+https://, {kind}+unix:// or {kind}+file://");
        let place = match transport {
            None => return Err(format!("it has no transport; {}", transports())),
            Some("file") => Place::File(file(rest)?),
            Some(transport) => {
                let transport = Transport::named(transport).ok_or_else(|| {
                    format!("\"{transport}\" is not a transport; {}", transports())
                })?;
                Place::Url(Url::parse_rest(transport, rest)?)
            }
        };
        Ok(Self {
            place,
            format,
            kind: kind.to_owned(),
            selector: selector.map(str::to_owned),
            flag: "--inflight",
            reads: Arc::default(),
        })
    }

    /// It is read for how many requests there have been.
    pub fn counts_requests(&mut self) {
        self.flag = "--requests";
        if self.is_nginx() {
            self.format = Format::NginxRequests;
        }
    }

    /// Whether it is read for how many requests are in flight, and not for how many there have been.
    pub fn counts_inflight(&self) -> bool {
        self.flag == "--inflight"
    }

    /// Whether it is nginx's.
    pub fn is_nginx(&self) -> bool {
        matches!(self.format, Format::Nginx | Format::NginxRequests)
    }

    /// Counts its own reads together with another page's of the same server.
    pub fn share_reads(&mut self, other: &Page) {
        if self.place.to_string() == other.place.to_string() {
            self.reads = other.reads.clone();
        }
    }

    /// Reads the count once.
    ///
    /// # Errors
    /// When there is none.
    pub async fn read(&self, client: &Client) -> Result<PageRead, Error> {
        // One at a time: a request that we have sent and nginx has not counted would be missing.
        let mut reads = match self.is_nginx() {
            true => Some(self.reads.lock().await),
            false => None,
        };
        if let Some(reads) = &mut reads {
            **reads += 1;
        }
        let mut body = Body::open(&self.place, client, self.accept()).await;
        if let Err(Error::Status(answer)) = &mut body {
            answer.add_remedy(|url| self.flag(url));
        }
        let mut body = body?;
        let value = match &self.format {
            Format::Prometheus(query) => return read_metrics(query, &mut body).await,
            Format::Json(pointer) => {
                let mut reader = pointer.begin();
                stream(&mut body, Expected::Json, |piece| reader.feed(piece)).await?;
                reader.finish()?
            }
            Format::Text => text::parse(&whole(&mut body, text::LONGEST).await?)?,
            Format::Nginx => nginx::parse(&whole(&mut body, nginx::LONGEST).await?)?.inflight,
            Format::NginxRequests => {
                let page = nginx::parse(&whole(&mut body, nginx::LONGEST).await?)?;
                (page.requests - reads.map_or(0.0, |reads| *reads as f64)).max(0.0)
            }
        };
        Ok(PageRead {
            value,
            signs: Signs::default(),
        })
    }

    fn accept(&self) -> &'static str {
        match self.format {
            Format::Prometheus(_) => ACCEPT_METRICS,
            Format::Json(_) => ACCEPT_JSON,
            Format::Text | Format::Nginx | Format::NginxRequests => ACCEPT_TEXT,
        }
    }

    /// The source with its page at another URL, as the flag is written.
    pub(super) fn flag(&self, url: &str) -> String {
        let selector = self.selector.as_ref();
        let selector = selector.map_or(String::new(), |selector| format!("#{selector}"));
        format!("{} '{}+{url}{selector}'", self.flag, self.kind)
    }

    /// The source with another selector, as the flag is written.
    pub(super) fn flag_with_selector(&self, selector: &str) -> String {
        format!("{} '{}+{}#{selector}'", self.flag, self.kind, self.place)
    }

    /// The port of this pod that it asks.
    pub(super) fn local_port(&self) -> Option<u16> {
        match &self.place {
            Place::Url(url) => url.loopback_port(),
            Place::File(_) => None,
        }
    }
}

/// A file's path as it was written.
fn file(path: &str) -> Result<PathBuf, String> {
    match path.starts_with('/') && !path.ends_with('/') {
        true => Ok(path.into()),
        false => Err(format!(
            "{path:?} is not the whole path of a file; write it from / on, such as text+file:///run/work/inflight"
        )),
    }
}

/// Reads a metrics page.
async fn read_metrics(query: &Query, body: &mut Body) -> Result<PageRead, Error> {
    let is_open_metrics = body.is_open_metrics();
    let mut evaluation = query.begin();
    let mut scanner = Scanner::new(query.names(), is_open_metrics);
    let mut signs = SignsReader::new(is_open_metrics);
    let mut is_there = false;
    let opening = {
        let mut each = |piece: &[u8]| {
            signs.feed(piece);
            scanner.feed(piece, &mut |sample| {
                is_there = true;
                signs.take(&sample);
                evaluation.take(&sample);
            })
        };
        stream(body, Expected::Metrics, |piece| {
            each(piece).map_err(Error::from)
        })
        .await?
    };
    // Without a length, the page ends where the connection does, which may be too early.
    scanner.finish(body.has_length(), &mut |sample| {
        is_there = true;
        evaluation.take(&sample);
    })?;
    // Where the expression makes a number of no series, the page must at least be metrics.
    if let (false, Some(doubt)) = (is_there, opening.doubt()) {
        return Err(Error::Malformed(doubt));
    }
    let value = evaluation.count()?.ok_or_else(|| {
        Error::Missing("the page has no series that the selector matches".to_owned())
    })?;
    Ok(PageRead {
        value,
        signs: signs.finish(),
    })
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
            _ if kind == "file" || Transport::named(kind).is_some() => Err(format!(
                "\"{kind}\" says how to reach a page but not what is on it; {KINDS} and a plus before it, such as \
                 prometheus+{kind}://"
            )),
            _ => Err(format!("\"{kind}\" is not a kind of source; {KINDS}")),
        }
    }
}

/// Hands out a page's body piece by piece, until its end. A page that is not what is expected is an error of its own,
/// and more to the point than what a parser says of its text.
async fn stream(
    body: &mut Body,
    expected: Expected,
    mut each: impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<Opening, Error> {
    let mut opening = Opening::new(body.content_type());
    let check = |opening: &Opening| match opening.objection(expected) {
        Some(objection) => Err(Error::Malformed(objection)),
        None => Ok(()),
    };
    while let Some(piece) = body.next().await? {
        if opening.take(&piece) {
            check(&opening)?;
        }
        if let Err(e) = each(&piece) {
            check(&opening)?;
            return Err(e);
        }
    }
    check(&opening)?;
    Ok(opening)
}

/// The whole body of a page that is never long.
async fn whole(body: &mut Body, longest: usize) -> Result<Vec<u8>, Error> {
    let mut kept = Vec::new();
    stream(body, Expected::Text, |piece| {
        if kept.len() + piece.len() > longest {
            return Err(Error::Malformed(format!(
                "it is longer than {longest} bytes"
            )));
        }
        kept.extend_from_slice(piece);
        Ok(())
    })
    .await?;
    Ok(kept)
}
