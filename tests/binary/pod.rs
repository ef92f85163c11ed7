//! A pod's network: a namespace of its own, with callers outside of it. Only root may make one.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::client::Client;
use super::support::*;

/// A network namespace that ends with the test, and what is in it.
pub struct Pod {
    name: String,
    outside: String,
    number: u8,
}

impl Pod {
    /// Makes one, where that may be done; else says so.
    pub fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let id = std::process::id();
        let number = ((id * 7 + NEXT.fetch_add(1, Ordering::Relaxed)) % 200 + 20) as u8;
        let pod = Self {
            name: format!("gkt{id}n{number}"),
            outside: format!("gkt{number}o"),
            number,
        };
        if !ip(&["netns", "add", &pod.name]) {
            println!("skipped: no network namespace may be made here; run the test as root");
            return None;
        }
        let inside = format!("gkt{number}p");
        let of = |n: u8| format!("{}/24", pod.outside_v4(n));
        let link = [
            "link",
            "add",
            &pod.outside,
            "type",
            "veth",
            "peer",
            "name",
            &inside,
        ];
        let made = ip(&link)
            && ip(&["link", "set", &inside, "netns", &pod.name])
            && ip(&["link", "set", &pod.outside, "up"])
            && (1..60).all(|n| {
                n == 2
                    || ip(&["address", "add", &of(n), "dev", &pod.outside])
                        && ip(&[
                            "address",
                            "add",
                            &format!("{}/64", pod.outside_v6(n)),
                            "dev",
                            &pod.outside,
                            "nodad",
                        ])
            })
            && pod.ip_inside(&["address", "add", &of(2), "dev", &inside])
            && pod.ip_inside(&[
                "address",
                "add",
                &format!("{}/64", pod.outside_v6(2)),
                "dev",
                &inside,
                "nodad",
            ])
            && pod.ip_inside(&["link", "set", &inside, "up"])
            && pod.ip_inside(&["link", "set", "lo", "up"]);
        assert!(made, "a network namespace, but no link to it");
        Some(pod)
    }

    fn ip_inside(&self, words: &[&str]) -> bool {
        let mut all = vec!["-n", &self.name];
        all.extend(words);
        ip(&all)
    }

    fn outside_v4(&self, n: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.number, n)
    }

    fn outside_v6(&self, n: u8) -> Ipv6Addr {
        Ipv6Addr::new(0xfd00, 0x213, self.number.into(), 0, 0, 0, 0, n.into())
    }

    /// An address outside of the pod from which to call it.
    pub fn caller(&self, n: u8) -> IpAddr {
        self.outside_v4(n).into()
    }

    /// The same over IPv6.
    pub fn caller_v6(&self, n: u8) -> IpAddr {
        self.outside_v6(n).into()
    }

    /// A command that runs in the pod.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// An app in the pod, and its port.
    pub fn app(&self, flags: &[&str]) -> (Process, u16) {
        let mut command = self.command("python3");
        command.arg(folder("tests/apps/closing_app.py")).args(flags);
        let mut app = Process::start(&mut command);
        let port = app.line("the app's port", |line| {
            line.strip_prefix("listening on port ")?.parse().ok()
        });
        (app, port)
    }

    /// The sidecar in the pod. The kubelet calls it from the first address outside.
    pub fn sidecar(&self, flags: &[&str]) -> PodSidecar {
        let mut command = self.command(env!("CARGO_BIN_EXE_gracekeeper"));
        command
            .args(["run", "--listen=[::]:0", "--log-format=json", "--kube=off"])
            .args(flags);
        let mut process = Process::start(&mut command);
        let port = process.line("the sidecar's address", |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            let address: SocketAddr = line.get("address")?.as_str()?.parse().ok()?;
            Some(address.port())
        });
        PodSidecar { process, port }
    }

    /// Connects to a port of the pod from an address outside.
    pub fn connect(&self, from: IpAddr, port: u16) -> Client {
        let to: IpAddr = match from {
            IpAddr::V4(_) => self.outside_v4(2).into(),
            IpAddr::V6(_) => self.outside_v6(2).into(),
        };
        Client::connect_from(from, SocketAddr::new(to, port))
    }

    /// Asks for a path on a new connection.
    pub fn ask(&self, from: IpAddr, port: u16, path: &str) -> std::io::Result<String> {
        Ok(self.connect(from, port).ask(path)?.body)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        ip(&["link", "del", &self.outside]);
        ip(&["netns", "del", &self.name]);
    }
}

fn ip(words: &[&str]) -> bool {
    let mut ip = Command::new("ip");
    ip.args(words).stdout(Stdio::null()).stderr(Stdio::null());
    ip.status().is_ok_and(|status| status.success())
}

/// A sidecar in a pod.
pub struct PodSidecar {
    pub process: Process,
    pub port: u16,
}

impl PodSidecar {
    /// Calls a hook as the kubelet does, and waits for the verdict.
    pub fn drain(&self, pod: &Pod, hook: &str) -> Value {
        let body = pod.ask(pod.caller(1), self.port, &format!("/prestop/{hook}"));
        serde_json::from_str(&body.unwrap()).unwrap()
    }
}

impl Drop for PodSidecar {
    fn drop(&mut self) {
        if self.process.running() {
            self.process.signal("INT");
        }
    }
}

/// Something that is done again and again until this is dropped.
pub struct Steadily {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Steadily {
    /// Does it now, and then each time so long after the last time it was due.
    pub fn start(every: Duration, mut work: impl FnMut() + Send + 'static) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let ends = over.clone();
        let thread = thread::spawn(move || {
            let mut due = Instant::now();
            while !ends.load(Ordering::Relaxed) {
                work();
                due += every;
                while Instant::now() < due && !ends.load(Ordering::Relaxed) {
                    thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Steadily {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
