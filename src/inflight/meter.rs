//! A source and what was last read from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use super::listeners::{APP_START, listening, unheard};
use super::page::PageRead;
use super::processes::{Believed, Processes};
use super::sockets::Table;
use super::source::Kind;
use super::{Error, Page, ReadContext, Source};

/// Of workers that share a port, the one that the kernel prefers answers most reads that are made one at a time, or all at
/// once: it takes what has come when it wakes up. So the reads of a round begin one after another while the first worker
/// is busy with its page, many at start, and some in a drain: in its first rounds, and in all of them once several
/// processes were seen. Only of a page that says something of its process. Of three workers of uvicorn, the one that
/// answered least was in 17 % of the rounds of one read, in 44 % of four at once, and in 89 % of four begun in turn; of
/// eight workers in 2, 17 and 15 to 30 %.
const AT_START: usize = 8;
const IN_A_DRAIN: usize = 4;
const FIRST_ROUNDS: usize = 30;
const BETWEEN_READS: Duration = Duration::from_millis(1);

/// How long the app may need for the reads of one round: fewer of a page that takes its time.
const ROUND_TIME: Duration = Duration::from_millis(100);

/// How often, and with which pause, the page is read some more at start.
const ROUNDS_AT_START: usize = 4;
const FIRST_PAUSE: Duration = Duration::from_millis(150);

/// A port that listens may belong to an app that still starts. So often in a row without an answer, it is not that.
const MOST_TIMEOUTS: usize = 6;

/// How long all that a diagnosis asks for may take.
const DIAGNOSIS_LIMIT: Duration = Duration::from_secs(5);

/// Reads that are further apart than this are not of the same drain.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// A source and what was last read from it.
#[derive(Debug)]
pub struct Meter {
    source: Source,
    context: ReadContext,
    record: Mutex<Record>,
    belief: Mutex<Belief>,
    /// The page's own port and its connections, where that is a port of this pod.
    connections: Option<(u16, Table)>,
}

/// What is known of a source.
#[derive(Debug, Clone, Default)]
pub struct Record {
    /// What was wrong at the last read that gave no count, if it was the last one.
    pub problem: Option<Arc<str>>,
    /// The last read: when it ended, and what it gave.
    pub last: Option<(Instant, ReadResult)>,
    /// Something has listened there since the start.
    pub heard: bool,
    /// It has answered since the start, or has had its time to.
    pub answered: bool,
    timeouts: usize,
}

/// What one read gave: a count, or the name of the reason why there is none.
pub type ReadResult = Result<f64, &'static str>;

/// What it takes for a count to be believed.
#[derive(Debug, Default)]
struct Belief {
    processes: Processes,
    /// Since when each read was quiet.
    quiet_since: Option<Instant>,
    /// Since when a client has waited for an answer that the page does not count.
    waited_for_since: Option<Instant>,
    last: Option<Instant>,
    /// The page says something of its process.
    has_signs: bool,
    /// How long one read takes.
    took: Duration,
    /// That several processes answer was warned about for this run of reads.
    warned: bool,
    /// Since when another port of the pod listens, while this one does not.
    others_since: Option<Instant>,
    /// The last thing that was said about a source on which nothing listens.
    said: Option<String>,
}

impl Belief {
    fn begin_round(&mut self) {
        let now = Instant::now();
        if self.is_over(now) {
            self.quiet_since = None;
            self.waited_for_since = None;
            self.warned = false;
        }
        self.last = Some(now);
        self.processes.begin_round(now);
    }

    /// Whether a read now is not of the same drain as the last one.
    fn is_over(&self, now: Instant) -> bool {
        (self.last).is_none_or(|last| now.saturating_duration_since(last) > LONGEST_GAP)
    }
}

impl Meter {
    /// A meter that has read nothing yet.
    pub fn new(source: Source, context: ReadContext) -> Self {
        let page = source.page().filter(|page| page.counts_inflight());
        let port = page.and_then(Page::local_port);
        Self {
            connections: port.map(|port| (port, Table::new([port]))),
            source,
            context,
            record: Mutex::default(),
            belief: Mutex::default(),
        }
    }

    /// The source as the user wrote it, credentials left out.
    pub fn name(&self) -> &str {
        &self.source.name
    }

    /// Whether it counts connections, and not requests.
    pub fn counts_connections(&self) -> bool {
        matches!(self.source.kind, Kind::Sockets { .. })
    }

    /// Whether it counts nothing but requests on connections, so that without a connection there is no work.
    pub fn ends_when_stuck(&self) -> bool {
        self.source.ends_when_stuck()
    }

    /// What is known now.
    pub fn record(&self) -> Record {
        self.lock().clone()
    }

