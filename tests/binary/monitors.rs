//! Scrapes, health checks and proxies around a drain, in a network namespace as a pod has one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::pod::{Pod, Steadily};

const TIMES: [&str; 4] = [
    "--min-wait=2s",
    "--quiet-period=500ms",
    "--max-quiet=6s",
    "--grace-period=60s",
];

fn flags(port: u16) -> Vec<String> {
    let port = format!("--app-port={port}");
    TIMES.into_iter().map(str::to_owned).chain([port]).collect()
}

/// Calls an idle app from these addresses for a while, each with such a beat, and then drains it.
fn visited(pod: &Arc<Pod>, callers: &[(IpAddr, Duration)], before: Duration) -> Value {
    let (_app, port) = pod.app(&[]);
    let flags = flags(port);
    let sidecar = pod.sidecar(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let mut monitors = Vec::new();
    for (n, &(caller, every)) in callers.iter().enumerate() {
        let pod = pod.clone();
        monitors.push(Steadily::start(every, move || {
            let _ = pod.ask(caller, port, &format!("/metrics?of={n}"));
        }));
        thread::sleep(every / callers.len() as u32);
    }
    thread::sleep(before);
    sidecar.drain(pod, "app")
}

fn named(verdict: &Value) -> Vec<String> {
    let monitors = verdict["monitors"].as_array().cloned().unwrap_or_default();
    let address = |of: &Value| of["address"].as_str().unwrap().to_owned();
    monitors.iter().map(address).collect()
}

#[test]
fn scrapes_and_health_checks_do_not_keep_an_idle_pod() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let callers = [
        (pod.caller(21), Duration::from_secs(2)),
        (pod.caller(22), Duration::from_secs(3)),
        (pod.caller_v6(23), Duration::from_secs(2)),
    ];
    let verdict = visited(&pod, &callers, Duration::from_secs(12));
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    let named = named(&verdict);
    for (caller, _) in callers {
        assert!(named.contains(&caller.to_string()), "{caller}: {verdict}");
    }
}

#[test]
fn monitors_that_the_kernel_does_not_remember_show_themselves() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let caller = (pod.caller(31), Duration::from_secs(3));
    let verdict = visited(&pod, &[caller], Duration::ZERO);
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
}

/// Irregular requests until `over`; how many were lost.
fn calls(pod: Arc<Pod>, from: IpAddr, port: u16, over: Arc<AtomicBool>) -> thread::JoinHandle<u32> {
    thread::spawn(move || {
        let (mut n, mut lost) = (0_u64, 0);
        while !over.load(Ordering::Relaxed) {
            n += 1;
            let path = format!("/work?seconds=0.05&{}", "x".repeat((n * 7 % 23) as usize));
            lost += u32::from(pod.ask(from, port, &path).is_err());
            thread::sleep(Duration::from_millis(300 + n * 370 % 600));
        }
        lost
    })
}

#[test]
fn clients_at_the_kubelets_address_are_seen_beside_monitors() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let (_app, port) = pod.app(&[]);
    let flags = flags(port);
    let sidecar = pod.sidecar(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let scraper = {
        let pod = pod.clone();
        Steadily::start(Duration::from_secs(2), move || {
            let _ = pod.ask(pod.caller(21), port, "/metrics");
        })
    };
    let over = Arc::new(AtomicBool::new(false));
    let clients = calls(pod.clone(), pod.caller(1), port, over.clone());
    thread::sleep(Duration::from_secs(6));
    let drain = thread::spawn({
        let pod = pod.clone();
        move || sidecar.drain(&pod, "app")
    });
    // Routes change late.
    thread::sleep(Duration::from_secs(9));
    assert!(!drain.is_finished(), "clients still called");
    over.store(true, Ordering::Relaxed);
    let lost = clients.join().unwrap();
    let verdict = drain.join().unwrap();
    assert_eq!(
        (&verdict["outcome"], lost),
        (&"drained".into(), 0),
        "{verdict}"
    );
    assert!(verdict["arrivals"].as_u64().unwrap() >= 5, "{verdict}");
    drop(scraper);
}

