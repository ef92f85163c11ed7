//! The real sidecar as a child process of a benchmark; `GRACEKEEPER=/path` names another binary, such as the image's.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;

/// The sidecar's program.
pub fn binary() -> OsString {
    let built = env!("CARGO_BIN_EXE_gracekeeper");
    std::env::var_os("GRACEKEEPER").unwrap_or_else(|| built.into())
}

/// Ends when dropped.
pub struct Sidecar {
    pub child: Child,
    pub address: SocketAddr,
}

impl Sidecar {
    /// Starts it with these flags, and waits until it is ready.
    pub fn start(flags: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .args(["run", "--listen=127.0.0.1:0", "--log-format=json"])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let address = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| {
                let line: serde_json::Value = serde_json::from_str(&line).ok()?;
                line["address"].as_str()?.parse().ok()
            })
            .unwrap();
        thread::spawn(move || lines.for_each(drop));
        let sidecar = Self { child, address };
        assert!(sidecar.ask("GET /readyz").contains(" 200 "));
        sidecar
    }

    /// The answer to a request.
    pub fn ask(&self, what: &str) -> String {
        ask(self.address, what)
    }

    /// What a line of its status says: KiB where it is about memory (man 5 proc_pid_status).
    pub fn status(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
        let digits: String = value.chars().filter(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A port on which nothing listens.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// The answer to a request.
pub fn ask(address: SocketAddr, what: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "{what} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