    /// Reads once and records it. A reason that differs from the last one is logged.
    ///
    /// # Errors
    /// When there is no count, or it cannot be believed yet: see [`Error`].
    pub async fn read(&self) -> Result<f64, Error> {
        let read = self.read_some(self.reads_of_round(IN_A_DRAIN)).await;
        self.note(&read);
        read
    }

    /// Reads so many times in one round, and gives what is to be believed after the last.
    async fn read_some(&self, reads: usize) -> Result<f64, Error> {
        let began = Instant::now();
        let reads_in_turn = (0_u32..).take(reads).map(|n| async move {
            if n > 0 {
                sleep(n * BETWEEN_READS).await;
            }
            self.source.read(&self.context).await
        });
        let read = join_all(reads_in_turn).await;
        let took = began.elapsed() / u32::try_from(reads).unwrap_or(u32::MAX);
        self.lock_belief().took = took;
        let mut last = Err(Error::Unconfirmed(String::new()));
        self.lock_belief().begin_round();
        for read in read {
            last = self.believe(&read?);
        }
        self.ask_kernel(last?).await
    }

    /// Of a page that one process of several may have written, a count that may end a drain is not believed while the
    /// kernel knows of clients that wait on the page's own port: another process may have their requests.
    ///
    /// Where several processes are known there are as many requests as clients that wait. On a machine that is busy the
    /// kernel may pass over one of three workers for 20 s (seen with uvicorn). Where one process is known, it is a request
    /// that the app has not counted yet, or does not count, such as a long poll: that is waited for for max-quiet at most.
    async fn ask_kernel(&self, count: f64) -> Result<f64, Error> {
        let (has_signs, several) = {
            let belief = self.lock_belief();
            (belief.has_signs, belief.processes.are_several())
        };
        // On an app port a client that was never answered holds up the drain by a rule of its own.
        let table = (self.connections.as_ref())
            .filter(|_| has_signs && count <= self.context.max_inflight)
            .filter(|(port, _)| several || !self.context.is_watched(*port));
        let waiting = match table {
            Some((_, table)) => self.waiting_clients(table, several).await,
            None => 0,
        };
        if several {
            return Ok(count.max(waiting as f64));
        }
        let mut belief = self.lock_belief();
        if waiting == 0 {
            belief.waited_for_since = None;
            return Ok(count);
        }
        let now = Instant::now();
        let since = *belief.waited_for_since.get_or_insert(now);
        match now.saturating_duration_since(since) >= self.context.max_quiet {
            true => Ok(count),
            false => Err(Error::Unconfirmed(format!(
                "the page counts {count} requests, but clients wait for a first answer on its port: {waiting}"
            ))),
        }
    }

    /// How many clients wait for an answer on the page's port; where one process is known, only those that were never
    /// answered.
    async fn waiting_clients(&self, table: &Table, several: bool) -> u64 {
        let mut waiting = 0;
        let read = table
            .each(|connection| {
                let waits = match several {
                    true => connection.waits(self.context.max_quiet),
                    false => connection.unanswered(),
                };
                let ours = || self.context.client.own_sockets().contains(connection.peer);
                let open = !connection.state.app_closed();
                waiting += u64::from(waits && open && connection.brought() > 0 && !ours());
            })
            .await;
        // Where the kernel cannot be asked, the page alone must do.
        read.map_or(0, |_| waiting)
    }

    /// How many reads to make in one round, of so many at most.
    fn reads_of_round(&self, most: usize) -> usize {
        let belief = self.lock_belief();
        if !belief.has_signs || belief.is_over(Instant::now()) {
            return 1;
        }
        let several = belief.processes.are_several();
        let fast = ROUND_TIME.as_secs_f64() / belief.took.as_secs_f64().max(1e-4);
        match several || belief.processes.rounds() < FIRST_ROUNDS {
            true => most.min((fast as usize).max(1 + usize::from(several))),
            false => 1,
        }
    }

    /// Records a read and logs what is new about it.
    fn note(&self, read: &Result<f64, Error>) {
        let reading = read.as_ref().copied().map_err(Error::kind);
        let before = {
            let mut record = self.lock();
            record.heard |= !matches!(reading, Err("refused" | "unreachable"));
            record.timeouts += usize::from(reading == Err("timeout"));
            record.answered |=
                record.heard && (reading != Err("timeout") || record.timeouts >= MOST_TIMEOUTS);
            record.problem = read.as_ref().err().map(|e| e.to_string().into());
            record
                .last
                .replace((Instant::now(), reading))
                .map(|(_, reading)| reading)
        };
        match (read, before) {
            // An app takes its time to start, and to stop; that is no news.
            (Err(e), before) if e.is_absent() && before != Some(Err("refused")) => {
                let when = if before.is_none() { "yet" } else { "any more" };
                info!(source = self.name(), "not listening {when}: {e}");
            }
            // A drain of such a source begins so.
            (Err(e @ Error::Unconfirmed(_)), before) if before != Some(Err(e.kind())) => {
                debug!(source = self.name(), "{e}");
            }
            (Err(e), before) if before != Some(Err(e.kind())) => {
                warn!(source = self.name(), result = e.kind(), "unreadable: {e}");
            }
            (Ok(_), Some(Err("unconfirmed"))) => {}
            (Ok(inflight), Some(Err(_))) => info!(source = self.name(), inflight, "readable"),
            _ => {}
        }
    }

