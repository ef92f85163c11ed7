//! What the clients remember of their requests.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::SERVER;
use http::{HeaderMap, HeaderName};
use tokio::time::Instant;

use super::super::record::Cause;

/// A request that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    pub began: Instant,
    pub ended: Instant,
    pub reused: bool,
    pub target: usize,
    pub instance: usize,
    pub cause: Option<Cause>,
}

/// The clients' memory. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Seen(Arc<Mutex<SeenParts>>);

#[derive(Debug, Default)]
struct SeenParts {
    ended: Vec<Ended>,
    in_flight: usize,
    server: Option<String>,
}

impl Seen {
    /// How many requests have ended, how many of them without a good answer, and how many are in flight.
    pub fn counts(&self) -> (usize, usize, usize) {
        let parts = self.lock();
        let failed = parts
            .ended
            .iter()
            .filter(|ended| ended.cause.is_some())
            .count();
        (parts.ended.len(), failed, parts.in_flight)
    }

    /// Every request that has ended, in the order of their ends, but the first so many.
    pub fn requests(&self, from: usize) -> Vec<Ended> {
        self.lock().ended.get(from..).unwrap_or_default().to_vec()
    }

    /// What the app calls itself.
    pub fn server(&self) -> Option<String> {
        self.lock().server.clone()
    }

    /// A request begins.
    pub fn begin(&self) {
        self.lock().in_flight += 1;
    }

    /// One that began has ended.
    pub fn end(&self, ended: Ended) {
        let mut parts = self.lock();
        parts.in_flight -= 1;
        parts.ended.push(ended);
    }

    /// Keeps what an answer says of the server, once.
    pub fn note_server(&self, headers: &HeaderMap) {
        let mut parts = self.lock();
        if parts.server.is_some() {
            return;
        }
        let named = [HeaderName::from_static("x-powered-by"), SERVER];
        let header = named
            .iter()
            .find_map(|name| headers.get(name)?.to_str().ok());
        parts.server = header.map(str::to_owned);
    }

    fn lock(&self) -> MutexGuard<'_, SeenParts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
