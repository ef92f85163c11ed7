//! The addresses from which the kubelet calls.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// How many addresses are remembered.
const ADDRESSES: usize = 8;

/// Addresses the kubelet calls from: probes come from there too, and are no traffic.
#[derive(Debug, Clone, Default)]
pub struct KubeletAddresses(Arc<Mutex<VecDeque<IpAddr>>>);

impl KubeletAddresses {
    /// It has called from this address.
    pub fn called_from(&self, address: IpAddr) {
        let address = address.to_canonical();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&address) {
            return;
        }
        if known.len() == ADDRESSES {
            known.pop_front();
        }
        known.push_back(address);
    }

    /// Where it has called from.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().copied().collect()
    }

    /// Whether it has called from this address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&address)
    }
}
