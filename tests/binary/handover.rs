//! The handover to apps that finish their work by themselves, and counters of requests.

use std::thread;
use std::time::Duration;

use super::client::Client;
use super::servers;
use super::support::*;

/// Short times for tests: routes are taken to have changed after a second without arrivals.
const TIMES: [&str; 3] = ["--min-wait=1s", "--quiet-period=300ms", "--max-quiet=2s"];

/// The verdict of a hook.
fn verdict(hook: thread::JoinHandle<Option<Answer>>) -> serde_json::Value {
    hook.join().unwrap().expect("the hook's answer").json()
}

/// A sidecar beside an app on that port, which is said to finish its work.
fn graceful(port: u16, message: &str) -> Sidecar {
    let port = format!("--app-port={port}");
    let sidecar = Sidecar::start(
        &[
            &[port.as_str(), message, "--app-shutdown=graceful"],
            TIMES.as_slice(),
        ]
        .concat(),
    );
    sidecar.wait_for_sources();
    sidecar
}

#[test]
fn an_app_that_finishes_is_handed_its_work_and_watched_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let message = folder.path().join("message");
    let mut app = servers::uvicorn();
    let flag = format!("--termination-log={}", message.display());
    let sidecar = graceful(app.address.port(), &flag);
    let gate = Gate::new();
    let work = gate.enter(&app.base(), "work");
    gate.wait_for("work");
    let hook = sidecar.hook("/prestop/self");
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "handed-over", "{verdict}");
    assert_eq!(verdict["inflight"], 1, "{verdict}");
    assert_eq!(
        verdict["deadlineSeconds"], 30,
        "nothing is kept back: {verdict}"
    );
    app.process.signal("TERM");
    thread::sleep(Duration::from_millis(500));
    assert!(sidecar.said("the app has ended").is_empty(), "it has work");
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    app.process.ended();
    wait_for("the app's end", || {
        (sidecar.said("the app has ended after the handover").len() == 1).then_some(())
    });
    wait_for("the message", || {
        let text = std::fs::read_to_string(&message).ok()?;
        (text.starts_with("handed-over after") && text.contains("; the app finished "))
            .then_some(())
    });
    let page = sidecar.get("/metrics").body;
    assert!(
        page.contains("gracekeeper_app_stop_seconds_count 1"),
        "{page}"
    );
    assert!(page.contains("gracekeeper_apps_killed_total 0"), "{page}");
    assert!(sidecar.said("requests were cut off").is_empty());
}

/// Hands a server its work, one request in flight, and sends it this signal. Then it `finishes` the request, or does not.
fn stops_with(mut app: servers::Server, signal: &str, finishes: bool) {
    let mut sidecar = graceful(app.address.port(), "--log-level=info");
    let gate = Gate::new();
    let work = gate.enter(&app.base(), "work");
    gate.wait_for("work");
    let verdict = verdict(sidecar.hook("/prestop/self"));
    assert_eq!(verdict["outcome"], "handed-over", "{verdict}");
    app.process.signal(signal);
    if finishes {
        thread::sleep(Duration::from_millis(300));
        gate.open("work");
        assert_eq!(work.join().unwrap().unwrap().status, 200, "{signal}");
    } else {
        assert!(work.join().unwrap().is_none(), "{signal}");
    }
    app.process.ended();
    wait_for("the app's end", || {
        (sidecar.said("the app has ended after the handover").len() == 1).then_some(())
    });
    sidecar.process.signal("TERM");
    sidecar.process.ended();
    let cut = usize::from(!finishes);
    assert_eq!(sidecar.said("requests were cut off").len(), cut, "{signal}");
    let advice = "this app does not finish its work on SIGTERM after all";
    assert_eq!(sidecar.said(advice).len(), cut, "{signal}");
}

#[test]
fn gunicorn_finishes_its_work() {
    stops_with(
        servers::gunicorn(std::path::Path::new("/nowhere")),
        "TERM",
        true,
    );
}

#[test]
fn nginx_finishes_its_work_on_sigquit_and_dies_with_it_on_sigterm() {
    let locations = "location / { proxy_pass http://{shop}; proxy_buffering off; }";
    for (signal, finishes) in [("QUIT", true), ("TERM", false)] {
        if let Some(app) = servers::nginx(locations) {
            stops_with(app, signal, finishes);
        }
    }
}

#[test]
fn node_without_a_handler_dies_with_its_work() {
    stops_with(servers::node(), "TERM", false);
}

#[test]
fn a_counter_sees_calls_on_a_grpc_channel_that_is_kept() {
    let mut server = servers::script(&["grpc_app.py"]);
    let count = server.process.line("the port of the count", |line| {
        line.strip_prefix("counting on port ").map(str::to_owned)
    });
    let gate = Gate::new();
    let address = server.address.to_string();
    let mut client =
        Process::start(python("python").args(["grpc_client.py", &address, gate.name(), "steady"]));
    client.line("the calls", |line| (line == "under way").then_some(()));
    let flags = [
        format!("--app-port={}", server.address.port()),
        format!("--inflight=text+http://127.0.0.1:{count}/inflight"),
        format!("--requests=text+http://127.0.0.1:{count}/calls"),
        // Long enough for a call to come on the loaded machine that runs this test.
        "--quiet-period=2s".to_owned(),
        "--max-quiet=30s".to_owned(),
        "--min-wait=500ms".to_owned(),
        "--grace-period=120s".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&flags);
    sidecar.wait_for_sources();
    let hook = sidecar.hook("/prestop/self");
    thread::sleep(Duration::from_secs(3));
    assert!(
        !hook.is_finished(),
        "calls still come: {}",
        sidecar.status()
    );
    gate.open("steady");
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    assert!(verdict["requests"].as_u64() > Some(5), "{verdict}");
}

