//! A metrics page that several processes of an app serve by turns, each with a count of its own.
//!
//! Workers that share a port (gunicorn, uvicorn `--workers`, Node's cluster) each answer for themselves, and who answers
//! is chance: one read says what one of them does. Such a page shows itself by what belongs to a process: its start time,
//! a label of its id, or a counter that goes down and up again.
//!
//! Once that is seen, the count is the sum of each process's last answer, and it is believed only when every process has
//! had its turn. Of n processes that answer by chance, one is left out of R rounds of reads with the chance (1 - 1/n)^R,
//! and any of the n with less than n times that, so that with R = n (5 + ln n) it is less than e^-5, or 1 in 150. Not all
//! may have been seen, so n is one more than were. For 3 workers that is 26 rounds, for 16 it is 134. A process that was
//! seen and does not answer any more may be busy with a request, and keeps the count unknown.

use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;
use std::time::Duration;

use tokio::time::Instant;

use super::exposition::{Names, Sample, Scanner};

/// Reads that are further apart than this are not of the same drain, or not of the same start.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// The most processes that are told apart; a page that changes more often than that says nothing anyway.
const MOST: usize = 256;

/// The most process ids that are kept of a page.
const MOST_IDS: usize = 64;

/// Two start times that are one second apart can be one: where the kernel's boot time is rounded, it may come out
/// differently from one read to the next.
const ROUNDING: f64 = 1.0;

/// Labels that hold the id of a process.
const ID_LABELS: [&str; 4] = ["pid", "process_id", "worker_pid", "process_pid"];

static START: LazyLock<Names> =
    LazyLock::new(|| Names::of(["process_start_time_seconds".to_owned()]));
static CPU: LazyLock<Names> = LazyLock::new(|| Names::of(["process_cpu_seconds_total".to_owned()]));

/// What a page says about the process that wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signs {
    /// When it began, in seconds since 1970.
    start: Option<f64>,
    /// The processor time it has used, in seconds: it never goes down.
    cpu: Option<f64>,
    /// The sum of the counters that were asked for: it never goes down either.
    counters: Option<f64>,
    /// The values of labels that hold the id of a process, in order.
    ids: Vec<String>,
}

impl Signs {
    /// Whether the page says anything at all about its process.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What tells the process from others; none where nothing does.
    fn key(&self) -> Option<u64> {
        if self.start.is_none() && self.ids.is_empty() {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        (self.start.map(f64::to_bits), &self.ids).hash(&mut hasher);
        Some(hasher.finish())
    }
}

/// Takes the signs from a page as it streams.
#[derive(Debug)]
pub struct SignsReader {
    signs: Signs,
    /// None after a line that cannot be read: only the wanted metrics have to be right.
    scanners: Option<[Scanner<'static>; 2]>,
}

impl SignsReader {
    /// Nothing has been read yet.
    pub fn new(open_metrics: bool) -> Self {
        Self {
            signs: Signs::default(),
            scanners: Some([
                Scanner::new(&START, open_metrics),
                Scanner::new(&CPU, open_metrics),
            ]),
        }
    }

    /// Takes the next piece of the page.
    pub fn feed(&mut self, piece: &[u8]) {
        let Some([start, cpu]) = &mut self.scanners else {
            return;
        };
        // With labels it is about other processes: of an exporter, say.
        let plain = |sample: &Sample<'_>| sample.labels.is_empty().then_some(sample.value);
        let signs = &mut self.signs;
        let read = start.feed(piece, &mut |sample| {
            signs.start = signs.start.or(plain(&sample))
        });
        let read = read.and_then(|()| {
            cpu.feed(piece, &mut |sample| {
                signs.cpu = signs.cpu.or(plain(&sample))
            })
        });
        if read.is_err() {
            self.scanners = None;
        }
    }

    /// Takes a sample of a wanted metric.
    pub fn take(&mut self, sample: &Sample<'_>) {
        if sample.name.ends_with("_total") {
            *self.signs.counters.get_or_insert(0.0) += sample.value;
        }
        for (label, value) in sample.labels {
            if ID_LABELS.contains(&label.as_str())
                && self.signs.ids.len() < MOST_IDS
                && let Err(at) = self.signs.ids.binary_search(value)
            {
                self.signs.ids.insert(at, value.clone());
            }
        }
    }

