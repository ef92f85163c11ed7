//! The rules that end a drain, each in the file of what it is about.

mod app_gone;
mod kept_connections;
mod routes;
mod unreadable;
mod work;

use tokio::time::sleep;

use super::*;
use crate::drain::reads::Read;
use crate::drain::testing::{BUSY, QUIET, SECOND, TestPod, WatchedPod, about, policy, seconds};
use crate::drain::{Phase, Reading, Trigger, WhenBlind};
