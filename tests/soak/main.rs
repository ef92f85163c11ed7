//! A soak: drains and reopenings every few seconds, under load, beside clients that mean no good, for an hour.
//!
//! It fails when a probe fails, when a drain does not end as it should, and when memory or file descriptors of the sidecar
//! grow. How long probes take is printed beside what a server takes that does nothing, and not judged: it depends on the
//! machine.
//!
//! `SOAK_MINUTES` says how long: 60 unless it is set.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::print_stdout,
    clippy::unwrap_used,
    dead_code
)]

#[path = "../binary/client.rs"]
mod client;
#[path = "../binary/support.rs"]
mod support;

use std::collections::VecDeque;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use client::Client;
use support::{Process, Sidecar, ask, shop, wait_for};

/// Slow clients: so many new connections a minute, and how many are held at most.
const SLOW_PER_MINUTE: u32 = 10_000;
const SLOW_HELD: usize = 500;

/// What the kubelet gives a probe by default.
const PROBE_LIMIT: Duration = Duration::from_secs(1);
const PROBE_EVERY: Duration = Duration::from_millis(100);

const SAMPLE_EVERY: Duration = Duration::from_secs(5);

/// How much more a median of the last third may be than one of the first: anonymous memory in KiB, and descriptors.
/// Connections come and go, so that descriptors are compared exactly only once all is quiet.
const MEMORY_SLACK: u64 = 1024;
const DESCRIPTOR_SLACK: u64 = 64;
const QUIET_DESCRIPTOR_SLACK: u64 = 2;

/// What the kernel says of the sidecar's process.
#[derive(Debug, Clone, Copy)]
struct Sample {
    memory: u64,
    descriptors: u64,
    threads: u64,
}

impl Sample {
    fn of(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            memory: field("RssAnon:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count() as u64,
            threads: field("Threads:"),
        }
    }
}

/// What all the threads share.
#[derive(Default)]
struct Shared {
    over: AtomicBool,
    requests: AtomicU64,
    slow: AtomicU64,
    probes: Mutex<Vec<Duration>>,
    /// Of the server that does nothing.
    controls: Mutex<Vec<Duration>>,
    failures: Mutex<Vec<String>>,
}

impl Shared {
    fn goes_on(&self) -> bool {
        !self.over.load(Ordering::Relaxed)
    }

    fn fail(&self, what: String) {
        println!("FAILED: {what}");
        self.failures.lock().unwrap().push(what);
    }
}

/// A server that does nothing but answer, to tell what the machine does to every server.
fn control() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1024]);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        }
    });
    address
}

