//! What the sidecar says of sources of real software that it cannot read, and what to write instead.

use std::net::{SocketAddr, TcpListener};
use std::process::Command;

use socket2::{Domain, Socket, Type};

use super::pages::certificate;
use super::servers;
use super::support::*;

/// Waits for a warning that has these parts, about a sidecar with these flags.
fn warns_with(flags: &[&str], parts: &[&str]) -> Sidecar {
    let sidecar = Sidecar::start(flags);
    wait_for(&format!("a warning with {parts:?}"), || {
        let warned = sidecar.said("").into_iter().any(|line| {
            let message = line["message"].as_str().unwrap_or_default();
            line["level"] == "WARN" && parts.iter().all(|part| message.contains(part))
        });
        warned.then_some(())
    });
    sidecar
}

fn warns(source: &str, parts: &[&str]) -> Sidecar {
    warns_with(&[&format!("--inflight={source}")], parts)
}

fn result(sidecar: &Sidecar) -> String {
    let status = sidecar.status();
    status["sources"][0]["result"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

#[test]
fn nginx_with_a_login_page_a_redirect_and_a_page_elsewhere() {
    let locations = "
        location = /login { default_type text/html; return 200 '<!doctype html><title>Sign in</title>'; }
        location = /old { return 301 /stub_status?x=1; }
        location = /closed { auth_basic shop; auth_basic_user_file /dev/null; stub_status; }
        location = /nginx_status { stub_status; }
        location = /metrics { default_type text/plain; return 200 '# TYPE shop gauge\nshop 0\n'; }";
    let Some(server) = servers::nginx(locations) else {
        return;
    };
    let base = server.base();
    let sidecar = warns(
        &format!("prometheus+{base}/login#sum(jobs) or vector(0)"),
        &["a web page \"Sign in\", not metrics"],
    );
    assert_eq!(result(&sidecar), "malformed");
    warns(
        &format!("nginx+{base}/old"),
        &[
            "301 Moved Permanently, a redirect to",
            &format!("--inflight 'nginx+{base}/stub_status?x=1'"),
        ],
    );
    warns(
        &format!("nginx+{base}/closed"),
        &["401 Unauthorized", "USER:PASSWORD@ before the host"],
    );
    warns(
        &format!("nginx+{base}/nowhere"),
        &[
            "/nginx_status answers",
            &format!("--inflight 'nginx+{base}/nginx_status'"),
        ],
    );
    warns(
        &format!("prometheus+{base}/stats#shop"),
        &[
            "/metrics answers",
            &format!("--inflight 'prometheus+{base}/metrics#shop'"),
        ],
    );
    // The page is there, and is that of nginx.
    let sidecar = Sidecar::start(&[&format!("--inflight=nginx+{base}/nginx_status")]);
    sidecar.wait_for_sources();
    assert_eq!(result(&sidecar), "ok");
}

#[test]
fn django_that_does_not_know_the_host() {
    let server = servers::django();
    let host = server.address.to_string();
    let sidecar = warns(
        &format!("prometheus+{}/metrics#inprogress", server.base()),
        &[
            "400 Bad Request: \"Bad Request (400)\"",
            &host,
            "ALLOWED_HOSTS",
        ],
    );
    assert_eq!(result(&sidecar), "status");
}

#[test]
fn a_port_that_speaks_tls() {
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(&folder, "DNS:elsewhere.example") else {
        return;
    };
    let (mut app, _) = shop_with(0, &["--tls", pem.to_str().unwrap()]);
    let address = app.line("the https address", |line| {
        let (_, address) = line.split_once("https://")?;
        Some(address.to_owned())
    });
    warns(
        &format!("text+http://{address}/inflight"),
        &[
            "the port speaks TLS",
            &format!("--inflight 'text+https://{address}/inflight'"),
        ],
    );
}

#[test]
fn a_port_that_speaks_http2_alone() {
    let mut server = Process::start(python("python").arg("grpc_app.py"));
    let address: SocketAddr = server.line("the address of gRPC", |line| {
        listening(line)?["http://".len()..].parse().ok()
    });
    warns(
        &format!("prometheus+http://{address}/metrics#grpc"),
        &["the port speaks HTTP/2 alone"],
    );
}

#[test]
fn a_counter_that_comes_with_the_first_request() {
    let mut app =
        Process::start(python("uvicorn").args(["fastapi_app:app", "--port=0", "--workers=1"]));
    let base = app.line("uvicorn's address", listening);
    warns(
        &format!("prometheus+{base}/metrics#http_requests_total - http_responses_total"),
        &[
            "only with the first request",
            "sum(http_requests_total or vector(0)) - sum(http_responses_total or vector(0))",
        ],
    );
}

#[test]
fn a_pointer_that_leads_nowhere_and_a_member_of_another_name() {
    let (_app, base) = shop(0);
    warns(
        &format!("json+{base}/stats#/counters/0/customer"),
        &["/counters/0 has no customer; it has name, customers"],
    );
    warns(&format!("json+{base}/inflight#/x"), &["and has no x"]);
}

#[test]
fn a_socket_and_a_file_that_are_written_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let (_app, _) = shop_with(
        0,
        &["--unix", folder.path().join("app.sock").to_str().unwrap()],
    );
    warns(
        &format!("text+unix://{path}/ap.sock:/inflight"),
        &["there is no", "/ap.sock; ", "has app.sock"],
    );
    std::fs::write(folder.path().join("inflight"), "0\n").unwrap();
    warns(
        &format!("text+file://{path}/in-flight"),
        &["there is no", "has inflight"],
    );
    warns(
        &format!("text+file://{path}/nowhere/inflight"),
        &["there is no folder"],
    );
    warns(&format!("text+file://{path}"), &["no regular file"]);
    let sidecar = Sidecar::start(&[&format!("--inflight=text+file://{path}/inflight")]);
    sidecar.wait_for_sources();
    assert_eq!(result(&sidecar), "ok");
    std::fs::write(folder.path().join("inflight"), "\u{feff}0\n").unwrap();
    warns(
        &format!("text+file://{path}/inflight"),
        &["byte order mark"],
    );
}

#[test]
fn an_app_that_listens_on_another_port() {
    let (_app, base) = shop(0);
    // Bound and not listening: no other test takes it, and connections are refused.
    let taken = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    taken
        .bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into())
        .unwrap();
    let port = taken.local_addr().unwrap().as_socket().unwrap().port();
    let app_port = base.rsplit(':').next().unwrap();
    let nothing = format!("nothing listens on port {port}, but the pod listens on");
    // As the only source, and beside another one.
    warns_with(&[&format!("--app-port={port}")], &[&nothing, app_port]);
    warns_with(
        &[&format!("--app-port={port}"), &shop_source(&base)],
        &[&nothing, app_port],
    );
}