    /// What the page says.
    pub fn finish(self) -> Signs {
        self.signs
    }
}

/// The processes that have answered the reads of one source.
#[derive(Debug, Default)]
pub struct Processes {
    /// There are several: it does not become untrue.
    several: bool,
    /// The most that were told apart in one run of reads.
    known: usize,
    run: Run,
}

/// Reads without a long pause between them.
#[derive(Debug, Default)]
struct Run {
    last: Option<Instant>,
    rounds: usize,
    /// Each process: its key, its last count, and in which round it gave it.
    answers: Vec<(Option<u64>, f64, usize)>,
    /// The last counts, the newest first.
    recent: VecDeque<f64>,
    starts: Vec<f64>,
    ids: Vec<Vec<String>>,
    /// The last round of which the counters were taken.
    counted: usize,
    cpu: Falls,
    counters: Falls,
}

/// How often a counter has gone down, and how many that never go down it could be made of.
#[derive(Debug, Default)]
struct Falls {
    last: Option<f64>,
    falls: usize,
    /// The last value of each, by greed: the fewest that can be.
    tops: Vec<f64>,
}

/// What the reads so far come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Believed {
    /// This count.
    Count(f64),
    /// Nothing yet: of so many processes, so many have answered within the last rounds that are needed.
    NotYet {
        answered: usize,
        processes: usize,
        rounds: usize,
    },
}

impl Processes {
    /// Begins a round: reads that are made at once, most of which one process may answer.
    pub fn begin_round(&mut self, now: Instant) {
        let gap = self
            .run
            .last
            .map(|last| now.saturating_duration_since(last));
        if gap.is_some_and(|gap| gap > LONGEST_GAP) {
            self.run = Run::default();
        }
        self.run.last = Some(now);
        self.run.rounds += 1;
    }

    /// Takes one read of the round, and says what to believe; `enough` is the count that may end a drain.
    pub fn take(&mut self, value: f64, signs: &Signs, enough: f64) -> Believed {
        self.run.take(value, signs);
        self.several |= self.run.shows_several();
        self.known = self.known.max(self.run.answers.len());
        match self.several {
            true => self.judge(enough),
            false => Believed::Count(value),
        }
    }

    /// Whether the page comes from several processes by turns.
    pub fn are_several(&self) -> bool {
        self.several
    }

    /// How many rounds there were without a long pause.
    pub fn rounds(&self) -> usize {
        self.run.rounds
    }

    /// How many processes there are, as far as is known.
    pub fn count(&self) -> usize {
        let by_counters = self.run.cpu.tops.len().max(self.run.counters.tops.len());
        self.known.max(by_counters).clamp(2, MOST)
    }

    fn judge(&self, enough: f64) -> Believed {
        let processes = self.count();
        let needed = rounds_needed(processes);
        let oldest = self.run.rounds.saturating_sub(needed);
        let answered = (self.run.answers.iter())
            .filter(|(_, _, round)| *round > oldest)
            .count();
        let keyed = self.run.answers.iter().all(|(key, ..)| key.is_some());
        let value = match keyed {
            true => self.run.answers.iter().map(|(_, value, _)| value).sum(),
            // They cannot be told apart: the largest count of late is the least that there can be.
            false => (self.run.recent.iter().take(needed)).fold(0.0, |most: f64, &v| most.max(v)),
        };
        let complete = !keyed || (answered >= self.known && answered == self.run.answers.len());
        if value > enough || (complete && self.run.rounds >= needed) {
            Believed::Count(value)
        } else {
            Believed::NotYet {
                answered,
                processes,
                rounds: needed,
            }
        }
    }
}

/// How many rounds it takes for every one of so many processes, and one more, to have answered, but for one time in 150.
fn rounds_needed(processes: usize) -> usize {
    let n = (processes + 1) as f64;
    (n * (5.0 + n.ln())).ceil() as usize
}

impl Run {
    fn take(&mut self, value: f64, signs: &Signs) {
        let key = signs.key();
        let room = self.answers.len() < MOST;
        match self.answers.iter_mut().find(|(other, ..)| *other == key) {
            Some(answer) => *answer = (key, value, self.rounds),
            None if room => self.answers.push((key, value, self.rounds)),
            None => {}
        }
        self.recent.push_front(value);
        self.recent.truncate(rounds_needed(MOST));
        if let Some(start) = signs.start
            && self.starts.last() != Some(&start)
            && self.starts.len() < MOST
        {
            self.starts.push(start);
        }
        if !signs.ids.is_empty() && self.ids.last() != Some(&signs.ids) && self.ids.len() < MOST {
            self.ids.push(signs.ids.clone());
        }
        // Of reads that are made at once it is not known which page was written first, so that one process may seem to go
        // back in them.
        if self.counted < self.rounds {
            self.counted = self.rounds;
            self.cpu.take(signs.cpu);
            self.counters.take(signs.counters);
        }
    }

    fn shows_several(&self) -> bool {
        self.starts_alternate()
            || self.ids_alternate()
            || self.cpu.falls > 1
            || self.counters.falls > 1
    }

