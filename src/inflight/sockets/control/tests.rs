use super::super::history::History;
use super::*;

const TRACES: &str = include_str!("traces.text");

/// The kernel's clock for sockets at 250 ticks a second, the coarsest that is in use.
const TICK: u64 = 4;
/// A client that has nothing to send acknowledges after this long (`TCP_DELACK_MIN`).
const DELAYED: u64 = 40;
/// Between two reads, in milliseconds.
const POLL: u64 = 100;
const QUIET: Duration = Duration::from_secs(1);
const MAX_QUIET: Duration = Duration::from_secs(10);
const MIN_WAIT: u64 = 5_000;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Mark {
    Request,
    Answer,
    None,
}

#[derive(Debug, Clone, Copy)]
struct Segment {
    /// In milliseconds.
    at: u64,
    from_client: bool,
    bytes: u64,
    mark: Mark,
}

#[derive(Debug)]
struct Trace {
    name: &'static str,
    segments: Vec<Segment>,
}

fn traces() -> Vec<Trace> {
    let lines = TRACES.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().unwrap();
            let segments = words.map(segment).collect();
            Trace { name, segments }
        })
        .collect()
}

fn segment(word: &str) -> Segment {
    let split = word.find(['C', 'S']).unwrap();
    let (seconds, rest) = word.split_at(split);
    let mark = match rest.chars().last() {
        Some('!') => Mark::Request,
        Some('=') => Mark::Answer,
        _ => Mark::None,
    };
    let seconds: f64 = seconds.parse().unwrap();
    Segment {
        at: (seconds * 1000.0) as u64,
        from_client: rest.starts_with('C'),
        bytes: rest[1..].trim_end_matches(['!', '=']).parse().unwrap(),
        mark,
    }
}

impl Trace {
    fn until(&self, now: u64) -> impl DoubleEndedIterator<Item = (usize, &Segment)> {
        (self.segments.iter().enumerate()).filter(move |(_, segment)| segment.at <= now)
    }

    /// A client waits for an answer.
    fn waits(&self, now: u64) -> bool {
        let marked = self
            .until(now)
            .rfind(|(_, segment)| segment.mark != Mark::None);
        marked.is_some_and(|(_, segment)| segment.mark == Mark::Request)
    }

    /// What the kernel would say at that moment.
    fn at(&self, now: u64) -> Connection {
        let tick = |at: u64| at / TICK * TICK;
        let age = |at: Option<u64>| at.map_or(u32::MAX / 2, |at| (now - tick(at)) as u32);
        let of = |client: bool| {
            self.until(now)
                .filter(move |(_, s)| s.from_client == client)
        };
        // Each of the app's segments is acknowledged by the client's next one, or after a delay.
        let mut acknowledged = 0;
        let mut unacknowledged = 0;
        let mut last_acknowledgement = 0;
        for (i, segment) in of(false) {
            let next = self.segments[i + 1..].iter().find(|next| next.from_client);
            let at = next
                .map_or(u64::MAX, |next| next.at)
                .min(segment.at + DELAYED);
            if at <= now {
                acknowledged += segment.bytes;
                last_acknowledgement = last_acknowledgement.max(at);
            } else {
                unacknowledged += segment.bytes as u32;
            }
        }
        let last = |client: bool| of(client).next_back().map(|(i, s)| (i, s.at));
        let last_client = last(true);
        // The kernel knows whether the app replied soon to what came last.
        let replied = last_client.map(|(i, at)| {
            self.segments[i + 1..]
                .iter()
                .any(|s| !s.from_client && s.at <= now && s.at < at + DELAYED)
        });
        let last_acknowledgement =
            last_client.map_or(last_acknowledgement, |(_, at)| at.max(last_acknowledgement));
        let (last_received, last_sent) = (
            age(last_client.map(|(_, at)| at)),
            age(last(false).map(|(_, at)| at)),
        );
        Connection {
            unacknowledged,
            received: of(true).map(|(_, s)| s.bytes).sum(),
            segments: of(true).count() as u32,
            acknowledged,
            segments_sent: of(false).count() as u32,
            largest_segment: of(true)
                .map(|(_, s)| s.bytes as u32)
                .max()
                .unwrap_or(0)
                .max(536),
            round_trip: Duration::from_micros(200),
            last_received,
            last_sent,
            last_acknowledgement: age(Some(last_acknowledgement)),
            replied,
            ..Connection::example(1)
        }
    }

    fn end(&self) -> u64 {
        self.segments.last().unwrap().at
    }

    /// The same with a client that answers each control frame of the app so much later, as on a loaded machine.
    fn with_late_answers(&self, delay: u64) -> Trace {
        let mut segments = self.segments.clone();
        for (before, answer) in self.segments.iter().zip(&mut segments[1..]) {
            let is_control = before.mark == Mark::None && answer.mark == Mark::None;
            let answers = answer.from_client && !before.from_client && answer.at - before.at < 100;
            if is_control && answers && answer.at > 1_000 {
                answer.at += delay;
            }
        }
        segments.sort_by_key(|segment| segment.at);
        Trace {
            name: self.name,
            segments,
        }
    }
}

/// Reads a trace as a drain does that begins then, and gives each read's time and what it says.
fn drain(trace: &Trace, began: u64, until: u64) -> Vec<(u64, Connection)> {
    let mut history = History::default();
    let first_read = tokio::time::Instant::now();
    (began..until)
        .step_by(POLL as usize)
        .map(|now| {
            let mut connection = trace.at(now);
            history.begin_read(first_read + Duration::from_millis(now - began));
            let replied = (connection.is_tied() && connection.last_received >= 500)
                .then_some(connection.replied);
            history.take(&mut connection, replied);
            history.end_read();
            (now, connection)
        })
        .collect()
}

