//! The server's limits: how many connections, how long a request's head may take, and who gives way.

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
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower_service::Service as _;
use tracing::{debug, warn};

use super::Peer;

/// The most connections at once.
const CONNECTIONS: usize = 256;

/// How long the head of a request may take.
const HEAD_TIME: Duration = Duration::from_secs(2);

/// The longest head, in bytes.
const HEAD_SIZE: usize = 8 * 1024;

/// How long answers under way have when the server stops.
const LAST_WORDS: Duration = Duration::from_millis(400);

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
        let connections = Arc::new(Connections::default());
        let (stopping, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let place = connections.enter(peer.ip());
                        tasks.spawn(serve(stream, router.clone(), place, stopped.clone()));
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
        let _ = timeout(LAST_WORDS, async {
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
    // A port whose last connections still linger is free; one that somebody listens on is not.
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

async fn serve(
    stream: TcpStream,
    router: Router,
    place: Place,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let mut router = router.clone();
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(Peer(place.peer));
        let busy = place.busy();
        async move {
            let response = router.call(request).await;
            drop(busy);
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
        () = place.leave.notified() => return,
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(e) = served {
        debug!(peer = %place.peer, "connection failed: {e}");
    }
}

/// Who is connected.
#[derive(Debug, Default)]
struct Connections(Mutex<Guests>);

#[derive(Debug, Default)]
struct Guests {
    /// In order of arrival.
    seated: BTreeMap<u64, Guest>,
    next: u64,
}

#[derive(Debug)]
struct Guest {
    peer: IpAddr,
    /// A request of theirs is being answered.
    busy: bool,
    leave: Arc<Notify>,
}

impl Connections {
    /// Takes in a connection. Where the house is full another one leaves: whoever has waited longest without a request,
    /// and if all have one, the last to come of the peer that has the most connections.
    fn enter(self: &Arc<Self>, peer: IpAddr) -> Place {
        let leave = Arc::new(Notify::new());
        let mut guests = self.lock();
        if guests.seated.len() >= CONNECTIONS
            && let Some(gone) = guests
                .dispensable()
                .and_then(|id| guests.seated.remove(&id))
        {
            gone.leave.notify_one();
        }
        let id = guests.next;
        guests.next += 1;
        guests.seated.insert(
            id,
            Guest {
                peer,
                busy: false,
                leave: leave.clone(),
            },
        );
        Place {
            house: self.clone(),
            id,
            peer,
            leave,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guests> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn dispensable(&self) -> Option<u64> {
        let idle = self
            .seated
            .iter()
            .find(|(_, guest)| !guest.busy)
            .map(|(id, _)| *id);
        idle.or_else(|| {
            let mut most: HashMap<IpAddr, usize> = HashMap::new();
            for guest in self.seated.values() {
                *most.entry(guest.peer).or_default() += 1;
            }
            let (greedy, _) = most
                .into_iter()
                .max_by_key(|&(peer, count)| (count, peer))?;
            self.seated
                .iter()
                .rfind(|(_, guest)| guest.peer == greedy)
                .map(|(id, _)| *id)
        })
    }
}

/// A connection's place, given up when it is dropped.
#[derive(Debug)]
struct Place {
    house: Arc<Connections>,
    id: u64,
    peer: IpAddr,
    leave: Arc<Notify>,
}

impl Place {
    /// Marks that a request is being answered, until the mark is dropped.
    fn busy(&self) -> Busy {
        mark(&self.house, self.id, true);
        Busy {
            house: self.house.clone(),
            id: self.id,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.house.lock().seated.remove(&self.id);
    }
}

#[derive(Debug)]
struct Busy {
    house: Arc<Connections>,
    id: u64,
}

impl Drop for Busy {
    fn drop(&mut self) {
        mark(&self.house, self.id, false);
    }
}

fn mark(house: &Connections, id: u64, busy: bool) {
    if let Some(guest) = house.lock().seated.get_mut(&id) {
        guest.busy = busy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        Ipv4Addr::new(10, 0, 0, last).into()
    }

    fn seated(house: &Connections) -> Vec<u64> {
        house.lock().seated.keys().copied().collect()
    }

    #[test]
    fn the_longest_idle_leaves_a_full_house_and_never_a_hook() {
        let house = Arc::new(Connections::default());
        let places: Vec<Place> = (0..CONNECTIONS).map(|_| house.enter(address(1))).collect();
        let _hook = places[0].busy();
        let _probe = house.enter(address(2));
        let now = seated(&house);
        assert_eq!(now.len(), CONNECTIONS);
        assert!(
            now.contains(&0) && !now.contains(&1),
            "the hook stays, the oldest idle one leaves"
        );
    }

    #[tokio::test]
    async fn who_leaves_is_told_and_who_has_left_takes_no_place() {
        assert_eq!(CONNECTIONS, 256, "the documented limit");
        let house = Arc::new(Connections::default());
        let mut places: Vec<Place> = (0..CONNECTIONS).map(|_| house.enter(address(1))).collect();
        drop(places.remove(10));
        assert_eq!(seated(&house).len(), CONNECTIONS - 1);
        let _last = house.enter(address(2));
        assert!(seated(&house).contains(&0), "there was a place");
        drop(places[0].busy()); // Answered, and idle again.
        let _one_more = house.enter(address(2));
        assert!(!seated(&house).contains(&0));
        let told = timeout(Duration::from_secs(60), places[0].leave.notified());
        assert!(told.await.is_ok());
    }

    #[test]
    fn a_house_full_of_requests_turns_out_the_greediest_peer() {
        let house = Arc::new(Connections::default());
        let kubelet = house.enter(address(9));
        let _hook = kubelet.busy();
        let places: Vec<Place> = (1..CONNECTIONS).map(|_| house.enter(address(1))).collect();
        let _requests: Vec<Busy> = places.iter().map(Place::busy).collect();
        let _probe = house.enter(address(9));
        let now = seated(&house);
        assert!(now.contains(&kubelet.id) && !now.contains(&places[CONNECTIONS - 2].id));
    }

    #[tokio::test]
    async fn a_busy_port_fails_the_start_and_says_which() {
        let first = Server::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let second = Server::bind(first.address()).unwrap_err();
        assert!(second.to_string().contains(&first.address().to_string()));
    }
}