    /// A process that was restarted has a new start time, and the old one does not come back. Nor is it restarted twice
    /// within a few seconds.
    fn starts_alternate(&self) -> bool {
        let differ = |a: f64, b: f64| {
            let apart = (a - b).abs();
            apart > 0.0 && (apart - ROUNDING).abs() > 1e-3
        };
        let returns = self
            .starts
            .windows(3)
            .any(|three| three[0] == three[2] && differ(three[0], three[1]));
        let mut apart: Vec<f64> = self.starts.clone();
        apart.sort_by(f64::total_cmp);
        apart.dedup();
        returns || (apart.len() >= 3 && apart[apart.len() - 1] - apart[0] > ROUNDING * 1.5)
    }

    /// Ids that were gone, and all others with them, come back.
    fn ids_alternate(&self) -> bool {
        let apart = |a: &[String], b: &[String]| a.iter().all(|id| b.binary_search(id).is_err());
        (self.ids.windows(3))
            .any(|three| apart(&three[0], &three[1]) && !apart(&three[0], &three[2]))
    }
}

impl Falls {
    fn take(&mut self, value: Option<f64>) {
        let Some(value) = value.filter(|value| value.is_finite()) else {
            return;
        };
        // Sums of the same numbers in another order may differ in their last bits.
        let lowest = |value: f64| value + value.abs() * 1e-9;
        if self.last.is_some_and(|last| lowest(value) < last) {
            self.falls += 1;
        }
        self.last = Some(value);
        let room = self.tops.len() < MOST;
        let fits = (self.tops.iter_mut())
            .filter(|top| **top <= lowest(value))
            .max_by(|a, b| a.total_cmp(b));
        match fits {
            Some(top) => *top = value,
            None if room => self.tops.push(value),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn started(start: f64) -> Signs {
        Signs {
            start: Some(start),
            ..Signs::default()
        }
    }

    fn counted(cpu: f64) -> Signs {
        Signs {
            cpu: Some(cpu),
            ..Signs::default()
        }
    }

    fn ids(ids: &[&str]) -> Signs {
        Signs {
            ids: ids.iter().map(|&id| id.to_owned()).collect(),
            ..Signs::default()
        }
    }

    /// Takes these reads, ten a second.
    fn take(processes: &mut Processes, reads: impl IntoIterator<Item = (f64, Signs)>) -> Believed {
        let mut now = processes.run.last.unwrap_or_else(Instant::now);
        let mut believed = Believed::Count(0.0);
        for (value, signs) in reads {
            now += Duration::from_millis(100);
            processes.begin_round(now);
            believed = processes.take(value, &signs, 0.0);
        }
        believed
    }

    fn several(reads: impl IntoIterator<Item = Signs>) -> bool {
        let mut processes = Processes::default();
        take(&mut processes, reads.into_iter().map(|signs| (0.0, signs)));
        processes.are_several()
    }

    #[test]
    fn several_processes_show_themselves() {
        assert!(several([10.0, 10.5, 10.0].map(started)));
        assert!(several([10.0, 12.0, 14.0].map(started)));
        assert!(several([3.0, 2.0, 3.0, 2.1].map(counted)));
        assert!(several([ids(&["1"]), ids(&["2"]), ids(&["1"])]));
    }

    #[test]
    fn one_process_is_not_taken_for_several() {
        // A restart.
        assert!(!several([10.0, 10.0, 99.0, 99.0].map(started)));
        assert!(!several([5.0, 6.0, 0.1, 0.2, 7.0].map(counted)));
        // The kernel's boot time, rounded.
        assert!(!several([10.0, 11.0, 10.0, 11.0].map(started)));
        // One page of all workers, of which one is new.
        assert!(!several([
            ids(&["1", "2"]),
            ids(&["1", "2", "3"]),
            ids(&["1", "2"])
        ]));
        assert!(!several([
            Signs::default(),
            Signs::default(),
            Signs::default()
        ]));
        let mut processes = Processes::default();
        let believed = take(&mut processes, [(3.0, started(1.0)), (0.0, started(1.0))]);
        assert_eq!(believed, Believed::Count(0.0));
    }

    #[test]
    fn reads_at_once_in_whatever_order_are_one_process_still() {
        let mut processes = Processes::default();
        for round in 0..20 {
            processes.begin_round(Instant::now());
            for cpu in [0.2, 0.1] {
                processes.take(0.0, &counted(f64::from(round) + cpu), 0.0);
            }
        }
        assert!(!processes.are_several());
    }

    #[test]
    fn the_count_is_the_sum_of_what_each_process_said_last() {
        let mut processes = Processes::default();
        let reads = [
            (2.0, 10.0),
            (0.0, 20.0),
            (1.0, 10.0),
            (3.0, 30.0),
            (0.0, 20.0),
        ];
        let believed = take(
            &mut processes,
            reads.map(|(value, start)| (value, started(start))),
        );
        assert_eq!(believed, Believed::Count(4.0));
    }

    #[test]
    fn zero_is_believed_when_every_process_has_had_its_turn() {
        let worker = |n: usize| started(10.0 + 2.0 * (n % 4) as f64);
        let mut processes = Processes::default();
        take(
            &mut processes,
            (0..8).map(|n| (f64::from(u8::from(n % 4 == 3)), worker(n))),
        );
        let needed = rounds_needed(3);
        assert_eq!((needed, rounds_needed(16)), (26, 134));
        let needed = rounds_needed(4);
        let mut quiet = 0;
        while take(&mut processes, [(0.0, worker(quiet))]) != Believed::Count(0.0) {
            quiet += 1;
            assert!(quiet < 200);
        }
        assert!(processes.run.rounds >= needed, "{quiet}");
    }

    #[test]
    fn a_process_that_does_not_answer_any_more_keeps_the_count_unknown() {
        let mut processes = Processes::default();
        take(
            &mut processes,
            (0..6).map(|n| (0.0, started(10.0 + 2.0 * f64::from(n % 3)))),
        );
        let others = (0..200).map(|n| (0.0, started(10.0 + 2.0 * f64::from(n % 2))));
        let believed = take(&mut processes, others);
        assert!(
            matches!(
                believed,
                Believed::NotYet {
                    answered: 2,
                    processes: 3,
                    ..
                }
            ),
            "{believed:?}"
        );
        // In a later drain too, though it has not been seen there yet.
        processes.run.last = processes.run.last.map(|last| last - 2 * LONGEST_GAP);
        let mut now = Instant::now() + Duration::from_secs(3600);
        for n in 0..200 {
            now += Duration::from_millis(100);
            processes.begin_round(now);
            let believed = processes.take(0.0, &started(10.0 + 2.0 * f64::from(n % 2)), 0.0);
            assert!(matches!(believed, Believed::NotYet { .. }));
        }
    }

    #[test]
    fn processes_that_cannot_be_told_apart_are_as_busy_as_the_busiest_of_late() {
        let mut processes = Processes::default();
        let reads = [(0.0, 3.0), (4.0, 1.0), (0.0, 3.1), (0.0, 1.1), (0.0, 3.2)];
        let believed = take(
            &mut processes,
            reads.map(|(value, cpu)| (value, counted(cpu))),
        );
        assert_eq!((believed, processes.count()), (Believed::Count(4.0), 2));
        let quiet = (0..40).map(|n| (0.0, counted(if n % 2 == 0 { 1.2 } else { 3.3 })));
        assert_eq!(take(&mut processes, quiet), Believed::Count(0.0));
    }

    #[test]
    fn signs_are_read_from_a_page() {
        let page = b"# TYPE process_start_time_seconds gauge\nprocess_start_time_seconds 1.7e9\n\
                     process_cpu_seconds_total{x=\"y\"} 9\nprocess_cpu_seconds_total 0.5\n";
        let mut reader = SignsReader::new(false);
        for piece in page.chunks(11) {
            reader.feed(piece);
        }
        let labels = [("pid".to_owned(), "7".to_owned())];
        reader.take(&Sample {
            name: "started_total",
            labels: &labels,
            value: 3.0,
        });
        let signs = reader.finish();
        assert_eq!(
            signs,
            Signs {
                start: Some(1.7e9),
                cpu: Some(0.5),
                counters: Some(3.0),
                ids: vec!["7".to_owned()],
            }
        );
    }

    proptest! {
        #[test]
        fn workers_by_chance_are_believed_idle_only_when_all_are(
            workers in 2_usize..9,
            busy in 0_usize..9,
            turns in prop::collection::vec(0_usize..1000, 400),
        ) {
            let busy = busy % workers;
            let mut processes = Processes::default();
            let mut now = Instant::now();
            let mut seen = Vec::new();
            for turn in turns {
                let worker = turn % workers;
                now += Duration::from_millis(100);
                seen.push(worker);
                let value = f64::from(u8::from(worker == busy));
                let signs = started(10.0 + 2.0 * worker as f64);
                processes.begin_round(now);
            let believed = processes.take(value, &signs, 0.0);
                // Once the busy one has answered, nothing makes the count zero.
                if processes.are_several() && seen.contains(&busy) {
                    prop_assert_eq!(believed, Believed::Count(1.0));
                }
            }
        }
    }
}
