//! The task that watches the app's ports.
//!
//! It sleeps until a drain begins; then the kernel's notices of connections that end tell it of each that came and went
//! between two reads of the table, so nothing is missed. It goes on reading once the hook has been answered, until the
//! app must be gone: what a connection was like shortly before it ended tells better than its end whether a client
//! waited.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::evidence::Evidence;
use super::listeners::Listeners;
use super::{IsOwnSocket, KubeletAddresses, Message, Settings, TrafficCounts};
use crate::drain::{TrafficSnapshot, Visitors, pause};
use crate::inflight::sockets::{
    CloseNotice, CloseNotices, Connection, Error, RecentlyClosed, Table,
};

/// The longest that one read of the table may take.
const READ_LIMIT: Duration = Duration::from_secs(2);

/// The kernel leaves its notices to a worker of its own, which may be behind by this much on a loaded machine.
const NOTICE_LAG: Duration = Duration::from_millis(800);

/// How often to see whether a notice that is late has come.
const NOTICE_PAUSE: Duration = Duration::from_millis(20);

/// Watches. Made by [`super::new`], driven by [`Watcher::run`].
pub struct Watcher {
    table: Table,
    settings: Settings,
    is_own: IsOwnSocket,
    kubelet: KubeletAddresses,
    messages: mpsc::UnboundedReceiver<Message>,
    counts: watch::Sender<TrafficCounts>,
    visitors: watch::Sender<Arc<Visitors>>,
    /// It was said that nothing can be watched.
    warned: bool,
    /// When the drain began whose notices have ended: it is watched no more.
    abandoned: Option<Instant>,
}

/// What a watch holds while it runs.
struct Watch {
    notices: CloseNotices,
    evidence: Evidence,
    /// What listened when the drain began.
    listeners: Listeners,
    /// When to read the table without being asked.
    next_read: Option<Instant>,
    /// When the app is dead, and nothing is left to see.
    killed_by: Option<Instant>,
    /// Arrivals of the drains before this one.
    arrivals_before: u64,
}

/// Why a look has seen nothing.
#[derive(Debug)]
enum Missed {
    /// No port is known, or the watch has ended before.
    Unwatched,
    /// The kernel does not show it, or its answer makes no sense.
    Failed(Error),
    /// The machine was too slow.
    Late,
    /// The notices have ended: who comes and goes would not be seen any more.
    Deaf(Error),
}

impl Missed {
    /// For how long, from the beginning of a drain, it is tried again. One bad read says nothing about routes: a drain that
    /// went by time alone from then on would end while requests still arrive.
    fn tried_again(&self, max_quiet: Duration) -> Duration {
        match self {
            Missed::Unwatched | Missed::Deaf(_) | Missed::Failed(Error::Refused(_)) => {
                Duration::ZERO
            }
            Missed::Failed(Error::Broken(_)) => READ_LIMIT.min(max_quiet),
            Missed::Late => max_quiet,
        }
    }
}

impl Watcher {
    /// Watches nothing yet.
    pub(super) fn new(
        settings: Settings,
        is_own: IsOwnSocket,
        kubelet: KubeletAddresses,
        messages: mpsc::UnboundedReceiver<Message>,
        counts: watch::Sender<TrafficCounts>,
        visitors: watch::Sender<Arc<Visitors>>,
    ) -> Self {
        Self {
            table: Table::new(settings.ports.iter().copied()),
            settings,
            is_own,
            kubelet,
            messages,
            counts,
            visitors,
            warned: false,
            abandoned: None,
        }
    }

    /// Watches each drain, until nothing can ask any more.
    pub async fn run(mut self) {
        // Said at start, before it matters.
        if let Err(e) = CloseNotices::listen() {
            self.refused(&e);
        }
        let mut watch: Option<Watch> = None;
        loop {
            let next_read = watch.as_ref().and_then(|watch| watch.next_read);
            tokio::select! {
                biased;
                message = self.messages.recv() => match message {
                    Some(message) => self.take_message(&mut watch, message).await,
                    None => return,
                },
                () = until(next_read) => {
                    if let Some(of) = &mut watch {
                        let began = Instant::now();
                        let seen = self.read(of, None).await;
                        of.read_after(pause(began.elapsed(), self.settings.poll_interval));
                        if let Err(Missed::Deaf(e)) = seen {
                            self.abandon(&mut watch, &e);
                        }
                    }
                    self.show(watch.as_mut());
                    self.show_visitors(watch.as_mut());
                }
                taken = next_notices(&mut watch, &self.is_own, &self.kubelet) => {
                    if let Err(e) = taken {
                        self.abandon(&mut watch, &e);
                    }
                    // Before that, the drain itself reads often enough.
                    if watch.as_ref().is_some_and(|watch| watch.killed_by.is_some()) {
                        self.show(watch.as_mut());
                    }
                }
            }
        }
    }

