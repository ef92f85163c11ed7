//! What breaks around a drain: the app, the sidecar's own resources, the kernel's answers. The verdict is right all the
//! same, the deadline is kept, and the sidecar ends when it should.

mod kernel;

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::support::*;

fn verdict(hook: JoinHandle<Option<Answer>>) -> Value {
    hook.join().unwrap().expect("the hook's answer").json()
}

/// By when a drain with this budget has ended, in seconds, however loaded the machine is.
fn kept(verdict: &Value, budget: f64) {
    let took = verdict["tookSeconds"].as_f64().unwrap();
    assert!(
        took < budget + 10.0,
        "the deadline of {budget} s is kept: {verdict}"
    );
}

/// The command that runs another one without something.
fn without(what: &str) -> Vec<String> {
    let script = folder("tests/apps/without.py").display().to_string();
    vec!["python3".to_owned(), script, what.to_owned()]
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

fn port_of(base: &str) -> u16 {
    base.rsplit(':').next().unwrap().parse().unwrap()
}

/// A drain of a shop, watched by its gauge and its port, with a client in it.
struct Shop {
    app: Process,
    base: String,
    sidecar: Sidecar,
    gate: Gate,
    request: JoinHandle<Option<Answer>>,
}

impl Shop {
    fn draining(limit: &[&str], flags: &[&str]) -> (Self, JoinHandle<Option<Answer>>) {
        let (app, base) = shop(0);
        let mut all = vec![shop_source(&base), format!("--app-port={}", port_of(&base))];
        all.extend(["--min-wait=0s", "--quiet-period=200ms"].map(str::to_owned));
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let sidecar = Sidecar::start_under(limit, &all, &[]);
        sidecar.wait_for_sources();
        let gate = Gate::new();
        let request = gate.enter(&base, "a");
        let hook = sidecar.hook("/prestop/self");
        wait_for("the request to be counted", || {
            (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
        });
        let shop = Self {
            app,
            base,
            sidecar,
            gate,
            request,
        };
        (shop, hook)
    }

    /// Lets the request go, and sees the drain end with it.
    fn finishes(self, hook: JoinHandle<Option<Answer>>) -> (Value, Sidecar) {
        assert!(!hook.is_finished(), "the work is not done");
        self.gate.open("a");
        self.ends_with(hook)
    }

    /// Sees the drain end once the request is let go.
    fn ends_with(self, hook: JoinHandle<Option<Answer>>) -> (Value, Sidecar) {
        assert_eq!(self.request.join().unwrap().unwrap().status, 200);
        let verdict = verdict(hook);
        assert_eq!(verdict["outcome"], "drained", "{verdict}");
        (verdict, self.sidecar)
    }
}

// The app.

#[test]
fn a_frozen_app_is_waited_for_until_it_goes_on() {
    let (shop, hook) = Shop::draining(&[], &["--grace-period=120s", "--read-timeout=200ms"]);
    shop.app.signal("STOP");
    wait_for("the app to be silent", || {
        (shop.sidecar.status()["sources"][0]["result"] == "timeout").then_some(())
    });
    thread::sleep(Duration::from_secs(1));
    assert!(!hook.is_finished(), "what does not answer is not idle");
    shop.app.signal("CONT");
    let (_, sidecar) = shop.finishes(hook);
    ends(sidecar);
}

#[test]
fn a_frozen_app_is_waited_for_until_the_deadline_and_its_count_is_unknown() {
    let flags = ["--grace-period=6s", "--reserve=2s", "--read-timeout=200ms"];
    let (shop, hook) = Shop::draining(&[], &flags);
    shop.app.signal("STOP");
    let verdict = verdict(hook);
    shop.app.signal("CONT");
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"deadline".into(), &().into()),
        "{verdict}"
    );
    kept(&verdict, 4.0);
    shop.gate.open("a");
    shop.request.join().unwrap();
    ends(shop.sidecar);
}