    /// The count of a read, if it can be believed.
    fn believe(&self, read: &PageRead) -> Result<f64, Error> {
        let (now, enough) = (Instant::now(), self.context.max_inflight);
        let mut belief = self.lock_belief();
        belief.has_signs |= !read.signs.is_empty();
        let believed = belief.processes.take(read.value, &read.signs, enough);
        if belief.processes.are_several() && !belief.warned {
            belief.warned = true;
            warn!(source = self.name(), "{}", self.several(&belief.processes));
        }
        let count = match believed {
            Believed::Count(count) => count,
            Believed::NotYet {
                answered,
                processes,
            } => {
                return Err(Error::Unconfirmed(format!(
                    "several processes answer by turns, each with a count of its own: {answered} of at least {processes} \
                     have answered often enough, and lately"
                )));
            }
        };
        let lag = self
            .source
            .preset
            .map_or(Duration::ZERO, |preset| preset.lag);
        if count > enough {
            belief.quiet_since = None;
            return Ok(count);
        }
        let since = *belief.quiet_since.get_or_insert(now);
        match now.saturating_duration_since(since) >= lag {
            true => Ok(count),
            false => Err(Error::Unconfirmed(format!(
                "the page's counts may be {} old, and it has not been quiet for as long",
                humantime::format_duration(lag)
            ))),
        }
    }

    /// What to say of a page that several processes serve by turns.
    fn several(&self, processes: &Processes) -> String {
        format!(
            "{} or more processes answer by turns, each with a count of its own; until each has answered that it is idle, the \
             app counts as busy. Serve one page for all of them (Python: PROMETHEUS_MULTIPROC_DIR, Node: AggregatorRegistry), \
             or write --app-port alone",
            processes.count()
        )
    }

    /// Reads for the first time, looks into what is wrong, and says what to write instead.
    ///
    /// # Errors
    /// When there is no count: see [`Error`].
    pub async fn check(&self) -> Result<f64, Error> {
        let first = self.source.read(&self.context).await;
        let has_signs = first.as_ref().is_ok_and(|read| !read.signs.is_empty());
        self.lock_belief().begin_round();
        let read = first.map(|read| {
            // At start a count need not be believed: it only has to be there.
            let _ = self.believe(&read);
            read.value
        });
        self.note(&read);
        match &read {
            Ok(_) if has_signs => self.look_for_processes().await,
            Ok(_) => {}
            Err(e) => self.explain(e).await,
        }
        read
    }

    /// Reads some more, to see whether other processes answer too.
    async fn look_for_processes(&self) {
        for _ in 0..ROUNDS_AT_START {
            sleep(FIRST_PAUSE).await;
            // What comes of it is known afterwards.
            let _ = self.read_some(self.reads_of_round(AT_START)).await;
        }
        let belief = self.lock_belief();
        if belief.processes.are_several() {
            self.lock().problem = Some(self.several(&belief.processes).into());
        }
    }

    /// Looks into an error, and warns of what it finds.
    async fn explain(&self, e: &Error) {
        let found = match &self.source.kind {
            Kind::Page(page) => {
                let diagnosis = page.diagnose(&self.context.client, e);
                timeout(DIAGNOSIS_LIMIT, diagnosis).await.ok().flatten()
            }
            Kind::Sockets { .. } => None,
        };
        let found = match found {
            None if e.is_absent() => self.other_listeners().await,
            found => found,
        };
        let Some(found) = found else { return };
        let is_new = {
            let mut belief = self.lock_belief();
            belief.said.replace(found.clone()).as_ref() != Some(&found)
        };
        if is_new {
            warn!(source = self.name(), "{found}");
        }
        self.lock().problem = Some(format!("{e}; {found}").into());
    }

    /// What to say where nothing listens on the source's port, and another port of the pod has a listener for so long
    /// that the app should be up.
    async fn other_listeners(&self) -> Option<String> {
        let ports = self.source.local_ports();
        if ports.is_empty() {
            return None;
        }
        let others = listening().await.ok()?;
        if others.is_empty() || ports.iter().any(|port| others.contains(port)) {
            return None;
        }
        let now = Instant::now();
        let since = {
            let mut belief = self.lock_belief();
            *belief.others_since.get_or_insert(now)
        };
        (now.saturating_duration_since(since) >= APP_START)
            .then(|| unheard(&ports, &others))
            .flatten()
    }

    fn lock_belief(&self) -> MutexGuard<'_, Belief> {
        self.belief.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
