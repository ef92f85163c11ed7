//! Pages that do not work: each is named, none is taken for zero, and the bounds hold.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::support::*;

/// A page that misbehaves in one way at every request. No real app can be made to do these on demand.
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
    format!("http://{address}/page")
}

/// The source of a gauge on a metrics page.
fn gauge(page: &str) -> String {
    format!("prometheus+{page}#busy")
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

/// Drains with a budget of two seconds, and checks how a metrics page is named and that the deadline is what ends it.
fn is_unknown(page: &str, result: &str) {
    are_unknown(&[(gauge(page), result)]);
}

/// The same with several sources at once, each named in its own way.
fn are_unknown(sources: &[(String, &str)]) {
    let mut flags: Vec<String> = (sources.iter())
        .map(|(source, _)| format!("--inflight={source}"))
        .collect();
    flags.extend(
        [
            "--min-wait=0s",
            "--quiet-period=0s",
            "--grace-period=3s",
            "--reserve=1s",
            "--read-timeout=200ms",
        ]
        .map(str::to_owned),
    );
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let sidecar = Sidecar::start(&flags);
    let began = Instant::now();
    let hook = sidecar.hook("/prestop/app");
    for (n, (source, result)) in sources.iter().enumerate() {
        wait_for(&format!("{source} to be {result}"), || {
            (sidecar.status()["sources"][n]["result"] == *result).then_some(())
        });
    }
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
    for (_, result) in sources {
        assert!(page.contains(&format!("result=\"{result}\"")), "{page}");
    }
    assert!(!page.contains("gracekeeper_inflight{"), "{page}");
    assert!(
        !sidecar.said("unreadable").is_empty() || !sidecar.said("not listening yet").is_empty()
    );
    ends(sidecar);
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
fn a_page_of_ten_gigabytes() {
    for head in [
        "Content-Length: 10737418240\r\n\r\n".to_owned(),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n", 10_u64 << 30),
    ] {
        is_unknown(
            &page(move |stream| {
                write!(stream, "HTTP/1.1 200 OK\r\n{head}busy 0\n")?;
                let lines = "other 1\n".repeat(8192);
                loop {
                    stream.write_all(lines.as_bytes())?;
                }
            }),
            "timeout",
        );
    }
}

#[test]
fn a_page_in_chunks_without_end() {
    is_unknown(
        &page(|stream| {
            stream.write_all(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7\r\nbusy 0\n\r\n",
            )?;
            let chunks = "8\r\nother 1\n\r\n".repeat(1000);
            loop {
                stream.write_all(chunks.as_bytes())?;
            }
        }),
        "timeout",
    );
}

#[test]
fn a_page_in_chunks_that_make_no_sense() {
    for chunks in [
        "7\r\nbusy 0\n\r\nnonsense\r\n",
        "7\r\nbusy 0\n\r\n-1\r\n",
        "7\r\nbusy 0\n\r\nfffffffffffffffff\r\n",
        // The last chunk never comes.
        "7\r\nbusy 0\n\r\n",
    ] {
        is_unknown(
            &saying(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"
            )),
            "broken",
        );
    }
}

#[test]
fn a_page_that_resets_connections() {
    let resets = |first: &'static [u8]| {
        page(move |stream| {
            stream.write_all(first)?;
            let socket = socket2::SockRef::from(&*stream);
            socket.set_linger(Some(Duration::ZERO))
        })
    };
    is_unknown(&resets(b""), "broken");
    is_unknown(
        &resets(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nbusy 0\n"),
        "broken",
    );
}

#[test]
fn a_page_that_changes_its_series_in_the_middle_of_a_drain() {
    let renamed = Arc::new(AtomicBool::new(false));
    let now = renamed.clone();
    let page = page(move |stream| {
        let text = match now.load(Ordering::Relaxed) {
            false => "busy 1\n",
            true => "busy_requests 0\n",
        };
        let length = text.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
        )
    });
    let source = format!("--inflight={}", gauge(&page));
    let times = ["--min-wait=0s", "--quiet-period=0s", "--grace-period=8s"];
    let sidecar = Sidecar::start(&[&source, times[0], times[1], times[2], "--reserve=3s"]);
    sidecar.wait_for_sources();
    let hook = sidecar.hook("/prestop/self");
    wait_for("a count", || {
        (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
    });
    renamed.store(true, Ordering::Relaxed);
    wait_for("the series to be missed", || {
        (sidecar.status()["sources"][0]["result"] == "missing").then_some(())
    });
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"deadline".into(), &().into()),
        "what cannot be read is not zero: {verdict}"
    );
    ends(sidecar);
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
fn a_page_that_redirects_in_a_loop() {
    is_unknown(
        &saying("HTTP/1.1 307 Again\r\nLocation: /page\r\nContent-Length: 7\r\n\r\nbusy 0\n"),
        "status",
    );
}