    /// Does what is asked.
    async fn take_message(&mut self, watch: &mut Option<Watch>, message: Message) {
        match message {
            Message::Read {
                began,
                routes_changed,
                reply,
            } => {
                let snapshot = loop {
                    match self.look(watch, began, routes_changed).await {
                        Ok(snapshot) => break Some(snapshot),
                        Err(missed) if self.gives_up(watch, began, &missed, &reply) => break None,
                        Err(_) => sleep(self.settings.poll_interval).await,
                    }
                };
                self.show(watch.as_mut());
                let visitors = self.show_visitors(watch.as_mut());
                let _ = reply.send(snapshot.map(|snapshot| TrafficSnapshot {
                    visitors,
                    ..snapshot
                }));
            }
            Message::HookAnswered { killed_by, gone } => {
                if let Some(watch) = watch {
                    let _ = watch.take_notices(&self.is_own, &self.kubelet);
                    watch.evidence.hook_answered(gone);
                    watch.killed_by = Some(killed_by);
                    watch.read_after(self.settings.poll_interval);
                }
            }
            Message::FinalCounts { ending, reply } => {
                if let Some(watch) = watch {
                    self.final_counts(watch, ending).await;
                }
                let _ = reply.send(*self.counts.borrow());
            }
            Message::Probes(probes) => {
                if let Some(watch) = watch {
                    watch.evidence.set_probes(probes);
                }
            }
            Message::Stop => {
                *watch = None;
                if let Some(auto) = &self.settings.auto {
                    auto.serving();
                }
            }
        }
    }

    /// Reads the traffic of the drain that began then, and begins the watch of it where that is not what is watched
    /// already.
    async fn look(
        &mut self,
        watch: &mut Option<Watch>,
        began: Instant,
        routes_changed: Option<Instant>,
    ) -> Result<TrafficSnapshot, Missed> {
        let watch = match watch {
            Some(watch) if watch.evidence.began() == began => watch,
            other => {
                // What the drain before cut off is not forgotten over this one.
                if let Some(mut before) = other.take() {
                    self.final_counts(&mut before, false).await;
                }
                other.insert(self.begin(began).await?)
            }
        };
        self.read(watch, routes_changed).await
    }

    fn show(&self, watch: Option<&mut Watch>) {
        let Some(watch) = watch else { return };
        let (arrivals, cut) = (watch.evidence.arrivals(), watch.evidence.cut());
        self.counts.send_modify(|counts| {
            // What turns out to be a monitor's is no arrival any more.
            counts.arrivals_total = watch.arrivals_before + arrivals;
            counts.cut_total += cut.saturating_sub(counts.cut);
            (counts.arrivals, counts.cut) = (arrivals, cut);
        });
    }

    /// Shows who calls, as of the last read.
    fn show_visitors(&self, watch: Option<&mut Watch>) -> Arc<Visitors> {
        let visitors = watch.map(|watch| watch.evidence.visitors(Instant::now()));
        let visitors = Arc::new(visitors.unwrap_or_default());
        self.visitors.send_replace(visitors.clone());
        visitors
    }

    /// The settings with the ports that are found now, which are kept while the drain runs.
    async fn find_ports(&mut self) -> Result<Settings, Missed> {
        let mut settings = self.settings.clone();
        let Some(auto) = &settings.auto else {
            return Ok(settings);
        };
        let is_known = auto.found().is_some();
        let found = timeout(READ_LIMIT, auto.drain_begins()).await;
        match found
            .map_err(|_| Missed::Late)
            .and_then(|found| found.map_err(Missed::Failed))
        {
            Ok(found) => {
                if !is_known {
                    info!(ports = ?found, "the ports on which the pod listens");
                }
                settings.ports.extend(found.iter());
                self.table = Table::new(settings.ports.iter().copied());
            }
            Err(missed) if settings.ports.is_empty() => return Err(missed),
            // Those that were given by number are watched all the same.
            Err(Missed::Failed(e)) => {
                warn!("the ports on which the pod listens cannot be read: {e}")
            }
            Err(_) => warn!("the ports on which the pod listens cannot be read in time"),
        }
        Ok(settings)
    }

