//! Metrics pages that do not work: each is named, none is taken for zero, and the bounds hold.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::support::*;

/// A page that misbehaves in one way, whoever asks. No real app can be made to do these on demand.
fn page(answer: impl Fn(&mut TcpStream) -> std::io::Result<()> + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || -> std::io::Result<()> {
                let mut stream = stream?;
                let mut head = [0; 4096];
                let _ = stream.read(&mut head)?;
                answer(&mut stream)
            });
        }
    });
    format!("prometheus+http://{address}/metrics#busy")
}

/// A page that answers these bytes.
fn saying(bytes: impl Into<Vec<u8>>) -> String {
    let bytes = bytes.into();
    page(move |stream| stream.write_all(&bytes))
}

/// A whole answer with this body.
fn body(kind: &str, body: &str) -> String {
    saying(format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}

/// Drains with a budget of two seconds, and checks how the source is named and that the deadline is what ends it.
fn is_unknown(source: &str, result: &str) {
    let flag = format!("--inflight={source}");
    let sidecar = Sidecar::start(&[
        &flag,
        "--min-wait=0s",
        "--quiet-period=0s",
        "--grace-period=3s",
        "--reserve=1s",
        "--read-timeout=200ms",
    ]);
    let began = Instant::now();
    let hook = sidecar.hook("/prestop/app");
    wait_for("a read", || {
        (sidecar.status()["sources"][0]["result"] == result).then_some(())
    });
    let answer = hook.join().unwrap().expect("the hook's answer");
    let verdict = answer.json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"deadline".into(), &().into()),
        "{verdict}"
    );
    assert!(
        answer.at - began >= Duration::from_secs(2),
        "not before the deadline"
    );
    let took = verdict["tookSeconds"].as_f64().unwrap();
    assert!((2.0..12.0).contains(&took), "at the deadline: {took}");
    let page = sidecar.get("/metrics").body;
    assert!(page.contains(&format!("result=\"{result}\"")), "{page}");
    assert!(!page.contains("gracekeeper_inflight{"), "{page}");
    assert!(
        !sidecar.said("unreadable").is_empty() || !sidecar.said("not listening yet").is_empty()
    );
}

#[test]
fn a_page_that_hangs() {
    is_unknown(
        &page(|_| {
            thread::sleep(PATIENCE);
            Ok(())
        }),
        "timeout",
    );
}

#[test]
fn a_page_that_drips() {
    is_unknown(
        &page(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbusy 0\n")?;
            for _ in 0..1000 {
                stream.write_all(b"#")?;
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }),
        "timeout",
    );
}

#[test]
fn a_page_without_end() {
    is_unknown(
        &page(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nbusy 0\n")?;
            let lines = "other 1\n".repeat(1000);
            loop {
                stream.write_all(lines.as_bytes())?;
            }
        }),
        "timeout",
    );
}

#[test]
fn a_page_that_answers_500() {
    is_unknown(
        &saying("HTTP/1.1 500 Oh\r\nContent-Length: 7\r\n\r\nbusy 0\n"),
        "status",
    );
}

#[test]
fn a_page_that_has_moved() {
    is_unknown(
        &saying("HTTP/1.1 302 Found\r\nLocation: /else\r\nContent-Length: 7\r\n\r\nbusy 0\n"),
        "status",
    );
}

#[test]
fn a_port_that_refuses_from_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    is_unknown(
        &format!("prometheus+http://{address}/metrics#busy"),
        "refused",
    );
}

#[test]
fn a_page_without_the_series() {
    is_unknown(&body("text/plain", "busy_total 0\nother 0\n"), "missing");
}

#[test]
fn a_page_that_has_the_series_twice() {
    is_unknown(&body("text/plain", "busy 0\nbusy 0\n"), "ambiguous");
}

#[test]
fn an_expression_over_a_page_whose_length_is_told_but_not_its_last_line_end() {
    let page = body(
        "text/plain",
        "started_total{a=\"b\"} 7\nfinished_total{a=\"b\"} 7",
    );
    let source = page.replace("#busy", "#started_total - finished_total");
    let flag = format!("--inflight={source}");
    let sidecar = Sidecar::start(&[&flag, "--min-wait=0s", "--quiet-period=0s"]);
    let verdict = sidecar.hook("/prestop/app").join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"drained".into(), &0.into()),
        "{verdict}"
    );
}

#[test]
fn a_page_of_garbage() {
    is_unknown(&body("text/html", "<html>busy</html>\n"), "missing");
    is_unknown(&body("text/plain", "busy zero\n"), "malformed");
    is_unknown(&saying("\u{0}\u{1}\u{2}nonsense\r\n\r\n"), "broken");
}

#[test]
fn a_page_that_is_compressed_all_the_same() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n".to_vec();
    answer.extend_from_slice(&[0x1f, 0x8b, 8, 0]);
    is_unknown(&saying(answer), "encoded");
}

#[test]
fn a_page_cut_off() {
    // In the middle of a line, before the length it promised, and before its end mark.
    is_unknown(
        &saying("HTTP/1.1 200 OK\r\n\r\nbusy{a=\"1\"} 0\nbusy{a=\"2\"} 0"),
        "truncated",
    );
    is_unknown(
        &saying("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbusy 0\n"),
        "broken",
    );
    is_unknown(
        &body("application/openmetrics-text; version=1.0.0", "busy 0\n"),
        "truncated",
    );
}

#[test]
fn a_count_that_is_none() {
    for value in ["NaN", "-1", "+Inf"] {
        is_unknown(&body("text/plain", &format!("busy {value}\n")), "no-count");
    }
}

#[test]
fn an_answer_with_an_endless_head() {
    is_unknown(
        &page(|stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n")?;
            let header = format!("X-Long: {}\r\n", "x".repeat(8000));
            loop {
                stream.write_all(header.as_bytes())?;
            }
        }),
        "broken",
    );
}

#[test]
fn blind_policies_end_a_drain_that_sees_nothing() {
    let source = format!(
        "--inflight={}",
        saying("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
    );
    for (policy, least) in [("proceed", 0.0), ("window=1s", 1.0)] {
        let policy = format!("--when-blind={policy}");
        let sidecar = Sidecar::start(&[&source, &policy, "--min-wait=0s", "--quiet-period=100ms"]);
        let verdict = sidecar.hook("/prestop/app").join().unwrap().unwrap().json();
        assert_eq!(
            (&verdict["outcome"], &verdict["inflight"]),
            (&"blind".into(), &().into()),
            "{verdict}"
        );
        assert!(
            verdict["tookSeconds"].as_f64().unwrap() >= least,
            "{verdict}"
        );
    }
}