#[test]
fn an_app_that_dies_in_the_middle_of_a_drain_ends_it() {
    let (mut shop, hook) = Shop::draining(&[], &["--grace-period=120s"]);
    shop.app.kill();
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "app-gone", "{verdict}");
    assert!(shop.request.join().unwrap().is_none());
    kept(&verdict, 20.0);
    ends(shop.sidecar);
}

#[test]
fn an_app_that_is_started_again_in_the_middle_of_a_drain_does_not_keep_it() {
    let (mut shop, hook) = Shop::draining(&[], &["--grace-period=120s"]);
    shop.app.kill();
    let (_again, base) = self::shop(port_of(&shop.base));
    assert_eq!(base, shop.base);
    assert!(shop.request.join().unwrap().is_none());
    let verdict = verdict(hook);
    let outcome = verdict["outcome"].as_str().unwrap();
    assert!(["drained", "app-gone"].contains(&outcome), "{verdict}");
    kept(&verdict, 20.0);
    ends(shop.sidecar);
}

#[test]
fn an_app_that_listens_no_more_and_works_on_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let port = format!("--app-port={}", address.port());
    let sidecar = Sidecar::start(&[
        &port,
        "--min-wait=0s",
        "--quiet-period=200ms",
        "--grace-period=120s",
    ]);
    sidecar.wait_for_sources();
    let mut client = Client::connect(address);
    client.request("/work").unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = [0; 4096];
    assert!(stream.read(&mut head).unwrap() > 0);
    let hook = sidecar.hook("/prestop/self");
    drop(listener);
    // Longer than an app has to be seen gone.
    thread::sleep(Duration::from_secs(3));
    assert!(!hook.is_finished(), "a request is in flight");
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .unwrap();
    drop(stream);
    assert_eq!(client.reply().unwrap().status, 200);
    let verdict = verdict(hook);
    let outcome = verdict["outcome"].as_str().unwrap();
    assert!(["drained", "app-gone"].contains(&outcome), "{verdict}");
    kept(&verdict, 30.0);
    assert_eq!(sidecar.status()["cut"], 0);
    ends(sidecar);
}

// The sidecar.

#[test]
fn a_sidecar_that_was_frozen_goes_on_where_it_was() {
    let (shop, hook) = Shop::draining(&[], &["--grace-period=120s"]);
    shop.sidecar.process.signal("STOP");
    thread::sleep(Duration::from_secs(10));
    shop.sidecar.process.signal("CONT");
    let (verdict, sidecar) = shop.finishes(hook);
    assert!(
        verdict["tookSeconds"].as_f64().unwrap() >= 10.0,
        "{verdict}"
    );
    ends(sidecar);
}

#[test]
fn a_sidecar_that_was_frozen_beyond_its_deadline_answers_as_soon_as_it_can() {
    let flags = ["--grace-period=8s", "--reserve=3s"];
    let (shop, hook) = Shop::draining(&[], &flags);
    shop.sidecar.process.signal("STOP");
    thread::sleep(Duration::from_secs(10));
    shop.sidecar.process.signal("CONT");
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "deadline", "{verdict}");
    kept(&verdict, 10.0);
    shop.gate.open("a");
    shop.request.join().unwrap();
    ends(shop.sidecar);
}

#[test]
fn arrivals_while_the_sidecar_was_frozen_are_counted() {
    let (shop, hook) = Shop::draining(&[], &["--grace-period=120s"]);
    // The first look at the table has been.
    wait_for("the first look", || {
        shop.sidecar.status()["arrivals"].as_u64()
    });
    thread::sleep(Duration::from_millis(500));
    shop.sidecar.process.signal("STOP");
    for _ in 0..5 {
        let answer = ask("GET", &format!("{}/hello", shop.base), &[]).unwrap();
        assert_eq!(answer.status, 200);
    }
    shop.sidecar.process.signal("CONT");
    let (verdict, sidecar) = shop.finishes(hook);
    assert_eq!(verdict["arrivals"], 5, "{verdict}");
    ends(sidecar);
}

