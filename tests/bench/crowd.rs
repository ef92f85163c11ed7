//! Connections on one port, held by processes of their own, as many as their limits ask for.

use std::env;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};

/// Tells this program, started again, where to make connections and how many.
const CROWD: &str = "CROWD";
/// Files of one process, more than which would do no good.
const MOST: usize = 50_000;

/// Connections on one port, held by as many processes as their limits ask for.
pub struct Crowd(Vec<(Child, ChildStdin)>);

impl Crowd {
    pub fn gather(port: u16, connections: usize) -> Self {
        // Both ends of each, and what else a process has open.
        let most = (file_limit() - 50) / 2;
        let starts = (0..connections).step_by(most).enumerate();
        let held: Vec<_> = starts
            .map(|(n, from)| {
                let here = format!("127.{n}.0.1:{port}");
                let count = most.min(connections - from);
                let mut child = Command::new(env::current_exe().unwrap())
                    .env(CROWD, format!("{here} {count}"))
                    .stdin(Stdio::piped())
                    .stdout(Stdio::piped())
                    .spawn()
                    .unwrap();
                let stdin = child.stdin.take().unwrap();
                (child, stdin)
            })
            .collect();
        let mut crowd = Self(held);
        for (child, _) in &mut crowd.0 {
            let mut line = String::new();
            let stdout = child.stdout.take().unwrap();
            BufReader::new(stdout).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n", "a process that holds connections");
        }
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for (mut child, stdin) in self.0.drain(..) {
            drop(stdin);
            let _ = child.wait();
        }
    }
}

/// As many files as this process may open, once it has asked for all it can get.
fn file_limit() -> usize {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let current = maximum;
    setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
    maximum.map_or(MOST, |limit| limit.min(MOST as u64) as usize)
}

/// Whether this process was started to hold connections.
pub fn is_crowd() -> bool {
    env::var_os(CROWD).is_some()
}

/// Makes connections, and holds both ends until its standard input ends.
pub fn crowd() {
    file_limit();
    let words = env::var(CROWD).unwrap();
    let (address, count) = words.split_once(' ').unwrap();
    let address: SocketAddrV4 = address.parse().unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let mut held = Vec::new();
    for n in 0..count.parse::<usize>().unwrap() {
        let [_, process, ..] = address.ip().octets();
        let from = Ipv4Addr::new(127, process, (n / 200) as u8, 2 + (n % 200) as u8);
        let mut client = connect(SocketAddrV4::new(from, address.port()), address);
        client.write_all(b"?").unwrap();
        held.push((client, listener.accept().unwrap()));
    }
    println!("ready");
    let _ = io::stdin().read(&mut [0]);
}

fn connect(from: SocketAddrV4, to: SocketAddrV4) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&from.into()).unwrap();
    // Leaves nothing behind: reset, without the minute that the kernel keeps what was closed.
    socket.set_linger(Some(Duration::ZERO)).unwrap();
    socket.connect(&to.into()).unwrap();
    socket.into()
}
