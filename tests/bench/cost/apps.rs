//! The apps: one that answers at once, and real ones whose metrics page is as large as is asked for.

use std::env;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bench/cost");
const UVICORN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/target/test-env/venv/bin/uvicorn"
);
const MODULES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/apps/node/node_modules");

/// Tells this program, started again, where to serve.
const STATIC_APP: &str = "STATIC_APP";
/// Not the address on which a crowd of connections listens with the same port.
const HOST: Ipv4Addr = Ipv4Addr::new(127, 200, 0, 1);
const LONGEST_START: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Static,
    Python,
    Node,
}

/// Ends when dropped.
pub struct App {
    pub child: Child,
    pub address: SocketAddr,
}

/// A metrics page: its size, and how long it takes, the quickest of five.
pub struct Page {
    pub bytes: usize,
    pub took: Duration,
}

impl App {
    /// Starts one whose page has at least so many bytes; none where its runtime is not there.
    pub fn start(kind: Kind, port: u16, page_bytes: usize) -> Option<Self> {
        let mut command = match kind {
            Kind::Static => {
                let mut command = Command::new(env::current_exe().unwrap());
                command.env(STATIC_APP, format!("{HOST}:{port}"));
                command
            }
            Kind::Python if Path::new(UVICORN).exists() => {
                let mut command = Command::new(UVICORN);
                command.args(["page_app:app", "--log-level=critical", "--no-access-log"]);
                command.arg(format!("--app-dir={FOLDER}"));
                command.args([format!("--host={HOST}"), format!("--port={port}")]);
                command
            }
            Kind::Node if Path::new(MODULES).exists() => {
                let mut command = Command::new("node");
                command.arg(format!("{FOLDER}/page_app.js"));
                command.args([HOST.to_string(), port.to_string()]);
                command.env("NODE_PATH", MODULES);
                command
            }
            _ => return None,
        };
        let child = command.env("PAGE_BYTES", page_bytes.to_string()).spawn();
        let app = Self {
            child: child.ok()?,
            address: (HOST, port).into(),
        };
        let began = Instant::now();
        while TcpStream::connect(app.address).is_err() {
            assert!(began.elapsed() < LONGEST_START, "{kind:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        Some(app)
    }

    /// Its metrics page, as a client on this machine gets it.
    pub fn page(&self) -> Page {
        let read = || {
            let began = Instant::now();
            let mut stream = TcpStream::connect(self.address).unwrap();
            stream
                .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut page = Vec::new();
            stream.read_to_end(&mut page).unwrap();
            (began.elapsed(), page.len())
        };
        let (took, bytes) = (0..5).map(|_| read()).min().unwrap();
        Page { bytes, took }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether this process was started to be the app that answers at once.
pub fn is_static_app() -> bool {
    env::var_os(STATIC_APP).is_some()
}

/// Answers every request at once, on kept connections too.
pub fn static_app() {
    let listener = TcpListener::bind(env::var(STATIC_APP).unwrap()).unwrap();
    for stream in listener.incoming().map_while(Result::ok) {
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    while let Ok(length @ 1..) = stream.read(&mut request) {
        let request = &request[..length];
        let says_close = b"connection: close";
        let closes = request
            .windows(says_close.len())
            .any(|words| words.eq_ignore_ascii_case(says_close));
        let body = match request.starts_with(b"GET /metrics") {
            true => "# TYPE app_requests_inprogress gauge\napp_requests_inprogress 1\n",
            false => "ok",
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        if stream.write_all((head + body).as_bytes()).is_err() || closes {
            return;
        }
    }
}
