//! gracekeeper: a drain sidecar for Kubernetes pods.
//!
//! The program is `main.rs`. This library is for it, for the tests and for nobody else; what they do not need is
//! private, so that the compiler finds what nobody needs.

pub mod cli;
pub mod hook;
pub mod inflight;
pub mod install;
pub mod run;

mod clock;
mod cluster;
mod config;
mod drain;
mod drainer;
mod fetch;
mod http;
mod metrics;
mod notices;
mod report;
mod signal;
mod traffic;