#[test]
fn a_port_that_refuses_from_the_start() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    is_unknown(&format!("http://{address}/metrics"), "refused");
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
    let flag = format!("--inflight=prometheus+{page}#started_total - finished_total");
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
    is_unknown(&body("text/html", "<html>busy</html>\n"), "malformed");
    is_unknown(&body("text/plain", "busy zero\n"), "malformed");
    is_unknown(&saying("\u{0}\u{1}\u{2}nonsense\r\n\r\n"), "broken");
}

#[test]
fn a_page_that_is_compressed_all_the_same() {
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n".to_vec();
    answer.extend_from_slice(&[0x1f, 0x8b, 8, 0]);
    is_unknown(&saying(answer), "encoded");
    // And by a server that does not say so.
    let mut answer =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 23\r\n\r\n".to_vec();
    answer.extend_from_slice(b"\x1f\x8b\x08\0\0\0\0\0\0\x03busy 0\n\0\0\0\0\0\0");
    is_unknown(&saying(answer), "malformed");
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

/// A page of this text that ends with its connection.
fn until_close(text: &str) -> String {
    saying(format!("HTTP/1.1 200 OK\r\n\r\n{text}"))
}

#[test]
fn json_that_has_no_count() {
    let json = |text: &str| format!("json+{}#/busy", body("application/json", text));
    are_unknown(&[
        (json(r#"{"idle": 0}"#), "missing"),
        (json(r#"[{"busy": 0}]"#), "missing"),
        (json(r#"{"busy": null}"#), "no-count"),
        (json(r#"{"busy": "0"}"#), "no-count"),
        (json(r#"{"busy": -1}"#), "no-count"),
        (json(r#"{"busy": 1e999}"#), "no-count"),
    ]);
}

#[test]
fn json_that_is_none() {
    let json = |page: String| format!("json+{page}#/busy");
    let kind = "application/json";
    are_unknown(&[
        (json(body(kind, r#"{"busy": 0}}"#)), "malformed"),
        (json(body(kind, r#"{"busy": 0, "busy": 1}"#)), "malformed"),
        (json(body("text/html", "<html>0</html>")), "malformed"),
        (json(body(kind, "")), "truncated"),
        (json(until_close(r#"{"busy": 0, "other"#)), "truncated"),
        (
            json(saying(
                "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"busy\": 0}",
            )),
            "broken",
        ),
    ]);
}

#[test]
fn json_without_end() {
    let endless = |start: &'static str, more: &'static str| {
        let page = page(move |stream| {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            stream.write_all(start.as_bytes())?;
            let more = more.repeat(1000);
            loop {
                stream.write_all(more.as_bytes())?;
            }
        });
        format!("json+{page}#/busy")
    };
    are_unknown(&[
        (
            endless(r#"{"busy": 0, "more": [0"#, r#", {"a": [1]}"#),
            "timeout",
        ),
        (endless(r#"{"busy": 0, "more": ""#, "more"), "malformed"),
        (endless(r#"{"busy": 0, "more": "#, "["), "malformed"),
    ]);
}

#[test]
fn text_that_is_no_number() {
    let text = |page: String| format!("text+{page}");
    let kind = "text/plain";
    are_unknown(&[
        (text(body(kind, "")), "truncated"),
        (text(body(kind, "none\n")), "malformed"),
        (text(body(kind, "0 requests\n")), "malformed"),
        (
            text(body(kind, &format!("0{}", " ".repeat(64)))),
            "malformed",
        ),
        (text(body(kind, "NaN\n")), "no-count"),
        (text(body(kind, "-1\n")), "no-count"),
    ]);
}

#[test]
fn a_status_page_that_is_not_nginxs() {
    let nginx = |page: String| format!("nginx+{page}");
    let status = |last: &str| {
        format!("Active connections: 1 \nserver accepts handled requests\n 1 1 1 \n{last}")
    };
    let whole = status("Reading: 0 Writing: 1 Waiting: 0 \n");
    are_unknown(&[
        (
            nginx(body("text/html", "<html>Writing: 1</html>\n")),
            "malformed",
        ),
        (
            nginx(body(
                "text/plain",
                &status("Reading: 0 Writing: 0 Waiting: 1 \n"),
            )),
            "malformed",
        ),
        (nginx(body("text/plain", &whole.repeat(20))), "malformed"),
        (
            nginx(until_close(&status("Reading: 0 Writing: 1"))),
            "truncated",
        ),
        (
            nginx(saying("HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")),
            "status",
        ),
    ]);
}

#[test]
fn what_speaks_no_tls() {
    let over_tls = |page: String| format!("text+{}", page.replace("http://", "https://"));
    let hangs = page(|_| {
        thread::sleep(PATIENCE);
        Ok(())
    });
    are_unknown(&[
        (over_tls(body("text/plain", "0\n")), "tls"),
        (over_tls(hangs), "timeout"),
        (
            "text+unix:///nowhere/app.sock:/inflight".to_owned(),
            "refused",
        ),
    ]);
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
    let page = saying("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n");
    let source = format!("--inflight={}", gauge(&page));
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
