//! Clients of the app, in threads of the bench.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

const CLIENTS: u32 = 4;
/// Of a paced client, from one request to the next: together 200 a second.
const EVERY: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
pub enum Load {
    /// Each client asks again as soon as it has its answer, on a kept connection.
    Full,
    /// Each client asks at a steady pace, on a new connection each time. A request that is late counts from when it was
    /// due, so that a pause of the app is seen by all that fall into it.
    Paced,
}

/// How long requests took.
#[derive(Debug, Default)]
pub struct Seen {
    took: Vec<Duration>,
    time: Duration,
}

impl Seen {
    pub fn add(&mut self, took: Vec<Duration>, time: Duration) {
        self.took.extend(took);
        self.took.sort();
        self.time += time;
    }

    pub fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.time.as_secs_f64()
    }

    pub fn quantile(&self, part: f64) -> Duration {
        self.took[((self.took.len() - 1) as f64 * part).round() as usize]
    }
}

impl Load {
    /// Asks for so long; says how long each request took.
    pub fn run(self, app: SocketAddr, time: Duration) -> Vec<Duration> {
        let began = Instant::now();
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| {
                thread::spawn(move || match self {
                    Self::Full => full(app, began + time),
                    Self::Paced => paced(app, began + EVERY / CLIENTS * n, began + time),
                })
            })
            .collect();
        clients
            .into_iter()
            .flat_map(|client| client.join().unwrap())
            .collect()
    }
}

fn full(app: SocketAddr, until: Instant) -> Vec<Duration> {
    let mut stream = connect(app);
    let mut took = Vec::new();
    while Instant::now() < until {
        let began = Instant::now();
        ask(&mut stream);
        took.push(began.elapsed());
    }
    took
}

fn paced(app: SocketAddr, first: Instant, until: Instant) -> Vec<Duration> {
    let due = (0_u32..)
        .map(|n| first + EVERY * n)
        .take_while(|due| *due < until);
    due.map(|due| {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        ask(&mut connect(app));
        due.elapsed()
    })
    .collect()
}

fn ask(stream: &mut TcpStream) {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 1024];
    while !answer.ends_with(b"ok") {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "the app closed the connection");
        answer.extend_from_slice(&piece[..length]);
    }
}

/// A connection that leaves nothing behind: it is reset, without the minute that the kernel keeps what was closed.
fn connect(app: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.set_tcp_nodelay(true).unwrap();
    socket.connect(&app.into()).unwrap();
    socket.into()
}
