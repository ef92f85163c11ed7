//! Clients that mean no good: probes and hooks are answered all the same.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::support::*;

fn idle_shop() -> (Process, Sidecar) {
    let (app, base) = shop(0);
    let sidecar = Sidecar::start(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=100ms"]);
    sidecar.wait_for_sources();
    (app, sidecar)
}

/// Probes, each on a new connection, with the kubelet's own limit of a second.
fn probes_are_answered(sidecar: &Sidecar) {
    for _ in 0..20 {
        let asked = Instant::now();
        assert_eq!(sidecar.get("/readyz").status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1));
    }
}

#[test]
fn three_hundred_connections_that_say_nothing_starve_no_probe() {
    let (_app, sidecar) = idle_shop();
    let idle: Vec<TcpStream> = (0..300)
        .map(|_| TcpStream::connect(sidecar.address).unwrap())
        .collect();
    probes_are_answered(&sidecar);
    // Each of them is sent away, sooner or later.
    for mut stream in idle {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)));
    }
    probes_are_answered(&sidecar);
}

#[test]
fn heads_that_drip_are_cut_off() {
    let (_app, sidecar) = idle_shop();
    let began = Instant::now();
    let mut streams: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(sidecar.address).unwrap())
        .collect();
    wait_for("every dripping client to be sent away", || {
        streams.retain_mut(|stream| stream.write_all(b"x").is_ok());
        probes_are_answered(&sidecar);
        streams.is_empty().then_some(())
    });
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "a slow client is given its time"
    );
}

#[test]
fn a_head_of_a_megabyte_is_refused() {
    let (_app, sidecar) = idle_shop();
    let mut stream = TcpStream::connect(sidecar.address).unwrap();
    let head = format!(
        "GET /prestop/app HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n",
        "x".repeat(1 << 20)
    );
    // It is refused before it is read to its end, so the write may fail.
    let _ = stream.write_all(head.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
    assert_eq!(sidecar.status()["phase"], "serving");
    probes_are_answered(&sidecar);
}

#[test]
fn a_drain_goes_on_when_the_hooks_caller_goes_away() {
    let (_app, base) = shop(0);
    let sidecar = Sidecar::start(&[&shop_source(&base), "--min-wait=0s", "--quiet-period=100ms"]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    let mut caller = TcpStream::connect(sidecar.address).unwrap();
    caller
        .write_all(b"GET /prestop/self HTTP/1.1\r\nHost: x\r\n\r\n")
        .unwrap();
    wait_for("draining", || {
        (sidecar.status()["phase"] == "draining").then_some(())
    });
    drop(caller);
    let again = sidecar.hook("/prestop/self");
    gate.open("a");
    assert_eq!(request.join().unwrap().unwrap().status, 200);
    let verdict = again.join().unwrap().unwrap().json();
    assert_eq!(verdict["outcome"], "drained");
    assert!(
        sidecar
            .get("/metrics")
            .body
            .contains("gracekeeper_drains_total{outcome=\"drained\"} 1")
    );
}

#[test]
fn without_the_token_nothing_changes() {
    let (_app, base) = shop(0);
    let sidecar = Sidecar::start_with(
        &[&shop_source(&base), "--min-wait=0s", "--quiet-period=0s"],
        &[("GRACEKEEPER_TOKEN", "secret")],
    );
    for headers in [&[][..], &[("authorization", "Bearer guess")]] {
        for (method, path) in [
            ("GET", "/prestop/app"),
            ("GET", "/prestop/self"),
            ("POST", "/drain"),
            ("DELETE", "/drain"),
            ("POST", "/release"),
        ] {
            assert_eq!(
                ask(method, &sidecar.url(path), headers).unwrap().status,
                401,
                "{method} {path}"
            );
        }
    }
    assert_eq!(sidecar.status()["phase"], "serving");
    let answer = ask(
        "GET",
        &sidecar.url("/prestop/app"),
        &[("authorization", "Bearer secret")],
    )
    .unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        !sidecar
            .process
            .lines()
            .iter()
            .any(|line| line.contains("secret")),
        "the token is in no log"
    );
}
