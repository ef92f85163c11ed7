//! Why there is no count, and the name of each reason.

use std::fmt;

use super::body::Refusal;
use super::{exposition, promql, sockets};
use crate::fetch;

/// Why there is no count.
#[derive(Debug)]
pub enum Error {
    /// The request failed.
    Http(fetch::Error),
    /// The answer's status is not 2xx.
    Status(Box<Refusal>),
    /// The page came compressed, though we asked for it plain.
    Encoded(String),
    /// The page is not what it should be: what is wrong with it.
    Malformed(String),
    /// The page ends before its end: what is not there.
    CutOff(&'static str),
    /// The page does not have what the selector names: what is there.
    Missing(String),
    /// A quiet count that cannot be believed yet, and why.
    Unconfirmed(String),
    /// What the selector names is negative, infinite or not a number.
    NoCount(String),
    /// The page has such series, but they do not come to a value.
    Expression(promql::Error),
    /// The kernel's table cannot be read.
    Sockets(sockets::Error),
}

impl Error {
    /// Whether nothing is there that could answer: it has not started yet, or it is gone.
    pub fn is_absent(&self) -> bool {
        matches!(self, Error::Http(e) if e.is_absent())
    }

    /// The name of the reason, in status, metrics and log.
    pub fn kind(&self) -> &'static str {
        match self {
            Error::Http(fetch::Error::Refused | fetch::Error::NotThere) => "refused",
            Error::Http(fetch::Error::Unreachable(_)) => "unreachable",
            Error::Http(fetch::Error::Tls(_)) => "tls",
            Error::Http(fetch::Error::Broken(_)) => "broken",
            Error::Http(fetch::Error::Timeout(_)) => "timeout",
            Error::Status(_) => "status",
            Error::Unconfirmed(_) => "unconfirmed",
            Error::Encoded(_) => "encoded",
            Error::Malformed(_) => "malformed",
            Error::CutOff(_) => "truncated",
            Error::Missing(_) => "missing",
            Error::Expression(promql::Error::Ambiguous(_)) => "ambiguous",
            Error::Expression(promql::Error::TooMany) => "too-many-series",
            Error::Expression(promql::Error::Impossible(_)) => "no-count",
            Error::NoCount(_) => "no-count",
            Error::Sockets(sockets::Error::Refused(_)) => "not-permitted",
            Error::Sockets(sockets::Error::Broken(_)) => "broken",
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Http(e @ fetch::Error::Timeout(_)) => {
                write!(
                    f,
                    "{e}; write a longer --read-timeout if the page takes its time"
                )
            }
            Error::Http(e) => e.fmt(f),
            Error::Status(refusal) => refusal.fmt(f),
            Error::Unconfirmed(what) => f.write_str(what),
            Error::Encoded(how) => write!(
                f,
                "it is compressed ({how:?}), though it was asked for as it is; let the server not compress it"
            ),
            Error::Malformed(wrong) => f.write_str(wrong),
            Error::CutOff(how) => write!(f, "the page is cut off: {how}"),
            Error::Missing(what) => f.write_str(what),
            Error::NoCount(value) => write!(
                f,
                "its value, {value}, is not a count; write what is a number from 0 up"
            ),
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
