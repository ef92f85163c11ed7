//! In-flight work: where its count is read, and one read of it.
//!
//! *Unknown is not zero.* A read gives a count, or the reason why there is none; each reason has a name that status,
//! metrics and log share.

pub mod exposition;
pub mod json;
pub mod nearest;
pub mod nginx;
pub mod page;
pub mod presets;
pub mod promql;
pub mod sockets;
pub mod text;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use crate::config::ConfigErrors;
use crate::fetch::{self, Client};
use page::Page;
use presets::Preset;
use sockets::{Rule, Table};

/// Flags that say what to watch.
#[derive(Debug, Clone, clap::Args)]
#[group(skip)]
#[command(next_help_heading = "In-flight work")]
pub struct Args {
    /// What to watch: KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR. Repeatable; all must be quiet
    ///
    /// KIND prometheus is for metrics: the selector is PromQL over the one page, such as
    /// sum(http_requests_inprogress{handler!="/metrics"}) or started_total - handled_total; what comes out is summed.
    ///
    /// KIND json: the selector is a JSON pointer to a number, or to an array or object whose members are counted, such
    /// as /workers/0/busy.
    ///
    /// KIND text is for a page that is one number, KIND nginx for that of nginx's stub_status; they take no selector.
    ///
    /// TRANSPORT is http, https or unix, the last as in json+unix:///run/app.sock:/stats#/busy. Over https any
    /// certificate will do on loopback; elsewhere it must be valid.
    ///
    /// The selector is everything after the first #, as written.
    ///
    /// Or, from the kernel, tcp://:PORT counts the connections to a port, and tcp-busy://:PORT those in the middle of a
    /// request. Or a preset, such as fastapi://127.0.0.1:8000; they are listed below.
    #[arg(long, value_name = "SOURCE")]
    pub inflight: Vec<String>,

    /// The app's port: shows whether requests still arrive, and without --inflight which are under way. Repeatable
    #[arg(long, value_name = "PORT")]
    pub app_port: Vec<String>,

    /// How long one read of one source may take
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    pub read_timeout: String,
}

/// What to watch, checked.
#[derive(Debug)]
pub struct Settings {
    /// Each of them must be quiet.
    pub sources: Vec<Source>,
    /// The ports on which traffic can be watched.
    pub ports: BTreeSet<u16>,
    /// How long one read of one source may take.
    pub read_timeout: Duration,
}

impl Args {
    /// Checks the flags.
    pub fn validate(&self, errors: &mut ConfigErrors) -> Settings {
        let mut sources: Vec<Source> = (self.inflight.iter())
            .filter_map(|text| {
                errors.check("inflight", &without_credentials(text), Source::parse(text))
            })
            .collect();
        let mut ports: BTreeSet<u16> = (self.app_port.iter())
            .filter_map(|text| errors.check("app-port", text, port(text)))
            .collect();
        if self.inflight.is_empty() && self.app_port.is_empty() {
            errors.say(
                "there is nothing to watch; write --app-port 8000 with your app's port, or --inflight \
                 'prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress' with its port and metric, or both",
            );
        }
        if self.inflight.is_empty() {
            sources.extend(ports.iter().map(|&port| Source::busy(port)));
        }
        ports.extend(sources.iter().flat_map(Source::ports));
        Settings {
            sources,
            ports,
            read_timeout: errors.positive_duration("read-timeout", &self.read_timeout),
        }
    }
}

/// Where a count is read.
#[derive(Debug)]
pub struct Source {
    /// As the user wrote it, credentials left out.
    name: String,
    kind: Kind,
}

/// What is read there.
#[derive(Debug)]
enum Kind {
    Page(Box<Page>),
    /// The connections of a port; all of them, or those that are busy.
    Sockets {
        table: Table,
        busy: bool,
    },
}

impl Source {
    /// The busy connections of a port.
    fn busy(port: u16) -> Self {
        Self {
            name: format!("tcp-busy://:{port}"),
            kind: Kind::Sockets {
                table: Table::new([port]),
                busy: true,
            },
        }
    }

