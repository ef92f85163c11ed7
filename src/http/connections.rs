//! The server's limits: how many connections, how long a request's head may take, and which connection is closed when
//! there are too many.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, yield_now};
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::Peer;

/// The most connections at once.
const CONNECTIONS: usize = 256;

/// The fewest that there may be, however few file descriptors the process may have.
const FEWEST_CONNECTIONS: usize = 8;

/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(2);

/// The longest head, in bytes.
const HEAD_SIZE: usize = 8 * 1024;

/// How long answers under way have when the server stops.
const STOP_TIME: Duration = Duration::from_millis(400);

/// How long to wait when the kernel has no connection to give, for want of memory or file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listening port.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    /// Listens. `[::]` becomes `0.0.0.0` where the host has no IPv6.
    ///
    /// # Errors
    /// When the port is taken, or the address is not this host's.
    pub fn bind(address: SocketAddr) -> anyhow::Result<Self> {
        let listener = match listen(address) {
            Err(e) if address.ip().is_unspecified() && address.is_ipv6() && no_ipv6(&e) => {
                listen((Ipv4Addr::UNSPECIFIED, address.port()).into())
            }
            other => other,
        };
        let listener =
            listener.with_context(|| format!("cannot listen on {address} (--listen)"))?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop`, then lets the answers under way go out.
    pub async fn run(self, router: Router, stop: impl Future<Output = ()>) {
        let connections = Arc::new(Connections::new(most_connections()));
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let slot = connections.add(peer.ip());
                        tasks.spawn(serve(stream, router.clone(), slot, stopped.clone()));
                        // One that had to go for it goes before the next one is taken, and leaves nothing behind.
                        yield_now().await;
                        while tasks.try_join_next().is_some() {}
                    }
                    Err(e) => {
                        warn!("cannot accept a connection: {e}");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
                Some(_) = tasks.join_next() => {}
            }
        }
        drop(self.listener);
        let _ = stopping.send(true);
        let _ = timeout(STOP_TIME, async {
            while tasks.join_next().await.is_some() {}
        })
        .await;
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // A port whose last connections still linger is free; one on which another process listens is not.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(1024)?;
    TcpListener::from_std(socket.into())
}

/// No such address family, or no address of it.
fn no_ipv6(e: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    e.raw_os_error() == Some(EAFNOSUPPORT) || e.kind() == io::ErrorKind::AddrNotAvailable
}

async fn serve(stream: TcpStream, router: Router, slot: Slot, mut stopped: watch::Receiver<bool>) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(slot.peer));
        let answering = slot.answering();
        async move {
            let response = router.call(request).await;
            drop(answering);
            response
        }
    });
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME)
            .max_buf_size(HEAD_SIZE)
            .serve_connection(TokioIo::new(stream), service)
    );
    let stopped = async {
        let _ = stopped.wait_for(|stopped| *stopped).await;
    };
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = slot.close.notified() => return,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = served {
        debug!(peer = %slot.peer, "connection failed: {e}");
    }
}

/// How many connections there may be: no more than half of the file descriptors, since the reads of a drain need some too.
fn most_connections() -> usize {
    // Where it cannot be read, there are as many as containers have as a rule.
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    descriptors(&limits).map_or(CONNECTIONS, |most| {
        (most / 2).clamp(FEWEST_CONNECTIONS, CONNECTIONS)
    })
}

/// The file descriptors that a process may have, as its `/proc/PID/limits` says; nothing where there is no limit.
fn descriptors(limits: &str) -> Option<usize> {
    let line = (limits.lines()).find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The open connections.
#[derive(Debug)]
struct Connections {
    most: usize,
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    /// In order of arrival.
    by_id: BTreeMap<u64, Entry>,
    next_id: u64,
}

#[derive(Debug)]
struct Entry {
    peer: IpAddr,
    /// A request on it is being answered.
    busy: bool,
    close: Arc<Notify>,
}

impl Connections {
    /// None yet, and never more than this.
    fn new(most: usize) -> Self {
        Self {
            most,
            entries: Mutex::default(),
        }
    }

    /// Takes in a connection. Where there are too many, another one is closed: the oldest without a request, and if all
    /// have one, the newest of the peer that has the most connections.
    fn add(self: &Arc<Self>, peer: IpAddr) -> Slot {
        let close = Arc::new(Notify::new());
        let mut entries = self.lock();
        if entries.by_id.len() >= self.most
            && let Some(closed) = entries
                .least_needed()
                .and_then(|id| entries.by_id.remove(&id))
        {
            closed.close.notify_one();
        }
        let id = entries.next_id;
        entries.next_id += 1;
        entries.by_id.insert(
            id,
            Entry {
                peer,
                busy: false,
                close: close.clone(),
            },
        );
        Slot {
            connections: self.clone(),
            id,
            peer,
            close,
        }
    }

    fn set_busy(&self, id: u64, busy: bool) {
        if let Some(entry) = self.lock().by_id.get_mut(&id) {
            entry.busy = busy;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        (self.entries.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entries {
    fn least_needed(&self) -> Option<u64> {
        let idle = self
            .by_id
            .iter()
            .find(|(_, entry)| !entry.busy)
            .map(|(id, _)| *id);
        idle.or_else(|| {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            for entry in self.by_id.values() {
                *counts.entry(entry.peer).or_default() += 1;
            }
            let (most, _) = counts
                .into_iter()
                .max_by_key(|&(peer, count)| (count, peer))?;
            self.by_id
                .iter()
                .rfind(|(_, entry)| entry.peer == most)
                .map(|(id, _)| *id)
        })
    }
}

/// A connection among the open ones, until it is dropped.
#[derive(Debug)]
struct Slot {
    connections: Arc<Connections>,
    id: u64,
    peer: IpAddr,
    close: Arc<Notify>,
}

impl Slot {
    /// Marks that a request is being answered, until the mark is dropped.
    fn answering(&self) -> Answering {
        self.connections.set_busy(self.id, true);
        Answering {
            connections: self.connections.clone(),
            id: self.id,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.connections.lock().by_id.remove(&self.id);
    }
}

/// The mark that a request is being answered.
#[derive(Debug)]
struct Answering {
    connections: Arc<Connections>,
    id: u64,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.connections.set_busy(self.id, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn ids(connections: &Connections) -> Vec<u64> {
        connections.lock().by_id.keys().copied().collect()
    }

    #[test]
    fn of_too_many_connections_the_oldest_idle_one_is_closed_and_never_a_hook() {
        let connections = Arc::new(Connections::new(CONNECTIONS));
        let slots: Vec<Slot> = (0..CONNECTIONS)
            .map(|_| connections.add(address(1)))
            .collect();
        let _hook = slots[0].answering();
        let _probe = connections.add(address(2));
        let now = ids(&connections);
        assert_eq!(now.len(), CONNECTIONS);
        assert!(
            now.contains(&0) && !now.contains(&1),
            "the hook stays, the oldest idle one is closed"
        );
    }

    #[tokio::test]
    async fn a_connection_that_has_to_go_is_closed_and_one_that_is_gone_takes_no_room() {
        assert_eq!(CONNECTIONS, 256, "the documented limit");
        let connections = Arc::new(Connections::new(CONNECTIONS));
        let mut slots: Vec<Slot> = (0..CONNECTIONS)
            .map(|_| connections.add(address(1)))
            .collect();
        drop(slots.remove(10));
        assert_eq!(ids(&connections).len(), CONNECTIONS - 1);
        let _last = connections.add(address(2));
        assert!(ids(&connections).contains(&0), "there was room");
        drop(slots[0].answering()); // Answered, and idle again.
        let _one_more = connections.add(address(2));
        assert!(!ids(&connections).contains(&0));
        let closed = timeout(Duration::from_secs(60), slots[0].close.notified());
        assert!(closed.await.is_ok());
    }

    #[test]
    fn where_all_have_requests_the_peer_with_the_most_connections_loses_one() {
        let connections = Arc::new(Connections::new(CONNECTIONS));
        let kubelet = connections.add(address(9));
        let _hook = kubelet.answering();
        let slots: Vec<Slot> = (1..CONNECTIONS)
            .map(|_| connections.add(address(1)))
            .collect();
        let _requests: Vec<Answering> = slots.iter().map(Slot::answering).collect();
        let _probe = connections.add(address(9));
        let now = ids(&connections);
        assert!(now.contains(&kubelet.id) && !now.contains(&slots[CONNECTIONS - 2].id));
    }

    #[test]
    fn few_file_descriptors_mean_fewer_connections() {
        let limits = |most: &str| {
            format!(
                "Limit   Soft Limit   Hard Limit   Units\nMax open files   {most}   1024   files\n"
            )
        };
        assert_eq!(descriptors(&limits("64")), Some(64));
        assert_eq!(descriptors(&limits("unlimited")), None);
        assert_eq!(descriptors(""), None);
        assert!((FEWEST_CONNECTIONS..=CONNECTIONS).contains(&most_connections()));
    }

    #[tokio::test]
    async fn a_busy_port_fails_the_start_and_says_which() {
        let first = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = Server::bind(first.address()).unwrap_err();
        assert!(second.to_string().contains(&first.address().to_string()));
    }
}
