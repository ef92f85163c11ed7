//! The phases, each rule in the file of what it is about.

mod by_hand;
mod exhaustive;
mod model;
mod properties;
mod restart;
mod told_to_stop;

use std::sync::Mutex;

use tokio::time::{advance, sleep, timeout};

use super::*;
use crate::drain::testing::{BUSY, QUIET, SECOND, TestPod, about, policy, seconds, source};
use crate::drain::{PodFacts, WhenBlind};
