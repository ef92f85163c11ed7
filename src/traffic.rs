//! The traffic on the app's ports while a drain runs: requests that still arrive, clients that keep their connections,
//! and, once the hook has been answered, requests that were cut off.
//!
//! One task, the [`Watcher`], holds all of it. It sleeps until a drain begins; then the kernel's notices of connections
//! that end tell it of each that came and went between two looks at the table, so nothing is missed. It goes on looking
//! once the hook has been answered, until the app must be gone: what a connection was like shortly before it ended tells
//! better than its end whether somebody waited.

mod evidence;

use std::collections::{BTreeSet, HashSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{debug, warn};

use crate::drain::{TrafficSnapshot, pause};
use crate::inflight::sockets::{CloseNotice, CloseNotices, Error, Table};
use evidence::Evidence;

/// The longest that one look may take.
const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// The kernel leaves its notices to a worker of its own, which may be behind by this much on a loaded machine.
const NOTICE_LAG: Duration = Duration::from_millis(800);

/// How often to look whether a notice that is late has come.
const NOTICE_PAUSE: Duration = Duration::from_millis(20);

/// How many addresses of the kubelet are remembered.
const ADDRESSES: usize = 8;

/// What the app's ports are, and how long quiet is.
#[derive(Debug, Clone)]
pub struct Settings {
    pub ports: BTreeSet<u16>,
    pub quiet_period: Duration,
    pub max_quiet: Duration,
    /// The least time between two looks.
    pub poll_interval: Duration,
}

/// Addresses the kubelet calls from: probes come from there too, and are no traffic.
#[derive(Debug, Clone, Default)]
pub struct KubeletAddresses(Arc<Mutex<VecDeque<IpAddr>>>);

impl KubeletAddresses {
    /// It has called from this address.
    pub fn called_from(&self, address: IpAddr) {
        let address = address.to_canonical();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(&address) {
            return;
        }
        if known.len() == ADDRESSES {
            known.pop_front();
        }
        known.push_back(address);
    }

    /// Where it has called from.
    pub fn addresses(&self) -> Vec<IpAddr> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().copied().collect()
    }

    fn is_at(&self, address: IpAddr) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&address)
    }
}

/// Whether a connection's other end is one of our own sockets.
pub type IsOwnSocket = Arc<dyn Fn(SocketAddr) -> bool + Send + Sync>;

/// What everybody may know of the traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TrafficCounts {
    /// Arrivals in the drain that runs, or in the last one.
    pub arrivals: u64,
    /// Requests that were cut off after it.
    pub cut: u64,
    /// Arrivals of all drains.
    pub arrivals_total: u64,
    /// Requests cut off after all drains.
    pub cut_total: u64,
}

/// Asks the watcher, and watches what it sees.
#[derive(Debug, Clone)]
pub struct Traffic {
    asks: mpsc::UnboundedSender<Ask>,
    seen: watch::Receiver<TrafficCounts>,
}

#[derive(Debug)]
enum Ask {
    /// Look at the drain that began then.
    Look {
        began: Instant,
        settled: Option<Instant>,
        reply: oneshot::Sender<Option<TrafficSnapshot>>,
    },
    /// The hooks are being answered: from now on whoever waits is cut off. By `killed` the app is dead; it is already
    /// where it is `gone`.
    Answered { killed: Instant, gone: bool },
    /// Say what was seen, as of now; or, for the last time, once nobody waits any more.
    Sum {
        last: bool,
        reply: oneshot::Sender<TrafficCounts>,
    },
    /// The pod serves again.
    Rest,
}

impl Traffic {
    /// What is known now.
    pub fn seen(&self) -> TrafficCounts {
        *self.seen.borrow()
    }

    /// Looks at the traffic of the drain that began then. The first look of a drain begins the watch.
    pub async fn look(self, began: Instant, settled: Option<Instant>) -> Option<TrafficSnapshot> {
        let (reply, answer) = oneshot::channel();
        let look = Ask::Look {
            began,
            settled,
            reply,
        };
        self.asks.send(look).ok()?;
        answer.await.ok()?
    }

    /// The hooks are being answered: from now on, whoever waits for the app is cut off when it dies, which it has by
    /// `killed`. Where it is `gone`, whoever waited when it went was.
    pub fn answered(&self, killed: Instant, gone: bool) {
        let _ = self.asks.send(Ask::Answered { killed, gone });
    }

