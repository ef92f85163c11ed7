//! The socket table with 100, 10,000 and 50,000 sockets on the app's port.
//!
//! A pod's clients are elsewhere. Here both ends of each connection are on the app's port, so that there are as many
//! sockets as said and no others. Half of them, the servers', are in the middle of a request.
//!
//! Target: 50 ms or less with 50,000, in the same memory however many there are. Beside each: the same question to the
//! kernel, whose answers are thrown away, with and without the details of each connection (`tcp_info`); and without
//! connections of the port, when the kernel has to pass over all of them.

use std::hint::black_box;
use std::time::Duration;

use bytes::{BufMut as _, BytesMut};
use criterion::Criterion;
use gracekeeper::inflight::sockets::{Rule, Table};
use netlink_sys::Socket;
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use tokio::runtime::Builder;

use super::child::free_port;
use super::crowd::Crowd;
use super::{group, measure};

pub fn bench(criterion: &mut Criterion) {
    let mut group = group(criterion, "the socket table");
    let runtime = Builder::new_current_thread().enable_io().build().unwrap();
    for sockets in [100, 10_000, 50_000] {
        let port = free_port();
        let crowd = Crowd::gather(port, sockets / 2);
        let table = Table::new([port]);
        let busy = Rule::Busy {
            quiet_period: Duration::from_secs(1),
            max_quiet: Duration::from_secs(10),
        };
        measure(&mut group, &format!("{sockets} sockets"), || {
            let count = runtime.block_on(table.count(busy, |_| false)).unwrap();
            assert_eq!(count, (sockets as u64 / 2, true));
        });
        for (what, port, info) in [
            ("the kernel alone", port, true),
            ("the kernel alone, without tcp_info", port, false),
            ("the kernel alone, another port", free_port(), true),
        ] {
            measure(&mut group, &format!("{sockets} sockets, {what}"), || {
                black_box(ask_kernel(port, info));
            });
        }
        drop(crowd);
    }
    group.finish();
}

/// Asks for the connections of a local port, as `src/inflight/sockets/netlink.rs` does, and takes what comes; how many bytes.
fn ask_kernel(port: u16, info: bool) -> usize {
    const GETSOCK: u16 = 18;
    const REQUEST_DUMP: u16 = 0x301;
    const BYTECODE: u16 = 1;
    const DONE: u16 = 3;
    // ESTABLISHED, both FIN_WAIT, CLOSE_WAIT, LAST_ACK, LISTEN and CLOSING.
    const STATES: u32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11;
    let mut out = Vec::new();
    out.put_u32_ne(100);
    out.put_u16_ne(GETSOCK);
    out.put_u16_ne(REQUEST_DUMP);
    out.put_u32_ne(1);
    out.put_u32_ne(0);
    out.put_slice(&[0, 0, 0, if info { 2 } else { 0 }]);
    out.put_bytes(0, 48);
    out.put_u32_ne(STATES);
    out.put_u32_ne(0);
    out.put_u16_ne(24);
    out.put_u16_ne(BYTECODE);
    // At least this port, at most this port, to the end.
    for (code, yes, no) in [
        (2, 8, 24),
        (0, 0, port),
        (3, 8, 16),
        (0, 0, port),
        (1, 4, 4),
    ] {
        out.put_slice(&[code, yes]);
        out.put_u16_ne(no);
    }
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).unwrap();
    socket.bind_auto().unwrap();
    socket.send(&out, 0).unwrap();
    let mut answer = BytesMut::with_capacity(64 * 1024);
    let mut bytes = 0;
    loop {
        answer.clear();
        socket.recv(&mut answer, 0).unwrap();
        bytes += answer.len();
        // 20 bytes, the last of all.
        let last = &answer[answer.len().saturating_sub(20)..];
        if last[..4] == 20_u32.to_ne_bytes() && last[4..6] == DONE.to_ne_bytes() {
            return bytes;
        }
    }
}
