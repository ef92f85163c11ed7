//! Real apps: the hook is answered when the last request is, and soon after.

use std::process::Command;
use std::thread;
use std::time::Duration;

use super::support::*;

/// Holds requests open, calls the hooks, lets the requests go one by one, and then stops the app as the kubelet does.
pub fn drains(mut app: Process, base: &str, source: &str) {
    let sidecar = Sidecar::start(&[source, "--min-wait=0s", "--quiet-period=200ms"]);
    sidecar.wait_for_sources();
    assert_eq!(sidecar.get("/readyz").status, 200);
    let gate = Gate::new();
    let names = ["a", "b", "c", "d"];
    let mut requests: Vec<_> = names.iter().map(|name| gate.enter(base, name)).collect();

    let hook = sidecar.hook("/prestop/app");
    let own = sidecar.hook("/prestop/self");
    assert_eq!(
        sidecar.get("/readyz").status,
        503,
        "readiness fails at once"
    );
    wait_for("the count of what is in flight", || {
        (sidecar.status()["sources"][0]["inflight"] == names.len()).then_some(())
    });

    let last = requests.pop().unwrap();
    for (name, request) in names.iter().zip(requests) {
        gate.open(name);
        assert_eq!(request.join().unwrap().expect("an answer").status, 200);
    }
    wait_for("the count to be down to one", || {
        (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
    });
    // Several quiet periods and polls: time enough for a wrong answer.
    thread::sleep(Duration::from_secs(1));
    assert!(
        !hook.is_finished() && !own.is_finished(),
        "one request is still under way"
    );

    gate.open(names[names.len() - 1]);
    let last = last.join().unwrap().expect("an answer");
    assert_eq!(last.status, 200);
    let answer = hook.join().unwrap().expect("the hook's answer");
    app.signal("TERM");
    assert!(
        answer.at > last.at,
        "the hook is answered after the last request"
    );
    let took = answer.at - last.at;
    assert!(
        took < Duration::from_secs(10),
        "and soon after, not at the deadline: {took:?}"
    );
    let verdict = answer.json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"drained".into(), &0.into()),
        "{verdict}"
    );
    assert_eq!(verdict["going"], true);
    assert_eq!(
        own.join().unwrap().unwrap().json(),
        verdict,
        "both hooks share the verdict"
    );
    app.ended();
}

#[test]
fn fastapi_under_uvicorn() {
    let mut command = python("uvicorn");
    command.args(["fastapi_app:app", "--port=0", "--workers=1"]);
    let mut app = Process::start(&mut command);
    let base = app.line("uvicorn's address", listening);
    let source = format!(
        "--inflight=prometheus+{base}/metrics#http_requests_inprogress{{handler!=\"/metrics\"}}"
    );
    // The gauge has no series before the first request: with instrumentation by handler there is nothing to count yet.
    ask("GET", &format!("{base}/docs"), &[]).unwrap();
    drains(app, &base, &source);
}

#[test]
fn flask_under_gunicorn_with_several_workers() {
    let shared = tempfile::tempdir().unwrap();
    let mut command = python("gunicorn");
    command
        .args([
            "flask_app:app",
            "--bind=127.0.0.1:0",
            "--workers=3",
            "--threads=4",
        ])
        .env("PROMETHEUS_MULTIPROC_DIR", shared.path());
    let mut app = Process::start(&mut command);
    let base = app.line("gunicorn's address", |line| {
        line.contains("Listening").then(|| listening(line))?
    });
    drains(
        app,
        &base,
        &format!("--inflight=prometheus+{base}/metrics#http_requests_inflight"),
    );
}

#[test]
fn node_with_prom_client() {
    let mut command = Command::new("node");
    command.arg("app.js").current_dir(folder("tests/apps/node"));
    let mut app = Process::start(&mut command);
    let base = app.line("node's address", listening);
    ask("GET", &format!("{base}/nowhere"), &[]).unwrap();
    drains(
        app,
        &base,
        &format!("--inflight=prometheus+{base}/metrics#http_requests_in_flight{{method=\"GET\"}}"),
    );
}

#[test]
fn an_app_that_dies_at_once_on_sigterm() {
    let (app, base) = shop(0);
    drains(app, &base, &shop_source(&base));
}

#[test]
fn a_restarted_app_is_served_again() {
    let (app, base) = shop(0);
    let port = base.rsplit(':').next().unwrap().parse().unwrap();
    let sidecar = Sidecar::start(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=0s"]);
    sidecar.wait_for_sources();
    let verdict = sidecar.hook("/prestop/app").join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["going"]),
        (&"drained".into(), &false.into())
    );
    assert_eq!(sidecar.status()["phase"], "reopening");
    assert_eq!(sidecar.get("/readyz").status, 503);
    drop(app);
    wait_for("a read that is refused", || {
        (sidecar.status()["sources"][0]["result"] == "refused").then_some(())
    });
    assert_eq!(sidecar.get("/readyz").status, 503);
    let (_app, _) = shop(port);
    wait_for("serving again", || {
        (sidecar.get("/readyz").status == 200).then_some(())
    });
    assert_eq!(sidecar.status()["phase"], "serving");
}
