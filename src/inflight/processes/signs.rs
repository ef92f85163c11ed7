//! What a metrics page says about the process that wrote it.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use crate::inflight::exposition::{Names, Sample, Scanner};

/// The most process ids that are kept of a page.
const MOST_IDS: usize = 64;

/// Labels that hold the id of a process.
const ID_LABELS: [&str; 4] = ["pid", "process_id", "worker_pid", "process_pid"];

static START: LazyLock<Names> =
    LazyLock::new(|| Names::of(["process_start_time_seconds".to_owned()]));
static CPU: LazyLock<Names> = LazyLock::new(|| Names::of(["process_cpu_seconds_total".to_owned()]));

/// What a page says about the process that wrote it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Signs {
    /// When it began, in seconds since 1970.
    pub(super) start: Option<f64>,
    /// The processor time it has used, in seconds: it never goes down.
    pub(super) cpu: Option<f64>,
    /// The sum of the counters that were asked for: it never goes down either.
    pub(super) counters: Option<f64>,
    /// The values of labels that hold the id of a process, in order.
    pub(super) ids: Vec<String>,
}

impl Signs {
    /// Whether the page says anything at all about its process.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What tells the process from others; none where nothing does.
    pub(super) fn key(&self) -> Option<u64> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
