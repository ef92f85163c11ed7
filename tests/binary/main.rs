//! The real binary, over real sockets, beside real apps.

// The tests time what they see from outside, on a clock that is never paused, block as they please, and say what they skip.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used
)]

mod apps;
mod bounds;
#[cfg(feature = "tools")]
mod check;
mod client;
mod cluster;
mod faults;
mod handover;
mod hook;
mod hostile;
mod locked;
mod monitors;
mod pages;
mod pod;
mod process;
#[cfg(feature = "tools")]
mod rehearse;
mod servers;
mod software;
mod support;
mod told;
mod words;
mod worker;
