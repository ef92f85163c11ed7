//! The memory of the real sidecar while it drains an app with many connections.
//!
//! As in the socket table's benchmark, both ends of each connection are on the app's port, and half of the sockets are in
//! the middle of a request, so that the drain ends at its deadline.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use super::sockets::Crowd;

pub fn bench() {
    println!(
        "\n| sockets on the app's port | RSS while serving | RSS after a drain | of it anonymous |"
    );
    println!("| --- | --- | --- | --- |");
    for sockets in [0, 1_000, 10_000, 50_000] {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let crowd = Crowd::gather(port, sockets / 2);
        let sidecar = Sidecar::start(port);
        let serving = sidecar.kib("VmRSS");
        let verdict = ask(sidecar.address, "POST /drain?wait=true");
        assert!(verdict.contains("tookSeconds"), "{verdict}");
        let (drained, anonymous) = (sidecar.kib("VmRSS"), sidecar.kib("RssAnon"));
        println!("| {sockets} | {serving} KiB | {drained} KiB | {anonymous} KiB |");
        drop(crowd);
    }
}

struct Sidecar {
    child: Child,
    address: SocketAddr,
}

impl Sidecar {
    fn start(app_port: u16) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
            .args([
                "run",
                "--listen=127.0.0.1:0",
                "--log-format=json",
                "--timeout=4s",
                "--min-wait=3s",
            ])
            .arg(format!("--app-port={app_port}"))
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
        assert!(ask(address, "GET /readyz").contains(" 200 "));
        sidecar
    }

    fn kib(&self, line: &str) -> u64 {
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

fn ask(address: SocketAddr, what: &str) -> String {
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