    /// The pod serves again, and nothing is watched.
    pub fn rest(&self) {
        let _ = self.asks.send(Ask::Rest);
    }

    /// What has been seen, what happened a moment ago included. `last` where the sidecar ends with its app: the kernel
    /// may still be closing what the app has left, and is given the time for it.
    pub async fn sum(&self, last: bool) -> TrafficCounts {
        let (reply, answer) = oneshot::channel();
        let _ = self.asks.send(Ask::Sum { last, reply });
        answer.await.unwrap_or_else(|_| self.seen())
    }
}

/// Watches. Made by [`new`], driven by [`Watcher::run`].
pub struct Watcher {
    table: Table,
    settings: Settings,
    is_own: IsOwnSocket,
    kubelet: KubeletAddresses,
    asks: mpsc::UnboundedReceiver<Ask>,
    seen: watch::Sender<TrafficCounts>,
    /// It was said that nothing can be watched.
    said: bool,
}

/// A watcher of the app's ports, and how to ask it.
pub fn new(
    settings: Settings,
    is_own: IsOwnSocket,
    kubelet: KubeletAddresses,
) -> (Watcher, Traffic) {
    let (asks, asked) = mpsc::unbounded_channel();
    let (seen, shown) = watch::channel(TrafficCounts::default());
    let watcher = Watcher {
        table: Table::new(settings.ports.iter().copied()),
        settings,
        is_own,
        kubelet,
        asks: asked,
        seen,
        said: false,
    };
    (watcher, Traffic { asks, seen: shown })
}

/// What a watch holds while it runs.
struct Watch {
    notices: CloseNotices,
    evidence: Evidence,
    /// When to look without being asked.
    next_look: Option<Instant>,
    /// When the app is dead, and nobody has to look any more.
    killed: Option<Instant>,
}

impl Watcher {
    /// Watches each drain, until nobody can ask any more.
    pub async fn run(mut self) {
        let mut watch: Option<Watch> = None;
        loop {
            let next_look = watch.as_ref().and_then(|watch| watch.next_look);
            let ask = tokio::select! {
                biased;
                ask = self.asks.recv() => match ask {
                    Some(ask) => ask,
                    None => return,
                },
                () = until(next_look) => {
                    if let Some(watch) = &mut watch {
                        let began = Instant::now();
                        self.look(watch, None).await;
                        watch.look_after(pause(began.elapsed(), self.settings.poll_interval));
                    }
                    self.show(watch.as_ref());
                    continue;
                }
                () = next_notices(&mut watch, &self.is_own, &self.kubelet) => {
                    self.show(watch.as_ref());
                    continue;
                }
            };
            match ask {
                Ask::Look {
                    began,
                    settled,
                    reply,
                } => {
                    if watch
                        .as_ref()
                        .is_none_or(|watch| watch.evidence.began() != began)
                    {
                        // What the drain before cut off is not forgotten over this one.
                        if let Some(watch) = &mut watch {
                            self.sum(watch, false).await;
                        }
                        watch = self.begin(began).await;
                    }
                    let sight = match &mut watch {
                        Some(watch) => self.look(watch, settled).await,
                        None => None,
                    };
                    self.show(watch.as_ref());
                    let _ = reply.send(sight);
                }
                Ask::Answered { killed, gone } => {
                    if let Some(watch) = &mut watch {
                        watch.take_notices(&self.is_own, &self.kubelet);
                        watch.evidence.answered(gone);
                        watch.killed = Some(killed);
                        watch.look_after(self.settings.poll_interval);
                    }
                }
                Ask::Sum { last, reply } => {
                    if let Some(watch) = &mut watch {
                        self.sum(watch, last).await;
                    }
                    let _ = reply.send(*self.seen.borrow());
                }
                Ask::Rest => watch = None,
            }
        }
    }

    fn show(&self, watch: Option<&Watch>) {
        if let Some(watch) = watch {
            let (arrivals, cut) = (watch.evidence.arrivals(), watch.evidence.cut());
            self.seen.send_modify(|seen| {
                seen.arrivals_total += arrivals.saturating_sub(seen.arrivals);
                seen.cut_total += cut.saturating_sub(seen.cut);
                (seen.arrivals, seen.cut) = (arrivals, cut);
            });
        }
    }

