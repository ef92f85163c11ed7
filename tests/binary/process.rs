//! The process: its start and its errors, signals, its notices, and the clock.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::support::*;

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .args(words)
        .output()
        .unwrap()
}

#[test]
fn the_help_is_the_recorded_one() {
    is_recorded(&run(&["run", "-h"]).stdout, "help.txt");
}

#[test]
fn mistakes_are_told_at_once_with_status_64() {
    let output = run(&["run", "--min-wait=soon", "--listen=9903", "--inflight=x"]);
    assert_eq!(output.status.code(), Some(64));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert_eq!(run(&["rnu"]).status.code(), Some(64));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
}

#[test]
fn a_busy_port_fails_the_start_with_status_1() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&[
        "run",
        "--inflight=prometheus+http://127.0.0.1:1/m#m",
        "--listen",
        &address,
    ]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains(&address) && told.contains("in use"), "{told}");
}

#[test]
fn a_native_sidecar_ends_at_once_after_its_app() {
    let (app, base) = shop(0);
    let mut sidecar = Sidecar::start(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=0s"]);
    sidecar.wait_for_sources();
    sidecar.hook("/prestop/self").join().unwrap().unwrap();
    drop(app);
    let asked = Instant::now();
    sidecar.process.signal("TERM");
    assert_eq!(sidecar.process.ended().code(), Some(0));
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "long before its budget is over"
    );
}

