//! What is left of the requests that were in flight when routes had changed.

use std::collections::HashMap;

use crate::inflight::sockets::{Connection, INTERIM};

/// The most that a client sends at once while it takes an answer: a `PING`'s acknowledgement and two `WINDOW_UPDATE`s
/// (RFC 9113, sections 6.7 and 6.9), or a WebSocket's control frame. A request is longer, its headers being what they are.
const FRAMES: u64 = 64;

/// Connections with a request on them when routes had changed, from the first read after that on.
#[derive(Debug, Default)]
pub struct Remaining {
    requests: HashMap<u64, Request>,
    /// Numbers the reads, from the first.
    read: u64,
}

/// A request that was in flight when routes had changed, as its connection shows it.
#[derive(Debug, Clone, Copy)]
struct Request {
    /// The read that saw it last.
    read: u64,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
enum Progress {
    /// The answer has not begun; so many bytes of earlier ones had arrived.
    Unanswered { before: u64 },
    /// The answer has begun; so many bytes had come until then, in so many segments.
    Answering { received: u64, segments: u32 },
}

impl Progress {
    fn answering(seen: &Connection) -> Self {
        Progress::Answering {
            received: seen.brought(),
            segments: seen.segments,
        }
    }

    /// What has come since the answer began is a newer request: more than what a client has to say of an answer while it
    /// comes. The requests of HTTP/2 cannot be told apart, and so never are over.
    fn is_over(self, seen: &Connection) -> bool {
        let Progress::Answering { received, segments } = self else {
            return false;
        };
        let segments = seen.segments.saturating_sub(segments).max(1);
        seen.brought() > received + FRAMES * u64::from(segments)
    }
}

impl Remaining {
    /// Begins another read of the table.
    pub fn begin_read(&mut self) {
        self.read += 1;
    }

    /// A connection that this read sees, whether it is busy and whether a client waits on it.
    pub fn sees(&mut self, seen: &Connection, busy: bool, waits: bool) {
        if !busy {
            // Not seen again in this read, its request is over.
            return;
        }
        if self.read == 0 {
            let progress = if waits {
                Progress::Unanswered {
                    before: seen.answered(),
                }
            } else {
                Progress::answering(seen)
            };
            (self.requests).insert(seen.cookie, Request { read: 0, progress });
            return;
        }
        let Some(request) = self.requests.get_mut(&seen.cookie) else {
            return;
        };
        match request.progress {
            Progress::Unanswered { before } if seen.answered() > before + INTERIM => {
                request.progress = Progress::answering(seen);
            }
            Progress::Answering { .. } if request.progress.is_over(seen) => return,
            _ => {}
        }
        request.read = self.read;
    }

    /// How many are left, once the read has seen all.
    pub fn end_read(&mut self) -> u64 {
        self.requests.retain(|_, request| request.read == self.read);
        self.requests.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::super::examples::{evidence, fresh, idle, read, waiting};
    use super::*;

    #[test]
    fn a_request_in_flight_remains_until_it_ends_or_a_newer_one_comes() {
        for (told, end) in [
            ("it is gone", None),
            ("it is idle", Some(idle(1))),
            (
                "its answer came, and then more bytes",
                Some(Connection {
                    received: 200,
                    acknowledged: 300,
                    ..waiting(1, 10)
                }),
            ),
        ] {
            let mut evidence = evidence();
            let long = waiting(1, 2000);
            assert_eq!(
                read(&mut evidence, false, std::slice::from_ref(&long)).remaining,
                None
            );
            let snapshot = read(&mut evidence, true, std::slice::from_ref(&long));
            assert_eq!((snapshot.remaining, snapshot.waiting), (Some(1), 1));
            assert_eq!(
                read(&mut evidence, true, &[long, waiting(2, 5)]).remaining,
                Some(1)
            );
            let answering = Connection {
                acknowledged: 300,
                last_sent: 10,
                ..idle(1)
            };
            assert_eq!(read(&mut evidence, true, &[answering]).remaining, Some(1));
            let rest: Vec<_> = end.into_iter().collect();
            assert_eq!(
                read(&mut evidence, true, &rest).remaining,
                Some(0),
                "{told}"
            );
        }
    }

    #[test]
    fn what_a_client_says_while_it_takes_its_answer_is_no_request() {
        let mut evidence = evidence();
        read(&mut evidence, true, &[waiting(1, 2000)]);
        // A stream, and what HTTP/2 has a client say of it.
        let mut stream = Connection {
            acknowledged: 300,
            ..fresh(1)
        };
        for _ in 0..100 {
            assert_eq!(
                read(&mut evidence, true, std::slice::from_ref(&stream)).remaining,
                Some(1)
            );
            stream.received += 13 + 13 + 17;
            stream.segments += 1;
            stream.acknowledged += 1000;
        }
    }

    #[test]
    fn an_interim_answer_is_none() {
        let mut evidence = evidence();
        let upload = |received: u64, acknowledged: u64| Connection {
            received,
            acknowledged,
            ..waiting(1, 10)
        };
        read(&mut evidence, true, &[upload(200, 0)]);
        // 100 Continue, and then the body.
        for received in (1000..100_000).step_by(1000) {
            assert_eq!(
                read(&mut evidence, true, &[upload(received, 25)]).remaining,
                Some(1)
            );
        }
        // The answer, at the end of the body.
        assert_eq!(
            read(&mut evidence, true, &[upload(100_000, 225)]).remaining,
            Some(1)
        );
        assert_eq!(
            read(&mut evidence, true, &[upload(100_200, 225)]).remaining,
            Some(0)
        );
    }

    #[test]
    fn when_routes_have_not_changed_after_all_what_remained_is_forgotten() {
        let mut evidence = evidence();
        read(&mut evidence, true, &[waiting(1, 2000)]);
        assert_eq!(
            read(&mut evidence, false, &[waiting(1, 2000)]).remaining,
            None
        );
        assert_eq!(
            read(&mut evidence, true, &[waiting(2, 2000)]).remaining,
            Some(1)
        );
    }
}