#[test]
fn a_sidecar_that_is_restarted_in_the_middle_of_a_drain_goes_on_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining");
    let drain_file = format!("--drain-file={}", file.display());
    let (mut shop, hook) = Shop::draining(&[], &["--grace-period=120s", &drain_file]);
    wait_for("the drain file", || file.exists().then_some(()));
    shop.sidecar.process.kill();
    assert!(hook.join().unwrap().is_none(), "the kubelet waits no more");
    let source = shop_source(&shop.base);
    let port = format!("--app-port={}", port_of(&shop.base));
    let times = [
        "--min-wait=0s",
        "--quiet-period=200ms",
        "--grace-period=120s",
    ];
    let flags = [&source, &port, times[0], times[1], times[2], &drain_file];
    let again = Sidecar::start(&flags);
    wait_for("the drain", || {
        (again.status()["phase"] == "draining").then_some(())
    });
    assert_eq!(again.get("/readyz").status, 503);
    let hook = again.hook("/prestop/app");
    shop.gate.open("a");
    assert_eq!(shop.request.join().unwrap().unwrap().status, 200);
    let told = verdict(hook);
    assert_eq!(
        (&told["outcome"], &told["trigger"], &told["going"]),
        (&"drained".into(), &"sidecar restart".into(), &false.into()),
        "{told}"
    );
    // Nothing says that the pod is going: it opens again with its app.
    shop.app.kill();
    wait_for("the app to be gone", || {
        (again.status()["sources"][0]["result"] == "refused").then_some(())
    });
    let (_app, _) = self::shop(port_of(&shop.base));
    wait_for("serving", || {
        (again.status()["phase"] == "serving" && !file.exists()).then_some(())
    });
    drop(shop.sidecar);
    ends(again);
}

#[test]
fn of_a_thousand_hooks_at_once_the_kubelets_is_answered_and_one_drain_runs() {
    let (shop, kubelets) = {
        let (shop, first) = Shop::draining(&[], &["--grace-period=120s"]);
        let mut kubelet =
            Client::connect_from(Ipv4Addr::new(127, 0, 0, 2).into(), shop.sidecar.address);
        kubelet.request("/prestop/app").unwrap();
        (shop, (kubelet, first))
    };
    let mut hooks: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(shop.sidecar.address).unwrap();
            // It may have been sent away already.
            let _ = stream.write_all(b"GET /prestop/app HTTP/1.1\r\nHost: x\r\n\r\n");
            stream
        })
        .collect();
    assert_eq!(shop.sidecar.get("/livez").status, 200);
    assert_eq!(shop.sidecar.status()["phase"], "draining");
    let (mut kubelet, first) = kubelets;
    // The first caller has the address of the thousand, and the most connections come from there.
    shop.gate.open("a");
    assert_eq!(shop.request.join().unwrap().unwrap().status, 200);
    let reply = kubelet.reply().expect("the kubelet's hook is answered");
    let told: Value = serde_json::from_str(&reply.body).unwrap();
    assert_eq!(told["outcome"], "drained", "{told}");
    drop(first);
    let mut answered = 0;
    for stream in &mut hooks {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut head = [0; 12];
        answered += usize::from(stream.read_exact(&mut head).is_ok() && head.ends_with(b"200"));
    }
    assert!((1..=256).contains(&answered), "{answered}");
    let page = shop.sidecar.get("/metrics").body;
    assert!(
        page.contains("gracekeeper_drains_total{outcome=\"drained\"} 1\n"),
        "{page}"
    );
    ends(shop.sidecar);
}

#[test]
fn a_sidecar_out_of_file_descriptors_reads_its_sources_and_answers_the_kubelet() {
    let limit = ["prlimit", "--nofile=64"];
    let (shop, hook) = Shop::draining(&limit, &["--grace-period=120s"]);
    let mut idle: Vec<TcpStream> = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(shop.sidecar.address).unwrap());
    }
    let result = || shop.sidecar.status()["sources"][0]["result"].clone();
    for _ in 0..20 {
        assert_eq!(shop.sidecar.get("/livez").status, 200);
        assert_eq!(result(), "ok", "its own reads find room");
    }
    let (_, sidecar) = shop.finishes(hook);
    drop(idle);
    ends(sidecar);
}

