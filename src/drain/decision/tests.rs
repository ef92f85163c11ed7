//! The rules that end a drain, each in the file of what it is about.

mod app_gone;
mod counters;
mod handover;
mod kept_connections;
mod routes;
mod stuck;
mod unreadable;
mod work;

use tokio::time::sleep;

use super::*;
use crate::drain::testing::{
    BUSY, QUIET, SECOND, TestPod, WatchedPod, about, policy, seconds, source, verdict_while,
};
use crate::drain::{Phase, Reading, Trigger, WhenBlind};