    /// Begins to watch: first the notices, then who is there already, so that nobody falls between the two.
    async fn begin(&mut self, began: Instant) -> Option<Watch> {
        self.seen
            .send_modify(|seen| (seen.arrivals, seen.cut) = (0, 0));
        let mut evidence = Evidence::new(began, self.settings.clone());
        let begin = async {
            let mut notices = CloseNotices::listen()?;
            let mut there = 0_u32;
            let each = |seen| {
                evidence.was_there(&seen);
                there += 1;
            };
            self.table.each(each).await?;
            // Who died meanwhile was there too, or has come and gone in this moment.
            notices.pending(|notice| {
                if let CloseNotice::Closed(died) = notice {
                    evidence.was_gone(&died);
                }
            })?;
            debug!(connections = there, "watching the traffic");
            Ok::<_, Error>(notices)
        };
        let notices = match timeout(LOOK_LIMIT, begin).await {
            Ok(Ok(notices)) => notices,
            Ok(Err(e)) => {
                if !std::mem::replace(&mut self.said, true) {
                    warn!(
                        "the kernel does not show this container its traffic, so that min-wait and the quiet period have \
                         to do: {e}"
                    );
                }
                return None;
            }
            Err(_) => {
                warn!("the kernel's socket table could not be read in time");
                return None;
            }
        };
        Some(Watch {
            notices,
            evidence,
            next_look: None,
            killed: None,
        })
    }

    async fn look(&self, watch: &mut Watch, settled: Option<Instant>) -> Option<TrafficSnapshot> {
        // Who was new and has died by now has arrived before this look.
        watch.take_notices(&self.is_own, &self.kubelet);
        let now = Instant::now();
        let evidence = &mut watch.evidence;
        evidence.look(settled);
        let each = self.table.each(|seen| {
            if !(self.is_own)(seen.peer) {
                evidence.lives(&seen, self.kubelet.is_at(seen.peer.ip()), now);
            }
        });
        match timeout(LOOK_LIMIT, each).await {
            Ok(Ok(listens)) => Some(evidence.sight(listens)),
            Ok(Err(e)) => {
                debug!("no look at the traffic: {e}");
                None
            }
            Err(_) => None,
        }
    }

    /// Takes in and shows what has happened until now: who died, and who is dying. Whoever is in the table no more has
    /// died, and the notice of it may still be on its way.
    async fn sum(&self, watch: &mut Watch, last: bool) {
        let enough = Instant::now() + NOTICE_LAG;
        loop {
            let mut there = HashSet::new();
            let mut waits = false;
            let evidence = &mut watch.evidence;
            let each = self.table.each(|seen| {
                // Only the notice says how it ended.
                if seen.is_remnant() {
                    return;
                }
                there.insert(seen.cookie);
                if !(self.is_own)(seen.peer) {
                    waits |= !seen.state.app_closed() && seen.waits(self.settings.max_quiet);
                    evidence.dies(&seen, self.kubelet.is_at(seen.peer.ip()));
                }
            });
            let looked = timeout(NOTICE_LAG, each).await;
            watch.take_notices(&self.is_own, &self.kubelet);
            let looked = matches!(looked, Ok(Ok(_)));
            let complete = watch.evidence.accounts_for_all(&there) && !(last && waits);
            if looked && complete {
                break;
            }
            if Instant::now() >= enough {
                if looked {
                    watch.evidence.vanished(&there);
                }
                break;
            }
            sleep(NOTICE_PAUSE).await;
        }
        self.show(Some(watch));
    }
}

impl Watch {
    /// Looks again after that long, unless the app must be gone by then.
    fn look_after(&mut self, pause: Duration) {
        let next = Instant::now() + pause;
        self.next_look = Some(next).filter(|&next| self.killed.is_some_and(|killed| next < killed));
    }