/// The flags of a command that runs another one within so much memory; nothing where that cannot be had.
struct Memory(PathBuf);

impl Memory {
    fn limit(mebibytes: u64) -> Option<Self> {
        let name = format!("gracekeeper-test-{}", std::process::id());
        for (root, file) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let group = Path::new(root).join(&name);
            if fs::create_dir(&group).is_err() {
                continue;
            }
            let limit = (mebibytes << 20).to_string();
            if fs::write(group.join(file), limit).is_ok() {
                return Some(Self(group));
            }
            let _ = fs::remove_dir(&group);
        }
        println!("skipped: no memory cgroup may be made here; run the test as root");
        None
    }

    fn script(&self) -> String {
        format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It is empty once its process has been waited for.
        for _ in 0..200 {
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn sixteen_mebibytes_are_enough_beside_an_endless_page_and_a_thousand_clients() {
    let Some(memory) = Memory::limit(16) else {
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endless = format!(
        "--inflight=prometheus+http://{}/metrics#busy",
        listener.local_addr().unwrap()
    );
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || -> std::io::Result<()> {
                let mut stream = stream?;
                let _ = stream.read(&mut [0; 4096])?;
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\nbusy 0\n")?;
                // Lines that are as long as they can be.
                let line = format!("busy{{a=\"{}\"}} 1", "x".repeat(1 << 20));
                loop {
                    stream.write_all(line.as_bytes())?;
                }
            });
        }
    });
    let script = memory.script();
    let limit = ["sh", "-c", &script, "sh"];
    let flags = ["--grace-period=9s", "--reserve=3s", &endless];
    let (shop, hook) = Shop::draining(&limit, &flags);
    let mut clients: Vec<TcpStream> = (0..1000)
        .map(|_| {
            let mut stream = TcpStream::connect(shop.sidecar.address).unwrap();
            let _ = stream.write_all(b"GET /status HTTP/1.1\r\nHost: x\r\nX-Long: ");
            let _ = stream.write_all(&[b'x'; 7000]);
            stream
        })
        .collect();
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "deadline", "{verdict}");
    kept(&verdict, 6.0);
    clients.clear();
    shop.gate.open("a");
    shop.request.join().unwrap();
    ends(shop.sidecar);
}

#[test]
fn a_pod_that_can_start_no_more_threads_is_drained_and_leaves_its_messages() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining");
    let message = folder.path().join("message");
    let limit = without("threads");
    let flags = [
        format!("--drain-file={}", file.display()),
        format!("--termination-log={}", message.display()),
        "--grace-period=120s".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (shop, hook) = Shop::draining(&words(&limit), &flags);
    wait_for("the drain file", || file.exists().then_some(()));
    let (_, sidecar) = shop.finishes(hook);
    wait_for("the message", || {
        fs::read_to_string(&message)
            .ok()
            .filter(|text| text.starts_with("drained after"))
    });
    ends(sidecar);
}

#[test]
fn a_full_disk_takes_no_message_and_changes_no_drain() {
    let folder = tempfile::tempdir().unwrap();
    let full = |name: &str| {
        let path = folder.path().join(name);
        symlink("/dev/full", &path).unwrap();
        path
    };
    let message = full("message");
    let flag = format!("--termination-log={}", message.display());
    let (_app, base) = shop(0);
    let file = folder.path().join("draining");
    let drain_file = format!("--drain-file={}", file.display());
    let source = shop_source(&base);
    let times = ["--min-wait=1s", "--quiet-period=0s"];
    let sidecar = Sidecar::start(&[&source, &flag, &drain_file, times[0], times[1]]);
    sidecar.wait_for_sources();
    wait_for("what was there at start to be removed", || {
        (!file.exists()).then_some(())
    });
    full("draining");
    let verdict = verdict(sidecar.hook("/prestop/self"));
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    kept(&verdict, 25.0);
    for warning in ["cannot make the drain file", "cannot leave the verdict"] {
        wait_for(warning, || (sidecar.said(warning).len() == 1).then_some(()));
    }
    ends(sidecar);
}
