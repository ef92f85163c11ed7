//! Our own connections, so that they are not taken for an app's clients.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How many of the last connections are known. Each lasts one exchange, so few of them are open at once; the others are
/// kept because the kernel tells of a connection's end when we have long forgotten it.
const KEPT: usize = 256;

/// The local addresses of our last TCP connections. What is our local address is the app's peer.
#[derive(Debug, Default)]
pub struct OwnSockets(Mutex<VecDeque<(IpAddr, u16)>>);

impl OwnSockets {
    /// Notes a connection, before anything is sent over it.
    pub(super) fn note(&self, local: SocketAddr) {
        let mut known = self.lock();
        if known.len() == KEPT {
            known.pop_front();
        }
        known.push_back(plain(local));
    }

    /// Whether a connection from this address is one of ours.
    pub fn contains(&self, peer: SocketAddr) -> bool {
        self.lock().contains(&plain(peer))
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<(IpAddr, u16)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A dual-stack listener sees an IPv4 client under an IPv6 address.
fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_connections_are_known_in_either_family() {
        let ours = OwnSockets::default();
        for port in 1..=300 {
            ours.note(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        assert_eq!(ours.lock().len(), KEPT);
        assert!(ours.contains("127.0.0.1:300".parse().unwrap()));
        assert!(ours.contains("[::ffff:127.0.0.1]:45".parse().unwrap()));
        assert!(!ours.contains("127.0.0.1:44".parse().unwrap()));
        assert!(!ours.contains("127.0.0.2:300".parse().unwrap()));
    }
}