    /// Begins to watch: first the notices, then the connections that exist already, so that none falls between the two.
    async fn begin(&mut self, began: Instant) -> Result<Watch, Missed> {
        self.counts
            .send_modify(|counts| (counts.arrivals, counts.cut) = (0, 0));
        if self.abandoned == Some(began) {
            return Err(Missed::Unwatched);
        }
        let settings = self.find_ports().await?;
        if settings.ports.is_empty() {
            return Err(Missed::Unwatched);
        }
        let mut evidence = Evidence::new(began, settings);
        let begin = async {
            let mut notices = CloseNotices::listen()?;
            let mut connections = 0_u32;
            let each = |seen| {
                evidence.existed_before(&seen);
                connections += 1;
            };
            let listeners = Listeners::new(&self.table.each(each).await?);
            // What closed meanwhile existed before too, or has come and gone in this moment.
            notices.pending(|notice| {
                if let CloseNotice::Closed(closed) = notice {
                    evidence.ignore(&closed);
                }
            })?;
            // Who keeps a beat shows in what the kernel remembers of the last minute.
            let now = Instant::now();
            let mut closed_before = 0_u32;
            let remember = |closed: RecentlyClosed| {
                if !(self.is_own)(closed.peer) {
                    evidence.remember(&closed, now);
                    closed_before += 1;
                }
            };
            self.table.recently_closed(remember).await?;
            debug!(connections, closed_before, "watching the traffic");
            Ok::<_, Error>((notices, listeners))
        };
        let begun = timeout(READ_LIMIT, begin).await.map_err(|_| Missed::Late)?;
        let (notices, listeners) = begun.map_err(Missed::Failed)?;
        self.counts.send_modify(|counts| counts.refused = false);
        Ok(Watch {
            notices,
            evidence,
            listeners,
            next_read: None,
            killed_by: None,
            arrivals_before: self.counts.borrow().arrivals_total,
        })
    }

    /// Whether to do without a look at the drain that began then. Says why, unless a watch of it goes on.
    fn gives_up<T>(
        &mut self,
        watch: &mut Option<Watch>,
        began: Instant,
        missed: &Missed,
        reply: &oneshot::Sender<T>,
    ) -> bool {
        debug!("the traffic could not be read: {missed:?}");
        let until = began + missed.tried_again(self.settings.max_quiet);
        if Instant::now() < until && !reply.is_closed() {
            return false;
        }
        match missed {
            Missed::Deaf(e) => self.abandon(watch, e),
            Missed::Failed(e) if watch.is_none() => self.refused(e),
            Missed::Late if watch.is_none() && !self.counts.borrow().refused => {
                self.counts.send_modify(|counts| counts.refused = true);
                warn!(
                    "the kernel's socket table could not be read in time, so that min-wait and the quiet period have to do"
                );
            }
            _ => {}
        }
        true
    }

    /// Ends a watch that would not see any more who comes and goes.
    fn abandon(&mut self, watch: &mut Option<Watch>, e: &Error) {
        warn!("the kernel's notices have ended, and with them the watch on traffic: {e}");
        self.abandoned = watch.take().map(|watch| watch.evidence.began());
        self.counts.send_modify(|counts| counts.refused = true);
    }

    /// The kernel does not show the traffic: says so once.
    fn refused(&mut self, e: &Error) {
        self.counts.send_modify(|counts| counts.refused = true);
        if !std::mem::replace(&mut self.warned, true) {
            warn!(
                "the kernel does not show this container its traffic, so that min-wait and the quiet period have to do: {e}"
            );
        }
    }

