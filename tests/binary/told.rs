//! Clients that keep their connections: where the app is told of a drain it tells them to go, and none loses a request;
//! where it is not, what is lost is counted.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use serde_json::Value;

use super::client::Client;
use super::servers::{self, Server};
use super::support::*;

/// Where the kubelet calls from, which no client does: of its connections some are taken for probes.
const KUBELET: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Calls the hook as the kubelet does.
fn call_hook(sidecar: &Sidecar) -> Client {
    let mut hook = Client::connect_from(KUBELET, sidecar.address);
    hook.request("/prestop/self").unwrap();
    wait_for("the hook to be taken in", || {
        (sidecar.status()["phase"] != "serving").then_some(())
    });
    hook
}

/// The verdict, once the hook is answered.
fn verdict(mut hook: Client) -> Value {
    serde_json::from_str(&hook.reply().expect("the hook's answer").body).unwrap()
}

/// How many clients keep a connection each.
const CLIENTS: usize = 6;

/// What became of a client.
#[derive(Debug, PartialEq)]
enum Fate {
    /// It was told to go, and went.
    Told,
    /// A request of its was not answered.
    Cut,
}

/// Asks again and again over one connection, until it is told to go.
fn regular(address: SocketAddr, path: &str, answers: &AtomicUsize) -> Fate {
    let mut client = Client::connect(address);
    for n in 1.. {
        match client.ask(path) {
            Ok(reply) => {
                assert_eq!(reply.status, 200, "{reply:?}");
                // Once for each, so that a sum tells that all have begun.
                answers.fetch_add(usize::from(n == 3), Ordering::Relaxed);
                if reply.goodbye {
                    return Fate::Told;
                }
            }
            Err(_) => return Fate::Cut,
        }
        thread::sleep(Duration::from_millis(5));
    }
    unreachable!("it asks for ever");
}

fn wait_for_clients(answers: &AtomicUsize) {
    wait_for("each client to be served", || {
        (answers.load(Ordering::Relaxed) == CLIENTS).then_some(())
    });
}

/// Sees clients leave an app that is told, which is killed as soon as the hook is answered.
fn none_is_lost(server: &mut Server, notice: &str) {
    let port = format!("--app-port={}", server.address.port());
    let times = ["--min-wait=1s", "--quiet-period=300ms"];
    let sidecar = Sidecar::start(&[&port, notice, times[0], times[1]]);
    sidecar.wait_for_sources();
    let address = server.address;
    let answers = AtomicUsize::new(0);
    thread::scope(|scope| {
        let answers = &answers;
        let clients: Vec<ScopedJoinHandle<Fate>> = (0..CLIENTS)
            .map(|_| scope.spawn(|| regular(address, "/hello", answers)))
            .collect();
        wait_for_clients(answers);
        let verdict = verdict(call_hook(&sidecar));
        server.process.kill();
        assert_eq!(verdict["outcome"], "drained", "{verdict}");
        for client in clients {
            assert_eq!(client.join().unwrap(), Fate::Told);
        }
    });
    let status = sidecar.status();
    assert_eq!(
        (&status["cut"], &status["verdict"]["cut"]),
        (&0.into(), &0.into()),
        "{status}"
    );
    assert!(
        sidecar
            .get("/metrics")
            .body
            .contains("gracekeeper_requests_cut_total 0")
    );
}

fn notify(server: &Server) -> String {
    format!("--notify={}/drain", server.base())
}

#[test]
fn fastapi_under_uvicorn() {
    let mut server = servers::uvicorn();
    let notice = notify(&server);
    none_is_lost(&mut server, &notice);
}

#[test]
fn flask_under_gunicorn() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining");
    let mut server = servers::gunicorn(&file);
    none_is_lost(&mut server, &format!("--drain-file={}", file.display()));
}

#[test]
fn express_under_node() {
    let mut server = servers::node();
    let notice = notify(&server);
    none_is_lost(&mut server, &notice);
}

#[test]
fn go() {
    if let Some(mut server) = servers::go() {
        let notice = notify(&server);
        none_is_lost(&mut server, &notice);
    }
}

#[test]
fn nginx() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("draining");
    let locations = include_str!("../apps/goodbye.nginx")
        .replace("/run/drain/draining", file.to_str().unwrap())
        .replace("127.0.0.1:8000", "{shop}");
    if let Some(mut server) = servers::nginx(&locations) {
        none_is_lost(&mut server, &format!("--drain-file={}", file.display()));
    }
}

#[test]
fn envoy() {
    if let Some((mut server, admin)) = servers::envoy() {
        let notice = format!("--notify=http://{admin}/healthcheck/fail");
        none_is_lost(&mut server, &notice);
    }
}