    /// Parses `KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR`, `tcp://:PORT`, `tcp-busy://:PORT` or a preset.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (address, selector) = match text.split_once('#') {
            Some((address, selector)) => (address, Some(selector)),
            None => (text, None),
        };
        let (scheme, rest) = address.split_once("://").ok_or(
            "it has no scheme; write KIND+TRANSPORT://HOST:PORT/PATH#SELECTOR, such as \
             prometheus+http://127.0.0.1:8000/metrics#http_requests_inprogress",
        )?;
        let kind = match (scheme, Preset::named(scheme)) {
            ("tcp" | "tcp-busy", _) => {
                let form = || format!("write {scheme}://:8000 with your app's port");
                let number = (rest.strip_prefix(':'))
                    .filter(|_| selector.is_none())
                    .ok_or_else(form)?;
                Kind::Sockets {
                    table: Table::new([port(number)?]),
                    busy: scheme == "tcp-busy",
                }
            }
            (_, Some(_)) if selector.is_some() => {
                return Err(format!(
                    "{scheme} is a preset and has its selector; leave out the # and what follows, or write the source out"
                ));
            }
            (_, Some(preset)) => {
                return Self::parse(&preset.expand(rest)?).map(|source| source.named(text));
            }
            (_, None) => Kind::Page(Box::new(Page::parse(scheme, rest, selector)?)),
        };
        Ok(Self {
            name: without_credentials(text),
            kind,
        })
    }

    fn named(mut self, text: &str) -> Self {
        self.name = without_credentials(text);
        self
    }

    /// The ports whose connections it reads.
    fn ports(&self) -> impl Iterator<Item = u16> {
        let table = match &self.kind {
            Kind::Page(_) => None,
            Kind::Sockets { table, .. } => Some(table),
        };
        table.into_iter().flat_map(Table::ports)
    }

    /// Reads the count once.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub async fn read(&self, context: &ReadContext) -> Result<f64, Error> {
        let read = async {
            match &self.kind {
                Kind::Page(page) => page.read(&context.client).await,
                Kind::Sockets { table, busy } => {
                    let rule = match busy {
                        false => Rule::Open,
                        true => Rule::Busy {
                            quiet_period: context.quiet_period,
                            max_quiet: context.max_quiet,
                        },
                    };
                    let ours = |peer| context.client.own_sockets().contains(peer);
                    match table.count(rule, ours).await? {
                        (0, false) => Err(Error::Http(fetch::Error::Refused)),
                        (count, _) => Ok(count as f64),
                    }
                }
            }
        };
        match timeout(context.read_timeout, read).await {
            Ok(read) => read.and_then(count),
            Err(_) => Err(Error::Http(fetch::Error::Timeout(context.read_timeout))),
        }
    }
}

/// A port as it was typed.
fn port(text: &str) -> Result<u16, String> {
    (text.parse().ok().filter(|&port| port != 0))
        .ok_or_else(|| format!("{text:?} is not a port; write a number from 1 to 65535"))
}