/// A drain of a trace.
struct Drain {
    began: u64,
    reads: Vec<(u64, Connection)>,
}

impl Drain {
    /// Drains of a trace that begin at all kinds of moments, and the reads of their first 30 s.
    fn all(trace: &Trace) -> impl Iterator<Item = Drain> {
        let starts = (300..trace.end() + 4000).step_by(137);
        starts.map(|began| Drain {
            began,
            reads: drain(trace, began, began + 30_000),
        })
    }

    /// The first read after min-wait that takes the connection for idle while a client waits.
    fn loses(&self, trace: &Trace) -> Option<u64> {
        let lost = self.reads.iter().find(|(now, connection)| {
            *now >= self.began + MIN_WAIT
                && trace.waits(*now)
                && !connection.is_busy(QUIET, MAX_QUIET)
        });
        lost.map(|(now, _)| *now)
    }

    /// When the connection is first taken for idle after min-wait, in milliseconds from the beginning.
    fn idle_after(&self) -> Option<u64> {
        let idle = |(now, connection): &&(u64, Connection)| {
            *now >= self.began + MIN_WAIT && !connection.is_busy(QUIET, MAX_QUIET)
        };
        self.reads
            .iter()
            .find(idle)
            .map(|(now, _)| now - self.began)
    }

    /// The last moment at which a client waited, in milliseconds from the beginning.
    fn waited_until(&self, trace: &Trace) -> u64 {
        let waits = self.reads.iter().filter(|(now, _)| trace.waits(*now));
        waits.map(|(now, _)| now - self.began).max().unwrap_or(0)
    }
}

/// HTTP/1.1 whose client asks again at once, with short requests: for a while this has the sizes of a WebSocket that was
/// opened and pinged.
const UNDECIDED: &str = "http1-closed-loop";

#[test]
fn a_request_is_never_taken_for_a_control_frame() {
    for trace in traces().iter().filter(|trace| trace.name != UNDECIDED) {
        for drain in Drain::all(trace) {
            let (name, began) = (trace.name, drain.began);
            assert_eq!(drain.loses(trace), None, "{name} from {began}");
        }
    }
}

/// Beyond the delay of a program on a loaded machine that is allowed for a control frame.
const LATE_ANSWERS: [u64; 4] = [150, 400, 900, 1_500];

#[test]
fn a_request_beside_late_answers_to_pings_is_never_taken_for_one() {
    for trace in traces().iter().filter(|trace| trace.name != UNDECIDED) {
        for trace in LATE_ANSWERS.map(|delay| trace.with_late_answers(delay)) {
            for drain in Drain::all(&trace) {
                let (name, began) = (trace.name, drain.began);
                assert_eq!(drain.loses(&trace), None, "{name} from {began}");
            }
        }
    }
}

#[test]
fn a_late_answer_to_a_ping_is_waited_for_for_twice_max_quiet_at_most() {
    let traces = traces();
    let idle = (traces.iter())
        .filter(|trace| trace.name.contains("idle") && !trace.name.contains("-tls-"));
    for trace in idle {
        for trace in LATE_ANSWERS.map(|delay| trace.with_late_answers(delay)) {
            for drain in Drain::all(&trace) {
                // The first read can be between a ping and its late answer.
                let came = trace
                    .until(drain.began + 2_000)
                    .rfind(|(_, s)| s.from_client);
                let came = came.map_or(0, |(_, s)| s.at);
                let limit = (came + 20_000 + POLL).max(drain.began + MIN_WAIT + 3_000);
                let idle = drain.idle_after().map(|after| drain.began + after);
                assert!(
                    idle.is_some_and(|at| at <= limit),
                    "{} from {}: {idle:?}, allowed is {limit}",
                    trace.name,
                    drain.began
                );
            }
        }
    }
}

#[test]
fn what_stays_undecided_is_waited_for_for_three_quarters_of_max_quiet() {
    let traces = traces();
    let trace = traces.iter().find(|trace| trace.name == UNDECIDED).unwrap();
    // Its fourth request comes after 82 ms.
    for drain in Drain::all(trace).take_while(|drain| drain.began < 2_500) {
        let idle_at = drain.idle_after().unwrap() + drain.began;
        assert!(
            (7_580..8_000).contains(&idle_at),
            "{idle_at} from {}",
            drain.began
        );
    }
}

#[test]
fn idle_connections_hold_a_drain_for_three_seconds_beyond_min_wait_at_most() {
    for trace in &traces() {
        // Over TLS, a connection that was pinged before the drain has to be pinged again.
        let tls = trace.name.contains("-tls-");
        for drain in Drain::all(trace) {
            let pinged = trace.end() >= drain.began + POLL;
            if tls && !pinged {
                continue;
            }
            let limit = (MIN_WAIT.max(drain.waited_until(trace))) + 3_000;
            let limit = if tls {
                limit.max(trace.end() + 1_000)
            } else {
                limit
            };
            let idle = drain.idle_after();
            assert!(
                idle.is_some_and(|after| after <= limit),
                "{} from {}: {idle:?}, allowed are {limit} ms",
                trace.name,
                drain.began
            );
        }
    }
}