/// Asks as a kubelet does, on a new connection, and says how long it took.
fn probe_once(address: SocketAddr) -> Result<Duration, String> {
    let began = Instant::now();
    let asked = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
        stream.set_read_timeout(Some(PROBE_LIMIT))?;
        stream.write_all(
            b"GET /livez HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\nConnection: close\r\n\r\n",
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = asked();
    let took = began.elapsed();
    match answer {
        Ok(answer) if answer.starts_with(b"HTTP/1.1 200") && took < PROBE_LIMIT => Ok(took),
        Ok(answer) => Err(format!("{took:?}: {:?}", String::from_utf8_lossy(&answer))),
        Err(e) => Err(format!("{took:?}: {e}")),
    }
}

/// Probes the sidecar, and the other server before and after it. Where that one is slow too, it is the machine.
fn probe(shared: &Shared, sidecar: SocketAddr) {
    let control = control();
    let is_slow =
        |probe: &Result<Duration, String>| !matches!(probe, Ok(took) if *took < PROBE_LIMIT / 4);
    while shared.goes_on() {
        let began = Instant::now();
        let before = probe_once(control);
        let asked = probe_once(sidecar);
        if let Ok(took) = before {
            shared.controls.lock().unwrap().push(took);
        }
        match asked {
            Ok(took) => shared.probes.lock().unwrap().push(took),
            Err(e) if is_slow(&before) || is_slow(&probe_once(control)) => {
                println!("a probe after {e}, and so was one of a server that does nothing");
            }
            Err(e) => shared.fail(format!("a probe after {e}")),
        }
        thread::sleep(PROBE_EVERY.saturating_sub(began.elapsed()));
    }
}

/// Opens connections that say nothing, or a little of a request for each endpoint, and keeps them for as long as it may.
fn slow_clients(shared: &Shared, sidecar: SocketAddr) {
    let beginnings = [
        "",
        "G",
        "GET /livez HTTP/1.1\r\nHost: ",
        "GET /readyz HTTP/1.1\r\n",
        "GET /status HTTP/1.1\r\nX: ",
        "GET /metrics HTTP/1.1\r\nHost: x\r\n",
        "GET /prestop/app HTTP/1.1\r\nHost: x\r\n",
        "GET /prestop/self HTTP/1.1\r\n",
        "POST /drain HTTP/1.1\r\nContent-Length: 10\r\n\r\n1",
        "DELETE /drain HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1",
        "POST /release HTTP/1.1\r\nHost: x\r\n",
    ];
    let pause = Duration::from_secs(60) / SLOW_PER_MINUTE;
    let mut held: VecDeque<TcpStream> = VecDeque::new();
    let mut due = Instant::now();
    for n in 0.. {
        if !shared.goes_on() {
            return;
        }
        if let Ok(mut stream) = TcpStream::connect_timeout(&sidecar, PROBE_LIMIT) {
            let _ = stream.write_all(beginnings[n % beginnings.len()].as_bytes());
            held.push_back(stream);
            shared.slow.fetch_add(1, Ordering::Relaxed);
        }
        if held.len() > SLOW_HELD {
            held.pop_front();
        }
        // A byte more, on those where it still can be sent.
        if n % 100 == 0 {
            held.retain_mut(|stream| stream.write_all(b"x").is_ok());
        }
        due += pause;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Asks the app for short work, on connections that are kept and on new ones.
fn customer(shared: &Shared, app: SocketAddr, keeps: bool) {
    while shared.goes_on() {
        // The app may be being restarted.
        let Ok(stream) = TcpStream::connect_timeout(&app, PROBE_LIMIT) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let mut client = Client::on(stream);
        while shared.goes_on() && client.ask("/work?seconds=0.02").is_ok() {
            shared.requests.fetch_add(1, Ordering::Relaxed);
            thread::sleep(Duration::from_millis(30));
            if !keeps {
                break;
            }
        }
    }
}

/// A drain by hand, undone.
fn by_hand(shared: &Shared, sidecar: &Sidecar) {
    let answer = ask("POST", &sidecar.url("/drain?wait=true"), &[]);
    match answer {
        Some(answer) if answer.status == 200 => {
            let outcome = answer.json()["outcome"].clone();
            if !["drained", "persistent", "deadline"].contains(&outcome.as_str().unwrap_or("")) {
                shared.fail(format!("a drain by hand: {}", answer.body));
            }
        }
        other => shared.fail(format!("a drain by hand: {other:?}")),
    }
    let undone = ask("DELETE", &sidecar.url("/drain"), &[]).map(|answer| answer.status);
    if undone != Some(200) {
        shared.fail(format!("a drain is undone: {undone:?}"));
    }
}

/// A restart of the app's container.
fn restart(shared: &Shared, sidecar: &Sidecar, app: &mut Process, port: u16) {
    match ask("GET", &sidecar.url("/prestop/app"), &[]) {
        Some(answer) if answer.status == 200 && answer.json()["going"] == false => {}
        other => shared.fail(format!("a hook: {other:?}")),
    }
    app.kill();
    *app = shop(port).0;
}

fn is_serving(sidecar: &Sidecar) {
    wait_for("serving", || {
        (sidecar.status()["phase"] == "serving").then_some(())
    });
}

fn median(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// Compares the last third with the first, after a quarter in which buffers reach their size.
fn judge(shared: &Shared, samples: &[Sample]) {
    let steady = &samples[samples.len() / 4..];
    let third = (steady.len() / 3).max(1);
    let (first, last) = (&steady[..third], &steady[steady.len() - third..]);
    for (what, slack, of) in [
        (
            "anonymous memory, in KiB",
            MEMORY_SLACK,
            (|sample: &Sample| sample.memory) as fn(&Sample) -> u64,
        ),
        ("file descriptors", DESCRIPTOR_SLACK, |sample| {
            sample.descriptors
        }),
        ("threads", 2, |sample| sample.threads),
    ] {
        let before = median(first.iter().map(of).collect());
        let after = median(last.iter().map(of).collect());
        let most = steady.iter().map(of).max().unwrap();
        println!("{what}: {before} in the first third, {after} in the last, {most} at most");
        if after > before + slack {
            shared.fail(format!("{what} grew from {before} to {after}"));
        }
    }
}

fn print_probes(of: &str, probes: &mut [Duration]) {
    if probes.is_empty() {
        return;
    }
    probes.sort_unstable();
    let at = |share: f64| {
        let n = ((probes.len() - 1) as f64 * share) as usize;
        format!("{:.1} ms", probes[n].as_secs_f64() * 1e3)
    };
    let slow = probes.iter().filter(|took| took.as_millis() >= 50).count();
    println!(
        "probes of {of}: {}; median {}, p99 {}, p99.9 {}, longest {}; {slow} took 50 ms or longer",
        probes.len(),
        at(0.5),
        at(0.99),
        at(0.999),
        at(1.0),
    );
}

fn main() -> std::process::ExitCode {
    let minutes: f64 = std::env::var("SOAK_MINUTES").map_or(60.0, |text| text.parse().unwrap());
    let ends = Instant::now() + Duration::from_secs_f64(minutes * 60.0);
    let (mut app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let flags = [
        support::shop_source(&base),
        format!("--app-port={}", address.port()),
        format!("--notify={base}/drain"),
        format!("--drain-file={}", folder.path().join("draining").display()),
        format!(
            "--termination-log={}",
            folder.path().join("message").display()
        ),
    ];
    let mut flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    flags.extend([
        "--min-wait=500ms",
        "--quiet-period=200ms",
        "--max-quiet=1s",
        "--timeout=3s",
    ]);
    let mut sidecar = Sidecar::start(&flags);
    sidecar.wait_for_sources();
    let pid = sidecar.process.id();
    by_hand(&Shared::default(), &sidecar);
    let at_rest = Sample::of(pid);

    let shared = Arc::new(Shared::default());
    let mut samples = Vec::new();
    let mut drains = 0_u64;
    thread::scope(|scope| {
        let of = &*shared;
        let listen = sidecar.address;
        scope.spawn(move || probe(of, listen));
        scope.spawn(move || slow_clients(of, listen));
        for n in 0..4 {
            scope.spawn(move || customer(of, address, n % 2 == 0));
        }
        let mut next_sample = Instant::now();
        while Instant::now() < ends && sidecar.process.running() {
            drains += 1;
            if drains.is_multiple_of(3) {
                restart(of, &sidecar, &mut app, address.port());
            } else {
                by_hand(of, &sidecar);
            }
            is_serving(&sidecar);
            if Instant::now() >= next_sample {
                let sample = Sample::of(pid);
                println!("after {drains} drains: {sample:?}");
                samples.push(sample);
                next_sample = Instant::now() + SAMPLE_EVERY;
            }
            thread::sleep(Duration::from_millis(500));
        }
        of.over.store(true, Ordering::Relaxed);
    });
    if !sidecar.process.running() {
        shared.fail(format!(
            "the sidecar has ended: {:#?}",
            sidecar.process.lines()
        ));
        return std::process::ExitCode::FAILURE;
    }
    // The last of the slow clients are sent away.
    thread::sleep(Duration::from_secs(5));
    let quiet = Sample::of(pid);
    let requests = shared.requests.load(Ordering::Relaxed);
    let slow = shared.slow.load(Ordering::Relaxed);
    println!(
        "{minutes} minutes: {drains} drains, {requests} requests of the app, {slow} slow clients"
    );
    judge(&shared, &samples);
    println!("at rest before {at_rest:?}, and after {quiet:?}");
    if quiet.descriptors > at_rest.descriptors + QUIET_DESCRIPTOR_SLACK {
        shared.fail(format!("descriptors at rest: {at_rest:?}, {quiet:?}"));
    }
    print_probes("the sidecar", &mut shared.probes.lock().unwrap());
    print_probes(
        "a server that does nothing",
        &mut shared.controls.lock().unwrap(),
    );
    let failures = shared.failures.lock().unwrap().len();
    println!("failures: {failures}");
    u8::from(failures > 0).into()
}