#[test]
fn an_app_that_dies_with_its_work_after_a_handover_is_found_out() {
    let (mut app, base) = shop(0);
    let port: u16 = base.rsplit(':').next().unwrap().parse().unwrap();
    let mut sidecar = graceful(port, "--log-level=info");
    let gate = Gate::new();
    let work = gate.enter(&base, "work");
    gate.wait_for("work");
    let verdict = verdict(sidecar.hook("/prestop/self"));
    assert_eq!(verdict["outcome"], "handed-over", "{verdict}");
    app.signal("TERM");
    app.ended();
    assert!(work.join().unwrap().is_none(), "its request is cut off");
    wait_for("the app's end", || {
        (sidecar.said("the app has ended after the handover").len() == 1).then_some(())
    });
    sidecar.process.signal("TERM");
    sidecar.process.ended();
    assert_eq!(sidecar.said("requests were cut off").len(), 1);
    let advice = "this app does not finish its work on SIGTERM after all";
    assert_eq!(sidecar.said(advice).len(), 1);
}

#[test]
fn the_counter_of_a_preset_sees_requests_on_an_old_connection() {
    let app = servers::uvicorn();
    let port = format!("--app-port={}", app.address.port());
    let source = format!("--inflight=fastapi://{}", app.address);
    let sidecar = Sidecar::start(&[[port.as_str(), &source].as_slice(), &TIMES].concat());
    sidecar.wait_for_sources();
    let mut client = Client::connect(app.address);
    assert_eq!(client.ask("/hello").unwrap().status, 200);
    let hook = sidecar.hook("/prestop/self");
    // Fewer than the silence that a second or two of this rate asks for pass between two requests.
    let mut asked = 0;
    let until = std::time::Instant::now() + Duration::from_millis(2500);
    while std::time::Instant::now() < until {
        assert_eq!(client.ask("/hello").unwrap().status, 200);
        asked += 1;
        assert_eq!(sidecar.status()["routesBy"], "requests");
        thread::sleep(Duration::from_millis(50));
    }
    let verdict = verdict(hook);
    let counted = verdict["requests"].as_u64().unwrap();
    assert!(counted > 0 && counted <= asked, "{asked}: {verdict}");
    assert!(
        verdict["outcome"] == "drained" || verdict["outcome"] == "persistent",
        "{verdict}"
    );
    let status = sidecar.status();
    let source = format!("requests of fastapi://{}", app.address);
    assert_eq!(status["requests"][0]["source"], source, "{status}");
}

#[test]
fn of_nginxs_requests_those_that_read_its_page_are_no_clients() {
    let locations = "location /stub_status { stub_status; } location / { return 200; }";
    let Some(app) = servers::nginx(locations) else {
        return;
    };
    let base = app.base();
    let port = format!("--app-port={}", app.address.port());
    let inflight = format!("--inflight=nginx+{base}/stub_status");
    let requests = format!("--requests=nginx+{base}/stub_status");
    let sidecar =
        Sidecar::start(&[[port.as_str(), &inflight, &requests].as_slice(), &TIMES].concat());
    sidecar.wait_for_sources();
    let hook = sidecar.hook("/prestop/self");
    wait_for("the first read of the counter", || {
        (sidecar.status()["requests"][0]["result"] == "ok").then_some(())
    });
    for _ in 0..3 {
        assert_eq!(ask("GET", &format!("{base}/"), &[]).unwrap().status, 200);
    }
    let verdict = verdict(hook);
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    assert_eq!(verdict["requests"], 3, "{verdict}");
}

#[test]
fn what_cannot_be_a_counter_is_refused_with_a_remedy() {
    for (flags, part) in [
        (
            vec!["--requests=tcp://:8000"],
            "counts connections and no requests",
        ),
        (
            vec!["--requests=nginx://127.0.0.1"],
            "has no counter of requests",
        ),
        (
            vec![
                "--inflight=prometheus+http://127.0.0.1:1/m#inflight",
                "--requests=prometheus+http://127.0.0.1:1/m#inflight",
            ],
            "it is given with --inflight too",
        ),
        (vec!["--app-shutdown=politely"], "write abrupt or graceful"),
        (vec!["--when-stuck=never"], "write wait or end"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
            .args(["run", "--app-port=8000"])
            .args(&flags)
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(64), "{flags:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(part), "{flags:?}: {told}");
    }
}

#[test]
fn a_reserve_that_does_not_count_is_warned_about() {
    let flags = ["--app-port=1", "--app-shutdown=graceful", "--reserve=7s"];
    let sidecar = Sidecar::start(&flags);
    assert_eq!(sidecar.said("--reserve 7s is not kept back").len(), 1);
}
