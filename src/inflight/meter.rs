//! A source and what was last read from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::{Instant, timeout};
use tracing::{info, warn};

use super::source::Kind;
use super::{Error, ReadContext, Source};
use crate::fetch;

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

    /// Whether it counts nothing but requests on connections, so that without a connection there is no work.
    pub fn ends_when_stuck(&self) -> bool {
        self.source.ends_when_stuck()
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