    async fn read(
        &self,
        watch: &mut Watch,
        routes_changed: Option<Instant>,
    ) -> Result<TrafficSnapshot, Missed> {
        // What was new and has closed by now arrived before this read.
        let taken = watch.take_notices(&self.is_own, &self.kubelet);
        taken.map_err(Missed::Deaf)?;
        let now = Instant::now();
        let evidence = &mut watch.evidence;
        evidence.begin_read(routes_changed);
        let each = self.table.each(|seen| {
            if !(self.is_own)(seen.peer) {
                let kubelet = is_kubelet(evidence, &self.kubelet, &seen);
                evidence.sees_open(&seen, kubelet, now);
            }
        });
        let read = async { watch.listeners.compare(&each.await?).await };
        match timeout(READ_LIMIT, read).await {
            Ok(Ok(listening)) => Ok(TrafficSnapshot {
                listener_replaced: listening.replaced,
                other_port: listening.other_port,
                ..evidence.snapshot(listening.listens, now)
            }),
            Ok(Err(e)) => Err(Missed::Failed(e)),
            Err(_) => Err(Missed::Late),
        }
    }

    /// Takes in and shows what has happened until now: what closed, and what is closing. A connection that is in the
    /// table no more has closed, and the notice of it may still be on its way.
    async fn final_counts(&self, watch: &mut Watch, ending: bool) {
        let give_up = Instant::now() + NOTICE_LAG;
        loop {
            let mut present = HashSet::new();
            let mut waits = false;
            let evidence = &mut watch.evidence;
            let each = self.table.each(|seen| {
                // Only the notice says how it ended.
                if seen.is_remnant() {
                    return;
                }
                present.insert(seen.cookie);
                if !(self.is_own)(seen.peer) {
                    waits |= !seen.state.app_closed() && seen.waits(self.settings.max_quiet);
                    let kubelet = is_kubelet(evidence, &self.kubelet, &seen);
                    evidence.closing(&seen, kubelet, Instant::now());
                }
            });
            let read = timeout(NOTICE_LAG, each).await;
            let _ = watch.take_notices(&self.is_own, &self.kubelet);
            let read = matches!(read, Ok(Ok(_)));
            let complete = watch.evidence.accounts_for_all(&present) && !(ending && waits);
            if read && complete {
                break;
            }
            if Instant::now() >= give_up {
                if read {
                    watch.evidence.disappeared(&present);
                }
                break;
            }
            sleep(NOTICE_PAUSE).await;
        }
        self.show(Some(watch));
    }
}

impl Watch {
    /// Reads again after that long, unless the app must be gone by then.
    fn read_after(&mut self, pause: Duration) {
        let next = Instant::now() + pause;
        self.next_read =
            Some(next).filter(|&next| self.killed_by.is_some_and(|killed_by| next < killed_by));
    }

    /// Takes in every notice that has come. Where that fails, some are lost.
    fn take_notices(
        &mut self,
        is_own: &IsOwnSocket,
        kubelet: &KubeletAddresses,
    ) -> Result<(), Error> {
        let Watch {
            notices, evidence, ..
        } = self;
        let taken = notices.pending(|notice| take_notice(evidence, is_own, kubelet, &notice));
        taken.inspect_err(|_| evidence.notices_lost(Instant::now()))
    }
}