/// What reads need.
#[derive(Debug, Clone)]
pub struct ReadContext {
    /// Sends the requests.
    pub client: Client,
    /// How long one read may take.
    pub read_timeout: Duration,
    /// A connection that moved bytes less than this ago is busy.
    pub quiet_period: Duration,
    /// How long it may be unclear whether a connection is.
    pub max_quiet: Duration,
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

/// A number, if it can be a count.
fn count(value: f64) -> Result<f64, Error> {
    if value.is_finite() && value >= 0.0 {
        Ok(value + 0.0) // Nobody wants to read of -0 requests.
    } else {
        Err(Error::NoCount(value.to_string()))
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
    /// The page is not what it should be: what is wrong with it.
    Malformed(String),
    /// The page ends before its end: what is not there.
    CutOff(&'static str),
    /// The page does not have what the selector names.
    Missing(&'static str),
    /// What the selector names is negative, infinite or not a number.
    NoCount(String),
    /// The page has such series, but they do not come to a value.
    Expression(promql::Error),
    /// The kernel's table cannot be read.
    Sockets(sockets::Error),
}

impl Error {
    /// The name of the reason, in status, metrics and log.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Http(fetch::Error::Refused) => "refused",
            Error::Http(fetch::Error::Unreachable(_)) => "unreachable",
            Error::Http(fetch::Error::Tls(_)) => "tls",
            Error::Http(fetch::Error::Broken(_)) => "broken",
            Error::Http(fetch::Error::Timeout(_)) => "timeout",
            Error::Status(_) => "status",
            Error::Encoded(_) => "encoded",
            Error::Malformed(_) => "malformed",
            Error::CutOff(_) => "truncated",
            Error::Missing(_) => "missing",
            Error::Expression(promql::Error::Ambiguous(_)) => "ambiguous",
            Error::Expression(promql::Error::TooMany) => "too-many-series",
            Error::NoCount(_) => "no-count",
            Error::Sockets(sockets::Error::Refused(_)) => "not-permitted",
            Error::Sockets(sockets::Error::Broken(_)) => "broken",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http(e) => e.fmt(f),
            Error::Status(status) => write!(f, "it answered {status}"),
            Error::Encoded(how) => write!(f, "it sent {how:?} though it was asked for plain text"),
            Error::Malformed(wrong) => f.write_str(wrong),
            Error::CutOff(how) => write!(f, "the page is cut off: {how}"),
            Error::Missing(what) => f.write_str(what),
            Error::NoCount(value) => write!(f, "its value, {value}, is not a count"),
            Error::Expression(e) => e.fmt(f),
            Error::Sockets(e @ sockets::Error::Refused(_)) => {
                write!(
                    f,
                    "{e}; use a metric of the app's, or tcp:// instead of tcp-busy://"
                )
            }
            Error::Sockets(e) => e.fmt(f),
        }
    }
}

impl From<fetch::Error> for Error {
    fn from(e: fetch::Error) -> Self {
        Error::Http(e)
    }
}

impl From<sockets::Error> for Error {
    fn from(e: sockets::Error) -> Self {
        Error::Sockets(e)
    }
}

impl From<exposition::Error> for Error {
    fn from(e: exposition::Error) -> Self {
        match e {
            exposition::Error::CutOff(how) => Error::CutOff(how),
            exposition::Error::Line { .. } => Error::Malformed(e.to_string()),
        }
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
    context: ReadContext,
    record: Mutex<Record>,
}

/// What is known of a source.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was wrong at the last read that gave no count, if it was the last one.
    pub problem: Option<Arc<str>>,
    /// The last read: when it ended, and what it gave.
    pub last: Option<(Instant, ReadResult)>,
    /// Something has listened there since the start.
    pub heard: bool,
}

/// What one read gave: a count, or the name of the reason why there is none.
pub type ReadResult = Result<f64, &'static str>;

impl Meter {
    /// A meter that has read nothing yet.
    pub fn new(source: Source, context: ReadContext) -> Self {
        Self {
            source,
            context,
            record: Mutex::default(),
        }
    }

    /// The source as the user wrote it, credentials left out.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// Whether it counts connections, and not requests.
    pub fn counts_connections(&self) -> bool {
        matches!(self.source.kind, Kind::Sockets { .. })
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
        let read = self.source.read(&self.context).await;
        let reading = read.as_ref().copied().map_err(Error::kind);
        let before = {
            let mut record = self.lock();
            record.heard |= !matches!(reading, Err("refused" | "unreachable"));
            record.problem = read.as_ref().err().map(|e| e.to_string().into());
            record
                .last
                .replace((Instant::now(), reading))
                .map(|(_, reading)| reading)
        };
        match (&read, before) {
            // An app takes its time to start, and to stop; that is no news.
            (Err(e @ Error::Http(fetch::Error::Refused)), before)
                if before != Some(Err("refused")) =>
            {
                let when = if before.is_none() { "yet" } else { "any more" };
                info!(source = self.name(), "not listening {when}: {e}");
            }
            (Err(e), before) if before != Some(Err(e.kind())) => {
                warn!(source = self.name(), result = e.kind(), "unreadable: {e}");
            }
            (Ok(inflight), Some(Err(_))) => info!(source = self.name(), inflight, "readable"),
            _ => {}
        }
        read
    }

    /// Reads once, and where the page lacks what the selector names, says what it has instead.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub async fn check(&self) -> Result<f64, Error> {
        let read = self.read().await;
        if let (Err(Error::Missing(what)), Kind::Page(page)) = (&read, &self.source.kind) {
            let nearest = page.nearest(&self.context.client);
            if let Ok(Ok(Some(nearest))) = timeout(self.context.read_timeout, nearest).await {
                warn!(source = self.name(), "{nearest}");
                self.lock().problem = Some(format!("{what}; {nearest}").into());
            }
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
        let Kind::Page(page) = source.kind else {
            panic!("not a page");
        };
        assert_eq!(page.url.to_string(), "127.0.0.1:8000/metrics");
    }

    #[test]
    fn every_kind_goes_over_every_transport() {
        for (kind, selector) in [
            ("prometheus", "#m"),
            ("json", "#/a"),
            ("json", "#"),
            ("text", ""),
            ("nginx", ""),
        ] {
            for rest in ["http://h:1/x", "https://h:1/x", "unix:///run/h.sock:/x"] {
                let text = format!("{kind}+{rest}{selector}");
                assert_eq!(Source::parse(&text).unwrap().name, text);
            }
        }
    }

    #[test]
    fn every_preset_is_a_source_and_keeps_the_name_it_was_given() {
        for preset in presets::ALL {
            let text = format!("{}://me:pw@127.0.0.1:81", preset.name);
            let source = Source::parse(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(source.name, format!("{}://127.0.0.1:81", preset.name));
            assert!(Source::parse(&preset.shown().replace("PORT", "81")).is_ok());
        }
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
            ("gopher+http://x/#m", "\"gopher\""),
            ("tcp://8000", "tcp://:8000"),
            ("tcp-busy://:http", "\"http\" is not a port"),
            ("tcp-busy://:8000#m", "tcp-busy://:8000"),
            ("vllm://127.0.0.1#m", "preset"),
            ("go-grpc://127.0.0.1", "go-grpc://127.0.0.1:PORT"),
            ("http://127.0.0.1:8000/metrics#m", "prometheus+http://"),
            ("json://127.0.0.1:8000/stats#/x", "json+https://"),
            ("json+://127.0.0.1:8000/stats#/x", "json+https://"),
            (
                "json+gopher://127.0.0.1:8000/stats#/x",
                "\"gopher\" is not a transport",
            ),
            ("json+http://127.0.0.1:8000/stats", "no selector"),
            ("json+http://127.0.0.1:8000/stats#busy", "write #/busy"),
            ("json+http://127.0.0.1:8000/stats#/~2", "~0 for ~"),
            (
                "json+unix://run/app.sock:/stats#/x",
                "does not begin with /",
            ),
            ("text+http://127.0.0.1:8000/inflight#x", "takes no selector"),
            (
                "nginx+http://127.0.0.1:8000/stub_status#",
                "takes no selector",
            ),
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
