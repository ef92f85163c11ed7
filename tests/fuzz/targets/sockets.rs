//! No bytes that netlink may send make the reading of the socket table panic, and no connection is made up.
//!
//! The input is the length of a first answer, of two bytes, and two answers, the second being a later read of the table.

#![no_main]

use gracekeeper::inflight::sockets::judged_of;
use libfuzzer_sys::fuzz_target;

/// A message's header and an `inet_diag_msg`: less cannot be a socket.
const LEAST: usize = 16 + 72;

fuzz_target!(|input: &[u8]| {
    let Some((length, answers)) = input.split_first_chunk() else {
        return;
    };
    let first = usize::from(u16::from_le_bytes(*length)).min(answers.len());
    let (first, second) = answers.split_at(first);
    for read in [&[first][..], &[second], &[first, second], &[first, first]] {
        if let Ok((sockets, busy)) = judged_of(read) {
            let bytes: usize = read.iter().map(|answer| answer.len()).sum();
            assert!(busy <= sockets && sockets * LEAST <= bytes);
        }
    }
});