#[test]
fn requests_of_a_proxy_in_the_pod_show_that_routes_still_lead_here() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let (_app, port) = pod.app(&["keep"]);
    let flags = flags(port);
    let sidecar = pod.sidecar(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    // A client in the pod, as the proxy is.
    let script = format!(
        "import http.client, sys, time\n\
         c = http.client.HTTPConnection('127.0.0.1', {port}, timeout=60)\n\
         n = 0\n\
         while True:\n\
         \x20   n += 1\n\
         \x20   c.request('GET', '/work?' + 'x' * (n * 7 % 23), headers={{'X-Request-Id': 'r' * 36}})\n\
         \x20   c.getresponse().read()\n\
         \x20   print('asked', flush=True)\n\
         \x20   time.sleep(0.4 + n * 37 % 60 / 100)\n"
    );
    let mut command = pod.command("python3");
    let mut proxy = super::support::Process::start(command.args(["-c", &script]));
    proxy.line("its first request", |line| {
        line.contains("asked").then_some(())
    });
    let drain = thread::spawn({
        let pod = pod.clone();
        move || sidecar.drain(&pod, "app")
    });
    thread::sleep(Duration::from_secs(9));
    assert!(!drain.is_finished(), "the proxy still brought requests");
    proxy.kill();
    let verdict = drain.join().unwrap();
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    assert!(verdict["arrivals"].as_u64().unwrap() >= 5, "{verdict}");
}

#[test]
fn a_pod_whose_app_never_came_up_is_gone_at_once_and_a_mistyped_port_is_named() {
    let Some(pod) = Pod::new() else { return };
    let sidecar = pod.sidecar(&["--app-port=8000", "--grace-period=30s"]);
    let verdict = sidecar.drain(&pod, "self");
    assert_eq!(verdict["outcome"], "app-gone", "{verdict}");
    // It listens too.
    drop(sidecar);
    let (_app, port) = pod.app(&[]);
    let sidecar = pod.sidecar(&["--app-port=8000", "--grace-period=10s", "--min-wait=1s"]);
    // On a deletion both hooks come.
    let verdict = std::thread::scope(|scope| {
        let own = scope.spawn(|| sidecar.drain(&pod, "self"));
        sidecar.drain(&pod, "app");
        own.join().unwrap()
    });
    assert_eq!(verdict["outcome"], "deadline", "{verdict}");
    let waiting_for = verdict["waitingFor"].as_str().unwrap();
    assert!(waiting_for.contains(&port.to_string()), "{verdict}");
}

#[test]
fn a_drain_that_clients_hold_to_its_deadline_names_them() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let (_app, port) = pod.app(&[]);
    let port_flag = format!("--app-port={port}");
    let sidecar = pod.sidecar(&[&port_flag, "--grace-period=14s", "--min-wait=1s"]);
    let over = Arc::new(AtomicBool::new(false));
    let clients = calls(pod.clone(), pod.caller(40), port, over.clone());
    let verdict = sidecar.drain(&pod, "app");
    over.store(true, Ordering::Relaxed);
    clients.join().unwrap();
    assert_eq!(verdict["outcome"], "deadline", "{verdict}");
    let waiting_for = verdict["waitingFor"].as_str().unwrap();
    assert!(
        waiting_for.contains(&pod.caller(40).to_string()),
        "{verdict}"
    );
}

#[test]
fn a_restart_that_no_read_sees_ends_the_reopening() {
    let Some(pod) = Pod::new().map(Arc::new) else {
        return;
    };
    let (mut app, port) = pod.app(&[]);
    let port_flag = format!("--app-port={port}");
    let sidecar = pod.sidecar(&[
        &port_flag,
        "--grace-period=600s",
        "--min-wait=0s",
        "--poll-interval=20s",
    ]);
    let verdict = sidecar.drain(&pod, "app");
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    app.kill();
    let mut restarted = pod.command("python3");
    restarted.args([
        "-c",
        &format!(
            "import socket, time\n\
         s = socket.create_server(('::', {port}), family=socket.AF_INET6, dualstack_ipv6=True)\n\
         print('up', flush=True)\n\
         time.sleep(600)\n"
        ),
    ]);
    let mut app = super::support::Process::start(&mut restarted);
    app.line("the app's second start", |line| {
        line.contains("up").then_some(())
    });
    super::support::wait_for("the pod to serve again", || {
        let status = pod.ask(pod.caller(1), sidecar.port, "/status").ok()?;
        let status: Value = serde_json::from_str(&status).ok()?;
        (status["phase"] == "serving").then_some(())
    });
}