#[test]
fn the_page_on_telling_the_app_shows_the_very_lines_that_these_apps_have() {
    let trimmed = |text: &str| {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        format!("\n{}\n", lines.join("\n"))
    };
    let page = std::fs::read_to_string(folder("docs/telling-the-app.md")).unwrap();
    let mut files = Vec::new();
    for shown in page.split("<!-- lines of ").skip(1) {
        let (file, rest) = shown.split_once(" -->\n").unwrap();
        let block = rest.split("```").nth(1).unwrap();
        let (_, lines) = block.split_once('\n').unwrap();
        let whole = trimmed(&std::fs::read_to_string(folder(file)).unwrap());
        for part in lines.split("\n\n") {
            let part = trimmed(part.trim());
            assert!(whole.contains(&part), "{file} does not have{part}");
        }
        files.push(file);
    }
    let apps = [
        "fastapi_app.py",
        "gunicorn.conf.py",
        "node/app.js",
        "go/main.go",
        "goodbye.nginx",
    ];
    assert_eq!(files, apps.map(|app| format!("tests/apps/{app}")));
}

#[test]
fn where_nobody_is_told_the_verdict_says_who_stayed_and_what_was_lost() {
    let (mut app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let port = format!("--app-port={}", address.port());
    let folder = tempfile::tempdir().unwrap();
    let message = folder.path().join("message");
    let termination_log = format!("--termination-log={}", message.display());
    let mut sidecar = Sidecar::start(&[
        &port,
        &termination_log,
        "--min-wait=0s",
        "--quiet-period=1s",
        "--max-quiet=1500ms",
    ]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let (answers, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let cut = thread::scope(|scope| {
        let (answers, over, gate) = (&answers, &over, &gate);
        // Requests take longer than the kernel's clock ticks, so that it can tell which are answered. When the hook has
        // been, every other client waits for one more answer, and the others for nothing.
        let client = move |n: usize| {
            let mut client = Client::connect(address);
            let name = n.to_string();
            for round in 1.. {
                let ends = over.load(Ordering::Relaxed);
                let path = match ends {
                    false => "/work?seconds=0.05".to_owned(),
                    true if n.is_multiple_of(2) => gate.path("/work", &name),
                    true => break,
                };
                match client.ask(&path) {
                    Ok(reply) => assert_eq!(reply.status, 200),
                    Err(_) => return (client, true),
                }
                answers.fetch_add(usize::from(round == 3), Ordering::Relaxed);
            }
            (client, false)
        };
        let clients: Vec<_> = (0..CLIENTS)
            .map(|n| scope.spawn(move || client(n)))
            .collect();
        wait_for_clients(answers);
        let verdict = verdict(call_hook(&sidecar));
        assert_eq!(
            (&verdict["outcome"], &verdict["persistent"], &verdict["cut"]),
            (&"persistent".into(), &CLIENTS.into(), &0.into()),
            "{verdict}"
        );
        over.store(true, Ordering::Relaxed);
        for n in (0..CLIENTS).step_by(2) {
            gate.wait_for(&n.to_string());
        }
        wait_for("the others to have their last answer", || {
            let mut idle = clients.iter().skip(1).step_by(2);
            idle.all(ScopedJoinHandle::is_finished).then_some(())
        });
        app.kill();
        let fates: Vec<_> = clients
            .into_iter()
            .map(|client| client.join().unwrap())
            .collect();
        fates.iter().filter(|(_, cut)| *cut).count()
    });
    assert_eq!(cut, CLIENTS / 2, "each of those that waited saw it");
    wait_for("the requests that were cut off", || {
        (sidecar.status()["cut"] == cut).then_some(())
    });
    let status = sidecar.status();
    assert_eq!(status["verdict"]["cut"], cut, "{status}");
    let metric = format!("gracekeeper_requests_cut_total {cut}");
    assert!(sidecar.get("/metrics").body.contains(&metric));
    sidecar.process.signal("TERM");
    sidecar.process.ended();
    let told = std::fs::read_to_string(&message).unwrap();
    assert!(
        told.ends_with(&format!("; requests cut off: {cut}\n")),
        "{told}"
    );
}

/// A client that comes or goes before the first read of the table was there already.
fn wait_for_the_first_look(sidecar: &Sidecar) {
    wait_for("the first look", || {
        (!sidecar.said("watching the traffic").is_empty()).then_some(())
    });
}

/// An app of which the connections are watched, a sidecar that drains until its work is done, and clients that wait for
/// answers.
fn with_waiting_clients(clients: usize) -> (Process, Sidecar, Gate, Vec<Client>) {
    let (app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let port = format!("--app-port={}", address.port());
    let source = shop_source(&base);
    let times = ["--min-wait=0s", "--quiet-period=300ms"];
    let sidecar = Sidecar::start(&[&source, &port, times[0], times[1], "--log-level=debug"]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let waiting = (0..clients).map(|n| {
        let mut client = Client::connect(address);
        client.request(&gate.path("/work", &n.to_string())).unwrap();
        gate.wait_for(&n.to_string());
        client
    });
    let waiting = waiting.collect();
    (app, sidecar, gate, waiting)
}

#[test]
fn who_waits_when_the_app_dies_before_the_hook_is_answered_is_cut_off_too() {
    let (mut app, sidecar, _gate, waiting) = with_waiting_clients(CLIENTS);
    let hook = call_hook(&sidecar);
    wait_for_the_first_look(&sidecar);
    app.kill();
    assert_eq!(verdict(hook)["outcome"], "app-gone");
    wait_for("the requests that were cut off", || {
        (sidecar.status()["cut"] == CLIENTS).then_some(())
    });
    drop(waiting);
}

#[test]
fn whoever_leaves_after_a_drain_by_hand_is_not_cut_off() {
    let (_app, sidecar, _gate, waiting) = with_waiting_clients(CLIENTS);
    assert_eq!(
        ask("POST", &sidecar.url("/drain"), &[]).unwrap().status,
        202
    );
    assert_eq!(
        ask("POST", &sidecar.url("/release"), &[]).unwrap().status,
        200
    );
    wait_for("the verdict", || {
        (sidecar.status()["phase"] == "drained").then_some(())
    });
    drop(waiting);
    thread::sleep(Duration::from_millis(500));
    assert_eq!(
        ask("DELETE", &sidecar.url("/drain"), &[]).unwrap().status,
        200
    );
    let metric = "gracekeeper_requests_cut_total 0";
    assert!(sidecar.get("/metrics").body.contains(metric));
    assert!(sidecar.said("requests were cut off").is_empty());
}

#[test]
fn requests_that_are_answered_after_the_hook_are_not_cut() {
    let (mut app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let port = format!("--app-port={}", address.port());
    let sidecar = Sidecar::start(&[&port, "--min-wait=0s", "--quiet-period=0s"]);
    sidecar.wait_for_sources();
    let verdict = verdict(call_hook(&sidecar));
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    // Quick ones, each over within one of the kernel's ticks, on connections that end and on ones that are kept.
    let mut kept = Vec::new();
    for n in 0..40 {
        let mut client = Client::connect(address);
        for _ in 0..=n % 4 {
            assert_eq!(client.ask("/hello").unwrap().status, 200);
        }
        if n % 2 == 0 {
            kept.push(client);
        }
    }
    app.kill();
    for client in &kept {
        wait_for("the end of a connection", || {
            (!client.is_open()).then_some(())
        });
    }
    drop(kept);
    thread::sleep(Duration::from_millis(500));
    let status = sidecar.status();
    assert_eq!(status["cut"], 0, "{status}");
}

#[test]
fn each_new_connection_is_an_arrival_and_no_probe_and_no_read_of_ours_is() {
    let (_app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let port = format!("--app-port={}", address.port());
    let source = shop_source(&base);
    let times = ["--min-wait=0s", "--quiet-period=300ms", "--max-quiet=1s"];
    let log = "--log-level=debug";
    let sidecar = Sidecar::start(&[&source, &port, times[0], times[1], times[2], log]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let before = gate.enter(&base, "before");
    let mut kept = Client::connect(address);
    kept.ask("/hello").unwrap();

    let hook = call_hook(&sidecar);
    wait_for_the_first_look(&sidecar);
    let over = AtomicBool::new(false);
    let (arrived, probes) = thread::scope(|scope| {
        let probing = scope.spawn(|| {
            let mut probes = 0;
            while !over.load(Ordering::Relaxed) {
                let mut probe = Client::connect_from(KUBELET, address);
                assert_eq!(probe.ask("/hello").unwrap().status, 200);
                probes += 1;
                thread::sleep(Duration::from_millis(500));
            }
            probes
        });
        let mut arrived = 0;
        for round in 0..20 {
            // Some stay and ask again, others leave at once.
            // Not from the sidecar's own address, whose last ports are known as the sidecar's.
            let mut client = Client::connect_from([127, 0, 0, 3].into(), address);
            for _ in 0..=round % 3 {
                assert_eq!(client.ask("/hello").unwrap().status, 200);
                kept.ask("/hello").unwrap();
            }
            arrived += 1;
            thread::sleep(Duration::from_millis(150));
        }
        // It connects, and says nothing.
        drop(Client::connect(address));
        over.store(true, Ordering::Relaxed);
        (arrived, probing.join().unwrap())
    });
    assert!(probes >= 4, "{probes} probes");
    gate.open("before");
    assert_eq!(before.join().unwrap().unwrap().status, 200);
    let verdict = verdict(hook);
    assert_eq!(
        (&verdict["outcome"], &verdict["arrivals"]),
        (&"drained".into(), &arrived.into()),
        "{verdict}"
    );
    let reads = sidecar.get("/metrics").body;
    let line = format!("gracekeeper_arrivals_total {arrived}");
    assert!(reads.contains(&line), "{reads}");
}
