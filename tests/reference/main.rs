//! What the scanner and the expressions read, beside what others read: prometheus_client's parsers, and Prometheus.

// The tests wait for other programs, on a clock that is never paused, and block as they please.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used
)]

mod expressions;
mod generated;
mod pages;
mod prometheus;
mod python;
mod scan;
