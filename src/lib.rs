//! gracekeeper: a drain sidecar for Kubernetes pods.
//!
//! The program is `main.rs`. This library is for it and for the tests; what they do not need is private, so that the
//! compiler finds code that is not used.

#[cfg(feature = "tools")]
pub mod check;
pub mod cli;
pub mod exit;
#[doc(hidden)]
pub mod fuzzing;
pub mod hook;
pub mod inflight;
#[cfg(feature = "tools")]
pub mod inject;
pub mod install;
pub mod log;
#[cfg(feature = "tools")]
pub mod podspec;
#[cfg(feature = "tools")]
pub mod rehearse;
pub mod run;

mod clock;
mod cluster;
mod config;
mod drain;
mod drainer;
mod fetch;
mod http;
#[cfg(feature = "tools")]
mod kubeconfig;
mod metrics;
mod notices;
mod report;
mod signal;
mod threads;
mod traffic;
