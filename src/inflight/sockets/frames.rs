//! Control frames of WebSocket and HTTP/2, told apart from requests by how many bytes came and went.
//!
//! The kernel counts the bytes and the segments of a connection. It does not keep the bytes themselves. A control frame
//! has a size that its protocol gives it, and it comes in an order that its protocol gives it:
//!
//! - A WebSocket's pong has the payload of its ping. A client masks what it sends, which takes 4 bytes more (RFC 6455,
//!   sections 5.2, 5.5.2 and 5.5.3). A control frame has a payload of at most 125 bytes.
//! - HTTP/2's PING and its acknowledgement have 17 bytes each (RFC 9113, section 6.7).
//! - Engine.IO, below Socket.IO, pings in messages of one character, `2` and `3` (Engine.IO protocol 4, section
//!   heartbeat): 3 bytes from the server and 7 from the client, 2 more where the message is compressed (RFC 7692).
//! - TLS adds the same to each record of both directions.
//!
//! A request can have the size of a control frame: a GET of HTTP/2 whose fields are all indexed has 13 bytes. So one
//! frame alone proves nothing, and only an exchange does: as many segments one way as the other, and of these sizes.

/// The longest control frame of a WebSocket from a server: a head of 2 bytes and a payload of 125.
const LONGEST_CONTROL: u64 = 2 + 125;

/// The same where the payload has no more than 8 bytes, as the pings of all servers known to us have, over TLS 1.3.
const USUAL_PING: u64 = 2 + 8 + 22;

/// What a mask adds to a WebSocket frame from a client.
const MASK: u64 = 4;

/// What TLS adds to a record: a head of 5 bytes and a tag of 16; the kind of content in TLS 1.3 (RFC 8446, section 5.2)
/// or an explicit nonce of 8 in TLS 1.2 with AES-GCM (RFC 5288). None without TLS.
const TLS: [u64; 4] = [0, 21, 22, 29];

/// Engine.IO's ping from a server and pong from a client, with and without compression.
const ENGINE_IO: ([u64; 2], [u64; 2]) = ([3, 5], [7, 9]);

/// What HTTP/2 begins with, before any request: the client's preface (RFC 9113, section 3.4), the head of a frame, one
/// entry of SETTINGS and a WINDOW_UPDATE.
const PREFACE: u64 = 24;
const HEAD: u64 = 9;
const SETTING: u64 = 6;
const WINDOW_UPDATE: u64 = 13;

/// A PING or its acknowledgement, and a GOAWAY that says no more than it has to (RFC 9113, sections 6.7 and 6.8).
const PING: u64 = HEAD + 8;
const GOAWAY: u64 = HEAD + 8;

/// No client or server known to us announces more settings than this.
const MOST_SETTINGS: u64 = 8;

/// The fewest bytes of two requests of HTTP/1.1: `GET / HTTP/1.1`, a `Host` of one character, and line ends.
const TWO_REQUESTS: u64 = 2 * 27;

/// The most bytes of a control frame and what its protocol sends along with it, without TLS.
const SMALL: u64 = 24;

/// The most bytes that a server answers with when a WebSocket is opened, and greets with (`101 Switching Protocols` with
/// its header fields, and Engine.IO's opening packet), without TLS.
const LONGEST_OPENING: u64 = 536;

/// What the kernel has counted of one connection, from its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Bytes of the client's that came.
    pub received: u64,
    /// Bytes of the app's that were acknowledged.
    pub acknowledged: u64,
    /// Segments in which the client's bytes came.
    pub segments_received: u32,
    /// Segments in which the app's bytes went, those sent twice included.
    pub segments_sent: u32,
}

impl Totals {
    /// What was added since an earlier moment.
    pub fn since(&self, before: &Totals) -> Totals {
        Totals {
            received: self.received.saturating_sub(before.received),
            acknowledged: self.acknowledged.saturating_sub(before.acknowledged),
            segments_received: (self.segments_received).saturating_sub(before.segments_received),
            segments_sent: self.segments_sent.saturating_sub(before.segments_sent),
        }
    }

