//! Answers as other kernels give them: recorded from this one, and cut to what older ones, sandboxes and policies tell.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::*;

/// Where `tcp_info` ends on some kernels: with the addition of the field that comes after.
const BEFORE_BYTES: usize = 104; // 4.0: neither bytes nor segments.
const BEFORE_SEGMENTS: usize = 136; // 4.1: bytes.

/// The kernel's message on the app's end of a connection that has brought a request, which is not answered.
async fn recorded() -> (Vec<u8>, TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (mut app, _) = listener.accept().unwrap();
    client.write_all(b"request").unwrap();
    app.read_exact(&mut [0; 7]).unwrap();
    drop(listener);
    let mut message = Vec::new();
    let states = State::Established.bit();
    ask(&BTreeSet::from([address.port()]), states, |payload| {
        message = payload.to_vec();
        Some(())
    })
    .await
    .unwrap();
    (message, client, app)
}

/// The message with so much of its `tcp_info`, and what follows of other attributes.
fn with_info(message: &[u8], length: usize) -> Vec<u8> {
    let (fixed, mut rest) = message.split_at(INET_DIAG_MSG);
    let mut out = fixed.to_vec();
    while let Some(head) = rest.get(..4) {
        let (whole, kind) = (usize::from(ne_u16(&head[..2])), ne_u16(&head[2..]));
        let content = match kind {
            INFO => &rest[4..4 + length.min(whole - 4)],
            _ => &rest[4..whole],
        };
        out.put_u16_ne(4 + content.len() as u16);
        out.put_u16_ne(kind);
        out.extend(content);
        out.resize(aligned(out.len()), 0);
        rest = rest.get(aligned(whole)..).unwrap_or_default();
    }
    out
}

#[tokio::test]
async fn a_kernel_that_counts_no_segments_tells_enough() {
    let (message, _client, _app) = recorded().await;
    let now = connection(&message).unwrap();
    assert_eq!((now.received, now.segments), (7, 1));
    let old = connection(&with_info(&message, BEFORE_SEGMENTS)).unwrap();
    assert_eq!((old.received, old.segments), (7, 0));
    assert!(old.waits(Duration::ZERO) && old.unanswered());
}

#[tokio::test]
async fn a_connection_of_which_no_bytes_are_told_is_not_taken_for_an_idle_one() {
    let (message, _client, _app) = recorded().await;
    for length in [BEFORE_BYTES, 0] {
        assert!(connection(&with_info(&message, length)).is_none());
    }
    assert!(connection(&message[..INET_DIAG_MSG]).is_none());
    // Of one that has ended, neither.
    let mut notice = message.clone();
    notice[1] = 7;
    assert_eq!(ended(&notice).unwrap().received, 7);
    for length in [BEFORE_BYTES, 0] {
        assert!(ended(&with_info(&notice, length)).is_none());
    }
    // What the kernel keeps of one that has ended never has more.
    let mut remnant = message[..INET_DIAG_MSG].to_vec();
    remnant[1] = 5;
    assert!(connection(&remnant).unwrap().is_remnant());
}

#[tokio::test]
async fn what_is_cut_off_anywhere_is_an_error_or_less_and_no_panic() {
    let (message, _client, _app) = recorded().await;
    for length in 0..message.len() {
        let _ = connection(&message[..length]);
        let _ = closed_before(&message[..length]);
    }
    let mut whole = Vec::new();
    for _ in 0..2 {
        whole.put_u32_ne((HEADER + message.len()) as u32);
        whole.put_u16_ne(TCPDIAG_GETSOCK);
        whole.put_bytes(0, HEADER - 6);
        whole.extend(&message);
    }
    assert_eq!(Messages(&whole).filter(Result::is_ok).count(), 2);
    for length in 0..whole.len() {
        let complete = Messages(&whole[..length]).filter(Result::is_ok).count();
        assert!(complete <= 1, "{length}");
        let broken = Messages(&whole[..length]).filter(Result::is_err).count();
        let at_an_end = length == 0 || length == whole.len() / 2;
        assert_eq!(broken, usize::from(!at_an_end), "{length}");
    }
    // Lengths that lead nowhere end the search.
    for length in [0_u16, 1, 3, u16::MAX] {
        let mut odd = message.clone();
        odd[INET_DIAG_MSG..INET_DIAG_MSG + 2].copy_from_slice(&length.to_ne_bytes());
        let _ = connection(&odd);
    }
}

#[test]
fn refusals_are_named_and_the_end_of_an_answer_is_none() {
    let answer = |kind: u16, code: i32| {
        let payload = code.to_ne_bytes();
        let message = Message {
            kind,
            payload: &payload,
        };
        message.kind().map(|kind| matches!(kind, Kind::Done))
    };
    // A policy, a kernel without sock_diag, gVisor.
    for code in [libc::EPERM, libc::ENOENT, libc::EPROTONOSUPPORT] {
        for kind in [NLMSG_ERROR, NLMSG_DONE] {
            match answer(kind, -code) {
                Err(Error::Refused(e)) => assert_eq!(e.raw_os_error(), Some(code)),
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(answer(NLMSG_DONE, 0).unwrap());
    assert!(answer(NLMSG_ERROR, i32::MIN).is_err(), "and no overflow");
}

#[tokio::test]
async fn notices_beyond_what_the_kernel_keeps_are_known_to_be_lost() {
    let mut notices = CloseNotices::listen().unwrap();
    notices.socket.socket_ref().set_rx_buf_sz(1_i32).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut lost = false;
    for _ in 0..100 {
        for _ in 0..50 {
            let client = TcpStream::connect(address).unwrap();
            drop(listener.accept().unwrap());
            drop(client);
        }
        // The kernel has a worker of its own for them.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let each = |notice| lost |= matches!(notice, CloseNotice::Lost);
        notices.pending(each).unwrap();
        if lost {
            break;
        }
    }
    assert!(lost);
    // The next ones come all the same.
    let client = TcpStream::connect(address).unwrap();
    drop(listener.accept().unwrap());
    drop(client);
    let mut closed = false;
    while !closed {
        let each = |notice| {
            closed |= matches!(notice, CloseNotice::Closed(of) if of.port == address.port())
        };
        notices.next(each).await.unwrap();
    }
}
