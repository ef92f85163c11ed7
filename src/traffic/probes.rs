//! The kubelet's probes of the app's ports, as the pod's own object has them.

use std::time::Duration;

/// One probe that goes on while a drain runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// The port of the pod that it calls.
    pub port: u16,
    /// The time from one call to the next (`periodSeconds`).
    pub every: Duration,
}