    /// All of it is control frames that were answered: pings and pongs, one for one.
    ///
    /// Several exchanges of one kind in a row are seen as one, as their sums have the same form.
    pub fn is_control(&self) -> bool {
        let exchanges = u64::from(self.segments_received);
        // More than 4 GiB are no control frames, and what is added to them below would not fit.
        let is_more = self.received.max(self.acknowledged) >= u64::from(u32::MAX);
        if exchanges == 0 || self.segments_received != self.segments_sent || is_more {
            return false;
        }
        TLS.iter().any(|tls| {
            let (Some(from_client), Some(from_app)) = (
                self.received.checked_sub(tls * exchanges),
                self.acknowledged.checked_sub(tls * exchanges),
            ) else {
                return false;
            };
            let short = from_app >= 2 * exchanges && from_app <= LONGEST_CONTROL * exchanges;
            let http2 = from_client == from_app && from_app == PING * exchanges;
            let websocket = from_client == from_app + MASK * exchanges;
            let (pings, pongs) = ENGINE_IO;
            let engine_io = pings.iter().any(|ping| from_app == ping * exchanges)
                && pongs.iter().any(|pong| from_client == pong * exchanges);
            short && (http2 || websocket || engine_io)
        })
    }

    /// The app alone has sent something, and it can be a ping of the size that pings usually have.
    pub fn may_be_ping(&self) -> bool {
        self.segments_received == 0 && self.segments_sent == 1 && self.acknowledged <= USUAL_PING
    }

    /// The client alone has sent something, and it can be the answer to such a ping.
    pub fn may_be_pong(&self) -> bool {
        self.segments_sent == 0 && self.segments_received == 1 && self.received <= USUAL_PING + MASK
    }

    /// The app has sent nothing but what HTTP/2 sends of itself while a request comes: acknowledgements of PING, its own
    /// PING, a WINDOW_UPDATE. Several segments came, as they do then. It is no answer.
    pub fn is_unanswered_http2(&self) -> bool {
        let without_answer = [
            PING,
            PING + WINDOW_UPDATE,
            2 * PING,
            2 * PING + WINDOW_UPDATE,
        ];
        self.segments_received >= 2
            && self.received > self.acknowledged
            && without_answer.contains(&self.acknowledged)
    }

    /// What is known of a connection on which there may have been nothing but HTTP/2's first frames. None where there
    /// has been more.
    pub fn opening(&self) -> Option<Opening> {
        let client = self.received.checked_sub(PREFACE + HEAD)?;
        let app = self.acknowledged.checked_sub(HEAD)?;
        (first_frames(client) && first_frames(app)).then_some(if self.received < TWO_REQUESTS {
            Opening::Unused
        } else {
            Opening::Unclear
        })
    }

    /// Whether the client's last segment can have been a control frame, as far as the totals tell: without the largest
    /// segment, which was the request that opened the connection, the others are small on average.
    pub fn may_end_in_control(&self, largest: u32) -> bool {
        let others = u64::from(self.segments_received.saturating_sub(1));
        others > 0 && self.received <= u64::from(largest) + SMALL * others
    }

    /// The same where the app has sent little too: all can be the opening of a WebSocket and pings.
    pub fn may_be_pings_alone(&self, largest: u32) -> bool {
        let others = u64::from(self.segments_sent.saturating_sub(1));
        self.may_end_in_control(largest) && self.acknowledged <= LONGEST_OPENING + SMALL * others
    }
}

/// A connection that looks like HTTP/2 which was opened and not used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// It has too few bytes for any request after an answered one.
    Unused,
    /// A first request of the same size is possible, though rare.
    Unclear,
}

/// Whether so many bytes, beyond the preface and the head of the first SETTINGS, can be entries of SETTINGS, one
/// WINDOW_UPDATE and the acknowledgement of the other end's SETTINGS.
fn first_frames(bytes: u64) -> bool {
    [0, HEAD, WINDOW_UPDATE, HEAD + WINDOW_UPDATE]
        .iter()
        .filter_map(|frames| bytes.checked_sub(*frames))
        .any(|settings| settings % SETTING == 0 && settings / SETTING <= MOST_SETTINGS)
}

/// Whether so many bytes of a client, right after bytes of the app, can be frames of HTTP/2 that only follow what the
/// app has sent: an acknowledgement of SETTINGS, a WINDOW_UPDATE or two, a PING's acknowledgement.
pub fn follows_the_app(bytes: u64) -> bool {
    [HEAD, WINDOW_UPDATE, PING, 2 * WINDOW_UPDATE].contains(&bytes)
}