#[test]
fn an_ordinary_sidecar_outlasts_its_app() {
    let (app, base) = shop(0);
    let mut sidecar =
        Sidecar::start(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=100ms"]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    sidecar.process.signal("TERM");
    wait_for("draining", || {
        (sidecar.status()["phase"] == "draining").then_some(())
    });
    assert_eq!(sidecar.get("/readyz").status, 503);
    let hook = sidecar.hook("/prestop/app");
    gate.open("a");
    assert_eq!(request.join().unwrap().unwrap().status, 200);
    let verdict = hook.join().unwrap().expect("the hook is answered").json();
    assert_eq!(
        (&verdict["outcome"], &verdict["trigger"]),
        (&"drained".into(), &"signal".into())
    );
    thread::sleep(Duration::from_millis(500));
    assert!(sidecar.process.running(), "the app is not gone yet");
    drop(app);
    assert_eq!(sidecar.process.ended().code(), Some(0));
}

#[test]
fn a_second_sigterm_or_a_sigint_ends_it_and_answers_who_waits() {
    for second in ["TERM", "INT"] {
        let (_app, base) = shop(0);
        let mut sidecar = Sidecar::start(&[&shop_source(&base)]);
        sidecar.wait_for_sources();
        let gate = Gate::new();
        let _request = gate.enter(&base, "a");
        sidecar.process.signal("TERM");
        let hook = sidecar.hook("/prestop/app");
        sidecar.process.signal(second);
        let asked = Instant::now();
        assert_eq!(sidecar.process.ended().code(), Some(0));
        assert!(
            asked.elapsed() < Duration::from_secs(10),
            "long before its budget is over"
        );
        let verdict = hook.join().unwrap().expect("the hook is answered").json();
        assert_eq!(verdict["outcome"], "released");
        gate.open("a");
    }
}

#[test]
fn one_sigint_is_enough() {
    let (_app, base) = shop(0);
    let mut sidecar = Sidecar::start(&[&shop_source(&base)]);
    sidecar.wait_for_sources();
    sidecar.process.signal("INT");
    let asked = Instant::now();
    assert_eq!(sidecar.process.ended().code(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(10));
    assert_eq!(sidecar.said("draining").len(), 0, "nothing is waited for");
}

#[test]
fn warnings_about_the_settings_are_logged() {
    let mut sidecar = Sidecar::start_with(&["--app-port=1"], &[("GRACEKEEPER_MIN_WEIT", "1s")]);
    assert_eq!(sidecar.said("GRACEKEEPER_MIN_WEIT sets nothing").len(), 1);
    sidecar.process.signal("INT");
    sidecar.process.ended();
}

#[test]
fn the_app_is_told_once_and_the_message_is_left() {
    let (_app, base) = shop(0);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let notify = format!(
        "--notify=http://{}/drain?x=1",
        listener.local_addr().unwrap()
    );
    let (told, heard) = mpsc::channel();
    thread::spawn(move || {
        // Refused twice, then taken.
        for (n, stream) in listener.incoming().enumerate() {
            let mut stream = stream.unwrap();
            let mut head = [0; 4096];
            let length = stream.read(&mut head).unwrap();
            let status = if n < 2 { "503 Later" } else { "200 OK" };
            write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
            told.send(String::from_utf8_lossy(&head[..length]).into_owned())
                .unwrap();
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let (file, message) = (
        folder.path().join("draining"),
        folder.path().join("message"),
    );
    std::fs::write(&file, "of a life before").unwrap();
    let drain_file = format!("--drain-file={}", file.display());
    let termination_log = format!("--termination-log={}", message.display());
    let mut sidecar = Sidecar::start(&[
        &shop_source(&base),
        &notify,
        &drain_file,
        &termination_log,
        "--min-wait=2s",
        "--quiet-period=0s",
    ]);
    sidecar.wait_for_sources();
    wait_for("the old drain file to be removed", || {
        (!file.exists()).then_some(())
    });

    let answer = ask("POST", &sidecar.url("/drain"), &[]).unwrap();
    assert_eq!(answer.status, 202);
    wait_for("the drain file", || file.exists().then_some(()));
    for _ in 0..3 {
        let head = heard.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with("POST /drain?x=1 HTTP/1.1\r\n"), "{head}");
        assert!(
            head.to_lowercase().contains("content-length: 0\r\n"),
            "{head}"
        );
    }
    wait_for("drained", || {
        (sidecar.status()["phase"] == "drained").then_some(())
    });
    wait_for("the message", || {
        std::fs::read_to_string(&message)
            .ok()
            .filter(|text| text.starts_with("drained after"))
    });
    assert!(
        heard.try_recv().is_err(),
        "it is told no more once it has listened"
    );
    assert_eq!(
        ask("DELETE", &sidecar.url("/drain"), &[]).unwrap().status,
        200
    );
    wait_for("the drain file to be removed", || {
        (!file.exists()).then_some(())
    });
    sidecar.process.signal("INT");
    assert_eq!(sidecar.process.ended().code(), Some(0));
}

#[test]
fn readiness_can_also_ask_the_app() {
    let (app, base) = shop(0);
    for (path, status) in [("/metrics", 200), ("/nowhere", 503)] {
        let flag = format!("--app-ready={base}{path}");
        let sidecar = Sidecar::start(&[&shop_source(&base), &flag]);
        assert_eq!(sidecar.get("/readyz").status, status, "{path}");
    }
    let flag = format!("--app-ready={base}/metrics");
    let sidecar = Sidecar::start(&[&shop_source(&base), &flag]);
    drop(app);
    let answer = sidecar.get("/readyz");
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("connection refused"),
        "{}",
        answer.body
    );
}

#[test]
fn each_transition_is_logged_once_with_fields_and_a_long_drain_says_where_it_is() {
    let (_app, base) = shop(0);
    let sidecar = Sidecar::start(&[
        &shop_source(&base),
        "--min-wait=0s",
        "--quiet-period=0s",
        "--grace-period=125s",
    ]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    let hook = sidecar.hook("/prestop/app");
    wait_for("a line about progress", || {
        let mut lines = sidecar.said("still draining").into_iter();
        lines.find(|line| line["inflight"] == "1")
    });
    gate.open("a");
    request.join().unwrap().unwrap();
    hook.join().unwrap().unwrap();
    let progress = sidecar.said("still draining");
    assert!(
        progress[0]["left_seconds"].as_u64().unwrap() <= 115,
        "{progress:?}"
    );
    let began: Vec<_> = sidecar
        .said("draining")
        .into_iter()
        .filter(|l| l["message"] == "draining")
        .collect();
    assert_eq!(began.len(), 1);
    assert_eq!(
        (&began[0]["trigger"], &began[0]["budget_seconds"]),
        (&"app hook".into(), &120.0.into())
    );
    let ended = wait_for("a line about the end", || {
        Some(sidecar.said("drain ended")).filter(|lines| !lines.is_empty())
    });
    assert_eq!(ended.len(), 1);
    assert_eq!(
        (&ended[0]["outcome"], &ended[0]["inflight"]),
        (&"drained".into(), &"0".into())
    );
}

/// Where Debian's package faketime has its library.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

/// A drain in whose middle the wall clock is set to so much more or less. Gives the log's times of its beginning and its
/// end; nothing where the clock cannot be set.
fn drain_while_the_clock_is_set(to: &str) -> Option<(String, String)> {
    if !Path::new(FAKETIME).exists() {
        println!("skipped: Debian's package faketime is not installed");
        return None;
    }
    let (_app, base) = shop(0);
    let folder = tempfile::tempdir().unwrap();
    let clock = folder.path().join("clock");
    std::fs::write(&clock, "+0").unwrap();
    let sidecar = Sidecar::start_with(
        &[
            &shop_source(&base),
            "--min-wait=1s",
            "--quiet-period=500ms",
            "--grace-period=60s",
        ],
        &[
            ("LD_PRELOAD", FAKETIME),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
        ],
    );
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    let hook = sidecar.hook("/prestop/app");
    std::fs::write(&clock, to).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(!hook.is_finished(), "the request is still there");
    assert_eq!(sidecar.status()["phase"], "draining");
    gate.open("a");
    request.join().unwrap().unwrap();
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    let took = verdict["tookSeconds"].as_f64().unwrap();
    assert!((1.0..40.0).contains(&took), "{verdict}");
    let stamp = |message| {
        wait_for(message, || {
            let line = sidecar.said(message).into_iter().next()?;
            Some(line["timestamp"].as_str()?.to_owned())
        })
    };
    let stamps = (stamp("draining"), stamp("drain ended"));
    ends(sidecar);
    Some(stamps)
}

#[test]
fn a_clock_set_back_an_hour_changes_nothing() {
    if let Some((began, ended)) = drain_while_the_clock_is_set("-1h") {
        assert!(ended < began, "the clock did go back: {began} {ended}");
    }
}

#[test]
fn a_clock_set_forward_an_hour_changes_nothing() {
    if let Some((began, ended)) = drain_while_the_clock_is_set("+1h") {
        // Both have the hour in the same place; a test takes less than one.
        let hour = |stamp: &str| stamp[.."2026-11-28T12".len()].to_owned();
        assert!(
            hour(&ended) > hour(&began),
            "the clock did go forward: {began} {ended}"
        );
    }
}

#[test]
fn an_ordinary_sidecar_can_end_with_an_app_that_has_done_its_job() {
    let (mut app, base) = shop(0);
    let port = base.rsplit(':').next().unwrap().to_owned();
    let flags = [shop_source(&base), format!("--app-port={port}")];
    let times = ["--quiet-period=0s", "--max-quiet=1s", "--exit-with-app"];
    let flags = [flags[0].as_str(), &flags[1], times[0], times[1], times[2]];
    let mut sidecar = Sidecar::start(&flags);
    sidecar.wait_for_sources();
    app.kill();
    assert_eq!(sidecar.process.ended().code(), Some(0));
    wait_for("the log's last line", || {
        let lines = sidecar.said("ended");
        (lines.iter().any(|line| line["message"] == "ended")).then_some(())
    });
    assert_eq!(sidecar.said("the app has ended by itself").len(), 1);
    assert!(sidecar.said("draining").is_empty());
}
