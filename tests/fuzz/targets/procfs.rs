//! No text makes the reading of /proc/net/tcp and tcp6 panic, and a socket is what the kernel would write for it.

#![no_main]

use std::net::{IpAddr, SocketAddr};

use gracekeeper::inflight::sockets::sockets_of;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|table: &str| {
    let sockets = sockets_of(table);
    assert!(sockets.len() <= table.lines().count());
    for (local, peer, state) in sockets {
        let line = format!("  0: {} {} {state} 0\n", written(local), written(peer));
        assert_eq!(sockets_of(&line), [(local, peer, state)], "{line}");
    }
});

/// As the kernel writes an address: words of the machine's own byte order in hexadecimal, and the port.
fn written(end: SocketAddr) -> String {
    let bytes = match end.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let words = bytes.chunks(4).map(|word| {
        let word = word.try_into().map(u32::from_ne_bytes).unwrap_or_default();
        format!("{word:08X}")
    });
    format!("{}:{:04X}", words.collect::<String>(), end.port())
}
