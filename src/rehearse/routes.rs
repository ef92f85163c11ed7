//! Where new connections go: the endpoints of a Service, which follow a termination with a delay.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// Where a client connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// To this address.
    At(SocketAddr),
    /// To the host and port of the URL, which are resolved for each new connection.
    AsWritten,
}

/// An instance, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// 0 is the instance that is terminated.
    pub instance: usize,
    pub place: Place,
}

/// Where new connections go now; nowhere while other pods, which are not here, take them. Clones share it.
#[derive(Debug, Clone)]
pub struct Routes(Arc<Mutex<Option<Endpoint>>>);

impl Routes {
    /// All goes to one endpoint.
    pub fn to(endpoint: Endpoint) -> Self {
        Self(Arc::new(Mutex::new(Some(endpoint))))
    }

    /// From now on it goes there.
    pub fn change(&self, to: Option<Endpoint>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// Where a new connection goes.
    pub fn current(&self) -> Option<Endpoint> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