    /// Takes in every notice that has come.
    fn take_notices(&mut self, is_own: &IsOwnSocket, kubelet: &KubeletAddresses) {
        let Watch {
            notices, evidence, ..
        } = self;
        if let Err(e) = notices.pending(|notice| take(evidence, is_own, kubelet, &notice)) {
            debug!("no notices: {e}");
        }
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
async fn next_notices(watch: &mut Option<Watch>, is_own: &IsOwnSocket, kubelet: &KubeletAddresses) {
    let Some(Watch {
        notices, evidence, ..
    }) = watch
    else {
        return std::future::pending().await;
    };
    if let Err(e) = (notices.next(|notice| take(evidence, is_own, kubelet, &notice))).await {
        warn!("the kernel's notices have ended, and with them the watch on traffic: {e}");
        *watch = None;
    }
}

/// Takes in one notice.
fn take(
    evidence: &mut Evidence,
    is_own: &IsOwnSocket,
    kubelet: &KubeletAddresses,
    notice: &CloseNotice,
) {
    match notice {
        CloseNotice::Closed(died) if is_own(died.peer) => evidence.was_gone(died),
        CloseNotice::Closed(died) => {
            if evidence.concerns(died) {
                evidence.died(died, kubelet.is_at(died.peer.ip()), Instant::now());
            }
        }
        CloseNotice::Lost => {
            debug!("more connections ended at once than the kernel could tell of");
            evidence.missed(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    const QUIET: Duration = Duration::from_millis(200);

    fn watch(port: u16) -> Traffic {
        let settings = Settings {
            ports: [port].into(),
            quiet_period: QUIET,
            max_quiet: 10 * QUIET,
            poll_interval: QUIET / 2,
        };
        let (watcher, traffic) = new(settings, Arc::new(|_| false), KubeletAddresses::default());
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
    async fn a_look_looks_when_it_is_waited_for_and_not_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        let began = Instant::now();
        assert_eq!(traffic.clone().look(began, None).await.unwrap().arrivals, 0);
        let later = traffic.clone().look(began, None);
        tokio::task::yield_now().await;
        let _open = visit(&listener);
        assert_eq!(later.await.unwrap().arrivals, 1);
    }

    #[tokio::test]
    async fn every_visit_between_two_looks_is_seen_and_each_drain_counts_its_own() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        visit(&listener);
        for drain in 1..=3 {
            sleep(NOTICE_LAG).await;
            let began = Instant::now();
            assert_eq!(traffic.clone().look(began, None).await.unwrap().arrivals, 0);
            for _ in 0..50 {
                visit(&listener);
            }
            // The kernel tells of them a little later.
            let all = async {
                loop {
                    let sight = traffic.clone().look(began, None).await.unwrap();
                    if sight.arrivals >= 50 {
                        break sight;
                    }
                    sleep(Duration::from_millis(5)).await;
                }
            };
            let sight = timeout(60 * Duration::from_secs(1), all).await;
            let sight = sight.expect("each of them is seen");
            assert!(sight.last_arrival.unwrap() > began);
            sleep(2 * NOTICE_LAG).await;
            let seen = traffic.seen();
            assert_eq!((seen.arrivals, seen.arrivals_total), (50, 50 * drain));
            traffic.rest();
        }
    }

    #[tokio::test]
    async fn whoever_waits_when_the_app_dies_is_counted() {
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
        assert_eq!(traffic.clone().look(began, None).await.unwrap().waiting, 3);
        traffic.answered(Instant::now() + 150 * QUIET, false);
        let clients: Vec<_> = pairs.into_iter().map(|(client, _app)| client).collect();
        sleep(QUIET).await;
        assert_eq!(traffic.sum(false).await.cut, 3);
        drop(clients);
        assert_eq!(traffic.sum(true).await.cut, 3, "each once");
    }

    #[tokio::test]
    async fn the_last_sum_waits_for_what_the_kernel_is_closing() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let traffic = watch(listener.local_addr().unwrap().port());
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut app, _) = listener.accept().unwrap();
        client.write_all(b"request").unwrap();
        assert_eq!(app.read(&mut [0; 100]).unwrap(), 7);
        let began = Instant::now();
        assert_eq!(traffic.clone().look(began, None).await.unwrap().waiting, 1);
        traffic.answered(Instant::now() + 150 * QUIET, false);
        assert_eq!(traffic.sum(false).await.cut, 0, "it is not over yet");
        let sum = tokio::spawn({
            let traffic = traffic.clone();
            async move { traffic.sum(true).await }
        });
        // The sum has begun, and the app goes.
        tokio::task::yield_now().await;
        drop(app);
        assert_eq!(sum.await.unwrap().cut, 1);
    }
}
