//! What comes to every pod beside its clients: a monitor, and WebSockets that are open and not used.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::ask;

/// No visit takes longer.
const LIMIT: Duration = Duration::from_secs(4);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Each is asked for at each beat, on a new connection
    #[arg(required = true)]
    urls: Vec<String>,

    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    every: Duration,
}

/// Asks until it is killed, as a scraper or the health check of a load balancer does.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let mut beat = interval(args.every);
    beat.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        beat.tick().await;
        let visits = args.urls.iter().map(|url| async move {
            // Pods go: it is no failure.
            let _ = timeout(LIMIT, ask::once("GET", url, &[])).await;
        });
        join_all(visits).await;
    }
}

#[derive(Debug, clap::Args)]
pub struct IdleArgs {
    /// The shop's address, as IP:PORT
    to: SocketAddr,

    #[arg(long, default_value_t = 3)]
    connections: usize,
}

/// Opens WebSockets, answers their pings and sends nothing else, until it is killed.
pub async fn idle(args: IdleArgs) -> anyhow::Result<()> {
    let url = format!("ws://{}/websocket", args.to);
    let connections = (0..args.connections).map(|_| async {
        let stream = TcpStream::connect(args.to).await?;
        let (mut socket, _) = tokio_tungstenite::client_async(&url, stream).await?;
        // Reading answers pings.
        while socket.next().await.is_some_and(|message| message.is_ok()) {}
        anyhow::Ok(())
    });
    for ended in join_all(connections).await {
        ended?;
    }
    std::future::pending().await
}