/// Waits until then, if ever.
pub async fn until(then: Option<Instant>) {
    match then {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Takes in the next notices. Without a watch they never come.
async fn next_notices(
    watch: &mut Option<Watch>,
    is_own: &IsOwnSocket,
    kubelet: &KubeletAddresses,
) -> Result<(), Error> {
    let Some(Watch {
        notices, evidence, ..
    }) = watch
    else {
        return std::future::pending().await;
    };
    let each = |notice| take_notice(evidence, is_own, kubelet, &notice);
    notices.next(each).await
}

/// Whether a connection is the kubelet's. A proxy in the pod never is, whatever it asks for: it brings the hooks and
/// probes of the kubelet along with everything else.
fn is_kubelet(evidence: &Evidence, kubelet: &KubeletAddresses, seen: &Connection) -> bool {
    !evidence.is_from_proxy(seen) && kubelet.contains(seen.peer.ip())
}

/// Takes in one notice.
fn take_notice(
    evidence: &mut Evidence,
    is_own: &IsOwnSocket,
    kubelet: &KubeletAddresses,
    notice: &CloseNotice,
) {
    match notice {
        CloseNotice::Closed(closed) if is_own(closed.peer) => evidence.ignore(closed),
        CloseNotice::Closed(closed) => {
            if evidence.concerns(closed) {
                let kubelet = is_kubelet(evidence, kubelet, closed);
                evidence.closed(closed, kubelet, Instant::now());
            }
        }
        CloseNotice::Lost => {
            debug!("more connections ended at once than the kernel could tell of");
            evidence.notices_lost(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::traffic::Traffic;

    const QUIET: Duration = Duration::from_millis(200);

    fn watch(port: u16) -> Traffic {
        let settings = Settings {
            ports: [port].into(),
            local_peers: crate::inflight::LocalPeers::Clients,
            auto: None,
            quiet_period: QUIET,
            max_quiet: 10 * QUIET,
            poll_interval: QUIET / 2,
        };
        let (watcher, traffic) =
            crate::traffic::new(settings, Arc::new(|_| false), KubeletAddresses::default());
        tokio::spawn(watcher.run());
        traffic
    }

    /// A request on a connection of its own, answered.
    fn visit(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        client.write_all(b"request").unwrap();
        let (mut app, _) = listener.accept().unwrap();
        assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
        app.write_all(b"answer").unwrap();
        assert_eq!(client.read(&mut [0; 100]).unwrap(), 6);
        (client, app)
    }

    #[tokio::test]
    async fn a_read_reads_when_it_is_awaited_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        let began = Instant::now();
        assert_eq!(traffic.clone().read(began, None).await.unwrap().arrivals, 0);
        let later = traffic.clone().read(began, None);
        tokio::task::yield_now().await;
        let _open = visit(&listener);
        assert_eq!(later.await.unwrap().arrivals, 1);
    }

    #[tokio::test]
    async fn every_visit_between_two_reads_is_seen_and_each_drain_counts_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        visit(&listener);
        for drain in 1..=3 {
            sleep(NOTICE_LAG).await;
            let began = Instant::now();
            assert_eq!(traffic.clone().read(began, None).await.unwrap().arrivals, 0);
            for _ in 0..50 {
                visit(&listener);
            }
            // The kernel tells of them a little later.
            let all = async {
                loop {
                    let snapshot = traffic.clone().read(began, None).await.unwrap();
                    if snapshot.arrivals >= 50 {
                        break snapshot;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let snapshot = timeout(60 * Duration::from_secs(1), all).await;
            let snapshot = snapshot.expect("each of them is seen");
            assert!(snapshot.last_arrival.unwrap() > began);
            sleep(2 * NOTICE_LAG).await;
            let counts = traffic.counts();
            assert_eq!((counts.arrivals, counts.arrivals_total), (50, 50 * drain));
            traffic.stop();
        }
    }

    #[tokio::test]
    async fn a_client_that_waits_when_the_app_dies_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        let mut pairs: Vec<_> = (0..5)
            .map(|_| {
                let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
                (client, listener.accept().unwrap().0)
            })
            .collect();
        for (client, app) in &mut pairs[..3] {
            client.write_all(b"request").unwrap();
            assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
        }
        let began = Instant::now();
        assert_eq!(traffic.clone().read(began, None).await.unwrap().waiting, 3);
        traffic.hook_answered(Instant::now() + 150 * QUIET, false);
        let clients: Vec<_> = pairs.into_iter().map(|(client, _app)| client).collect();
        // The kernel's notices are late on a loaded machine.
        while traffic.final_counts(false).await.cut < 3 {
            sleep(QUIET).await;
        }
        drop(clients);
        assert_eq!(traffic.final_counts(true).await.cut, 3, "each once");
    }

    #[tokio::test]
    async fn the_final_counts_wait_for_what_the_kernel_is_closing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut app, _) = listener.accept().unwrap();
        client.write_all(b"request").unwrap();
        assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
        let began = Instant::now();
        assert_eq!(traffic.clone().read(began, None).await.unwrap().waiting, 1);
        traffic.hook_answered(Instant::now() + 150 * QUIET, false);
        assert_eq!(
            traffic.final_counts(false).await.cut,
            0,
            "it is not over yet"
        );
        let counts = tokio::spawn({
            let traffic = traffic.clone();
            async move { traffic.final_counts(true).await }
        });
        // The count has begun, and the app goes.
        tokio::task::yield_now().await;
        drop(app);
        assert_eq!(counts.await.unwrap().cut, 1);
    }
}