#[test]
fn workers_that_answer_by_turns_are_waited_for_until_each_is_idle() {
    let words = [
        "fastapi_app:app",
        "--port=0",
        "--workers=3",
        "--log-level=warning",
    ];
    // It cannot say its port, as its workers do not.
    let free = TcpListener::bind("127.0.0.11:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut command: Command = python("uvicorn");
    command
        .args(words)
        .args(["--host=127.0.0.11", &format!("--port={}", free.port())]);
    let _app = Process::start(&mut command);
    let base = format!("http://{free}");
    wait_for("uvicorn", || ask("GET", &format!("{base}/hello"), &[]));
    let source = format!(
        "--inflight=prometheus+{base}/metrics#sum(http_requests_inprogress{{handler!=\"/metrics\"}} or vector(0))"
    );
    // Before the sidecar starts, so that it knows of the busy worker.
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    let sidecar = Sidecar::start(&[
        &source,
        "--min-wait=3s",
        "--quiet-period=300ms",
        "--grace-period=120s",
    ]);
    sidecar.wait_for_sources();
    let hook = sidecar.hook("/prestop/app");
    wait_for("the warning", || {
        sidecar.said("processes answer by turns").pop()
    });
    wait_for("the worker that is busy to answer", || {
        (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
    });
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(
        !hook.is_finished(),
        "one worker is busy: {}",
        sidecar.status()
    );
    gate.open("a");
    request.join().unwrap().unwrap();
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"drained".into(), &0.into()),
        "{verdict}"
    );
}
