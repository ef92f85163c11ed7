//! Monitoring systems: each reads the app's metrics again and again, from an address of its own.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, timeout};

use super::super::routes::Place;
use super::super::target::Target;
use super::connection::Connection;

/// How often each reads the metrics.
const SCRAPES: Duration = Duration::from_secs(1);

/// How long one read may take.
const LIMIT: Duration = Duration::from_secs(10);

/// The first one's address; the others' follow.
const FIRST: Ipv4Addr = Ipv4Addr::new(127, 0, 1, 1);

/// Reads the metrics for ever, on a kept connection. As a monitoring system does, it tries again at its next turn where a
/// read failed or the app closed the connection.
pub async fn monitor(app: SocketAddr, n: u32) -> Option<Infallible> {
    let from = Ipv4Addr::from(u32::from(FIRST) + n);
    let metrics: Target = "http://127.0.0.1:{port}/metrics".parse().ok()?;
    let place = Place::At(app);
    let mut kept: Option<Connection> = None;
    let mut ticks = interval(SCRAPES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let read = async {
            let mut connection = match usable(kept.take()).await {
                Some(connection) => connection,
                None => Connection::open(&metrics, place, from.into()).await.ok()?,
            };
            let answer = connection.exchange(&metrics, place, "", true, None).await;
            answer.is_ok().then_some(connection)
        };
        kept = timeout(LIMIT, read).await.ok().flatten();
    }
}

/// A kept connection that the app has not closed.
async fn usable(kept: Option<Connection>) -> Option<Connection> {
    let mut connection = kept?;
    connection.is_usable().await.then_some(connection)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_read_that_failed_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let monitor = tokio::spawn(monitor(address, 3));
        // The first connection is closed without an answer.
        drop(listener.accept().await.unwrap());
        let (mut stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.ip(), Ipv4Addr::new(127, 0, 1, 4));
        let mut request = [0; 4096];
        for _ in 0..2 {
            let n = stream.read(&mut request).await.unwrap();
            assert!(request[..n].starts_with(b"GET /metrics "));
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            stream.write_all(answer).await.unwrap();
        }
        monitor.abort();
    }
}
