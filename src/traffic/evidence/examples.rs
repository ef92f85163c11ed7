//! Connections as examples for the tests.

use std::time::Duration;

use tokio::time::Instant;

use super::Evidence;
use crate::drain::TrafficSnapshot;
use crate::inflight::sockets::{Connection, State};
use crate::traffic::Settings;

pub const MS: Duration = Duration::from_millis(1);

pub fn evidence() -> Evidence {
    let settings = Settings {
        auto: None,
        ports: [8000].into(),
        local_peers: crate::inflight::LocalPeers::Proxy,
        quiet_period: 1000 * MS,
        max_quiet: 10_000 * MS,
        poll_interval: 100 * MS,
    };
    Evidence::new(Instant::now(), settings)
}

/// A connection that was answered some time ago.
pub fn idle(cookie: u64) -> Connection {
    Connection::example(cookie)
}

/// One that was answered just now.
pub fn fresh(cookie: u64) -> Connection {
    Connection {
        last_received: 0,
        last_sent: 0,
        last_acknowledgement: 0,
        ..idle(cookie)
    }
}

/// One that waits for its answer since then.
pub fn waiting(cookie: u64, since: u32) -> Connection {
    Connection {
        last_received: since,
        ..idle(cookie)
    }
}

/// One that has ended.
pub fn closed(of: Connection) -> Connection {
    Connection {
        state: State::Other,
        ..of
    }
}

pub fn read(evidence: &mut Evidence, routes_changed: bool, seen: &[Connection]) -> TrafficSnapshot {
    let now = evidence.began() + 6000 * MS;
    evidence.begin_read(routes_changed.then_some(now));
    for each in seen {
        evidence.sees_open(each, false, now);
    }
    evidence.snapshot(true, now)
}