/// Whether so many bytes of a client can be all that it sends before it leaves because the app said GOAWAY: its own
/// GOAWAY (RFC 9113, section 6.8), the acknowledgement of the PING by which the app learns that its GOAWAY has arrived,
/// and what follows the app's last answer.
pub fn is_farewell(bytes: u64) -> bool {
    follows_the_app(bytes)
        || [
            PING + GOAWAY,
            WINDOW_UPDATE + PING,
            WINDOW_UPDATE + PING + GOAWAY,
        ]
        .contains(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(
        received: u64,
        segments_received: u32,
        acknowledged: u64,
        segments_sent: u32,
    ) -> Totals {
        Totals {
            received,
            acknowledged,
            segments_received,
            segments_sent,
        }
    }

    #[test]
    fn pings_and_their_answers_are_control_frames() {
        for (received, acknowledged) in [
            (6, 2),     // A WebSocket's empty ping and the client's pong.
            (10, 6),    // With a payload of 4.
            (131, 127), // With the longest payload.
            (7, 3),     // Engine.IO.
            (7, 5),     // Its ping compressed.
            (17, 17),   // HTTP/2.
            (32, 28),   // A WebSocket over TLS 1.3.
            (39, 39),   // HTTP/2 over TLS 1.3.
        ] {
            assert!(
                totals(received, 1, acknowledged, 1).is_control(),
                "{received}"
            );
            let three = totals(3 * received, 3, 3 * acknowledged, 3);
            assert!(three.is_control(), "three of {received}");
        }
    }

    #[test]
    fn requests_and_what_was_not_answered_are_no_control_frames() {
        for (added, why) in [
            (
                totals(17, 1, 0, 0),
                "a ping, or a short GET, that nothing has answered",
            ),
            (totals(0, 0, 3, 1), "a ping without its pong"),
            (totals(18, 1, 33, 3), "a GET of HTTP/2 and its answer"),
            (totals(86, 1, 40, 1), "a request of HTTP/1.1"),
            (totals(80, 1, 66, 1), "a call of gRPC"),
            (totals(22, 1, 13, 1), "a message and its answer"),
            (totals(17, 2, 17, 1), "two segments for one"),
            (totals(0, 0, 0, 0), "nothing"),
        ] {
            assert!(!added.is_control(), "{why}");
        }
    }

    #[test]
    fn http2_that_was_opened_and_not_used_is_known_by_its_first_frames() {
        for (received, acknowledged, opening) in [
            (42, 24, Some(Opening::Unused)), // Empty SETTINGS and an acknowledgement; grpc-go, Node.
            (42, 60, Some(Opening::Unused)),
            (91, 55, Some(Opening::Unclear)), // gRPC's C core.
            (71, 60, None),                   // Node's first GET.
            (344, 55, None),                  // A first call of gRPC.
            (86, 40, None),                   // HTTP/1.1.
            (20, 24, None),
        ] {
            assert_eq!(
                totals(received, 2, acknowledged, 2).opening(),
                opening,
                "{received}"
            );
        }
    }

    #[test]
    fn what_http2_sends_of_itself_is_no_answer() {
        assert!(
            totals(270, 2, 17, 1).is_unanswered_http2(),
            "a call, and the server's PING"
        );
        assert!(
            totals(53, 2, 30, 1).is_unanswered_http2(),
            "with a WINDOW_UPDATE"
        );
        assert!(
            !totals(17, 1, 17, 1).is_unanswered_http2(),
            "a PING and its acknowledgement"
        );
        assert!(
            !totals(300, 2, 172, 2).is_unanswered_http2(),
            "a call and its answer"
        );
    }

    #[test]
    fn a_farewell_is_shorter_than_a_call() {
        for bytes in [17, 34, 30, 47] {
            assert!(is_farewell(bytes), "{bytes}");
        }
        for call in [40, 71, 80, 253] {
            assert!(!is_farewell(call), "{call}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_sizes_are_too_odd(a: [u64; 4], b: [u64; 4]) {
            let of = |n: [u64; 4]| totals(n[0], n[1] as u32, n[2], n[3] as u32);
            let added = of(a).since(&of(b));
            let _ = (added.is_control(), added.opening(), added.may_end_in_control(b[0] as u32));
            let _ = added.is_unanswered_http2();
        }
    }
}
