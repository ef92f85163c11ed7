//! Real servers, watched by the kernel's socket table alone: what is under way holds the hook, and clients that merely
//! keep their connections do not.

use std::time::{Duration, Instant};
use std::{net::SocketAddr, thread};

use super::client::Client;
use super::servers::{self, Server};
use super::support::*;

/// Longer than any server here takes between two pieces of a stream, however loaded the machine is.
const QUIET: Duration = Duration::from_secs(1);

/// A sidecar that is given the app's port and nothing else.
fn watch(address: SocketAddr) -> Sidecar {
    watch_with(address, &[])
}

/// One that is given more.
fn watch_with(address: SocketAddr, flags: &[&str]) -> Sidecar {
    let port = format!("--app-port={}", address.port());
    let times =
        "--quiet-period=1s --max-quiet=2s --min-wait=0s --grace-period=100s --read-timeout=20s";
    let all = [port.as_str()]
        .into_iter()
        .chain(times.split(' '))
        .chain(flags.iter().copied());
    let flags: Vec<&str> = all.collect();
    let sidecar = Sidecar::start(&flags);
    sidecar.wait_for_sources();
    sidecar
}

fn wait_for_count(sidecar: &Sidecar, count: usize) {
    wait_for(&format!("{count} in flight"), || {
        (sidecar.status()["sources"][0]["inflight"] == count).then_some(())
    });
}

/// Drains while this work is under way, and then ends it piece by piece; `answered` returns once a piece has its answer.
fn holds_and_lets_go(
    sidecar: &Sidecar,
    gate: &Gate,
    work: &[&str],
    mut answered: impl FnMut(&str),
) {
    let hook = sidecar.hook("/prestop/self");
    wait_for_count(sidecar, work.len());
    let began = Instant::now();
    while began.elapsed() < QUIET * 3 / 2 {
        let status = sidecar.status();
        // A ping whose pong has not come yet moves bytes, and so counts for that moment.
        let counted = status["sources"][0]["inflight"].as_u64();
        assert!(counted >= Some(work.len() as u64), "{status}");
        assert!(!hook.is_finished(), "all of it is under way");
        thread::sleep(Duration::from_millis(20));
    }
    let (last, others) = work.split_last().unwrap();
    for name in others {
        gate.open(name);
        answered(name);
    }
    wait_for_count(sidecar, 1);
    assert!(!hook.is_finished(), "one is still under way");
    let opened = Instant::now();
    gate.open(last);
    answered(last);
    let answer = hook.join().unwrap().expect("the hook's answer");
    let took = answer.at - opened;
    assert!(
        took < Duration::from_secs(20),
        "soon after, not at the deadline: {took:?}"
    );
    let verdict = answer.json();
    assert_eq!(
        (
            &verdict["outcome"],
            &verdict["inflight"],
            &verdict["arrivals"]
        ),
        (&"drained".into(), &0.into(), &0.into()),
        "{verdict}"
    );
}

const PIECE: [u8; 100] = [b'x'; 100];
const UPLOAD: usize = 100_000;

/// A slow request, an upload and a stream over HTTP/1.1, beside connections that are kept open.
fn over_http1(server: &Server) {
    over_http1_with(server, &[]);
}

fn over_http1_with(server: &Server, flags: &[&str]) {
    let address = server.address;
    let silent = [Client::connect(address), Client::connect(address)];
    let mut kept = [Client::connect(address), Client::connect(address)];
    for client in &mut kept {
        for _ in 0..2 {
            let reply = client.ask("/hello").unwrap();
            assert_eq!((reply.status, reply.body.contains("hello")), (200, true));
        }
    }
    let sidecar = watch_with(address, flags);
    let gate = Gate::new();
    let path = |what: &str, name: &str| gate.path(&format!("/{what}"), name);

    let mut slow = Client::connect(address);
    slow.request(&path("work", "slow")).unwrap();
    gate.wait_for("slow");
    let mut stream = Client::connect(address);
    stream.request(&path("stream", "stream")).unwrap();
    let first = stream.begin_reply().unwrap();
    assert_eq!((first.status, first.body.as_str()), (200, "data: tick\n\n"));
    let mut upload = Client::connect(address);
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: shop\r\nContent-Length: {UPLOAD}\r\n\r\n",
        path("upload", "upload")
    );
    upload.send(head.as_bytes()).unwrap();

    thread::scope(|scope| {
        let uploaded = scope.spawn(|| {
            let mut sent = 0;
            while !gate.is_open("upload") {
                upload.send(&PIECE).unwrap();
                sent += PIECE.len();
                thread::sleep(Duration::from_millis(50));
            }
            upload.send(&vec![b'x'; UPLOAD - sent]).unwrap();
            upload.reply().unwrap()
        });
        let streamed = scope.spawn(|| stream.end_reply().unwrap());
        let (mut uploaded, mut streamed) = (Some(uploaded), Some(streamed));
        holds_and_lets_go(
            &sidecar,
            &gate,
            &["upload", "stream", "slow"],
            |name| match name {
                "upload" => {
                    let reply = uploaded.take().unwrap().join().unwrap();
                    let body: serde_json::Value = serde_json::from_str(&reply.body).unwrap();
                    assert_eq!((reply.status, &body["bytes"]), (200, &UPLOAD.into()));
                }
                "stream" => streamed.take().unwrap().join().unwrap(),
                _ => assert_eq!(slow.reply().unwrap().status, 200),
            },
        );
    });
    for client in silent.iter().chain(&kept).chain([&slow, &stream, &upload]) {
        assert!(client.is_open(), "no connection had to be closed for it");
    }
}

#[test]
fn nginx() {
    if let Some(server) =
        servers::nginx("location / { proxy_pass http://{shop}; keepalive_timeout 600s; }")
    {
        over_http1(&server);
    }
}

#[test]
fn haproxy() {
    if let Some(server) = servers::haproxy() {
        over_http1(&server);
    }
}

#[test]
fn envoy() {
    if let Some((server, _)) = servers::envoy() {
        over_http1(&server);
    }
}

#[test]
fn haproxy_by_its_own_count() {
    if let Some(server) = servers::haproxy() {
        let source = format!("--inflight=haproxy://{}", server.address);
        over_http1_with(&server, &[&source]);
    }
}

#[test]
fn envoy_by_its_own_count() {
    if let Some((server, admin)) = servers::envoy() {
        let source = format!("--inflight=envoy://{admin}");
        over_http1_with(&server, &[&source]);
    }
}

#[test]
fn caddy() {
    if let Some(server) = servers::caddy() {
        over_http1(&server);
    }
}

#[test]
fn fastapi_under_uvicorn() {
    over_http1(&servers::uvicorn());
}

#[test]
fn flask_under_gunicorn() {
    let folder = tempfile::tempdir().unwrap();
    over_http1(&servers::gunicorn(&folder.path().join("draining")));
}

#[test]
fn express_under_node() {
    over_http1(&servers::node());
}

#[test]
fn go() {
    if let Some(server) = servers::go() {
        over_http1(&server);
    }
}

/// Clients that run in a process of their own, once all of their work is under way.
fn clients(words: &[&str]) -> Process {
    let mut clients = Process::start(python("python").args(words));
    told(&mut clients, "under way");
    clients
}

/// Waits until clients say this.
fn told(clients: &mut Process, what: &str) {
    clients.line(what, |line| (line == what).then_some(()));
}

/// Sees that the hook is answered although something is under way.
fn lets_go_all_the_same(sidecar: &Sidecar) {
    let hook = sidecar.hook("/prestop/self");
    let verdict = hook.join().unwrap().expect("the hook's answer").json();
    let soon = verdict["tookSeconds"].as_f64().unwrap() < 20.0;
    assert_eq!(
        (&verdict["outcome"], soon),
        (&"drained".into(), true),
        "{verdict}"
    );
}

#[test]
fn http2_with_a_connection_for_each_request() {
    let server = servers::hypercorn();
    let gate = Gate::new();
    let mut clients = clients(&["h2_client.py", &server.base(), gate.name(), "apart"]);
    let sidecar = watch(server.address);
    holds_and_lets_go(&sidecar, &gate, &["upload", "stream", "slow"], |name| {
        told(&mut clients, &format!("answered {name}"));
    });
}

// What docs/sources.md says cannot be seen, so that it stays true.

#[test]
fn a_silent_http2_request_is_hidden_by_a_later_one_on_its_connection() {
    let server = servers::hypercorn();
    let gate = Gate::new();
    let mut clients = clients(&["h2_client.py", &server.base(), gate.name(), "beside"]);
    lets_go_all_the_same(&watch(server.address));
    gate.open("slow");
    told(&mut clients, "answered slow");
}

#[test]
fn a_stream_that_is_silent_for_a_quiet_period_is_not_seen() {
    let (_app, base) = shop(0);
    let address = base["http://".len()..].parse().unwrap();
    let gate = Gate::new();
    let mut stream = Client::connect(address);
    stream
        .request(&format!("{}&silent=yes", gate.path("/stream", "stream")))
        .unwrap();
    stream.begin_reply().unwrap();
    lets_go_all_the_same(&watch(address));
    gate.open("stream");
    stream.end_reply().unwrap();
}

#[test]
fn grpc_that_moves_bytes() {
    let server = servers::script(&["grpc_app.py"]);
    let gate = Gate::new();
    let address = server.address.to_string();
    let mut clients = clients(&["grpc_client.py", &address, gate.name(), "upload", "stream"]);
    let sidecar = watch(server.address);
    holds_and_lets_go(&sidecar, &gate, &["upload", "stream"], |name| {
        told(&mut clients, &format!("answered {name}"));
    });
}

#[test]
fn grpc_with_a_count_of_its_own() {
    let mut server = servers::script(&["grpc_app.py"]);
    let count = server.process.line("the port of the count", |line| {
        line.strip_prefix("counting on port ").map(str::to_owned)
    });
    let gate = Gate::new();
    let address = server.address.to_string();
    let work = ["upload", "stream", "slow"];
    let words = ["grpc_client.py", &address, gate.name()]
        .into_iter()
        .chain(work);
    let mut clients = clients(&words.collect::<Vec<_>>());
    let source = format!("--inflight=text+http://127.0.0.1:{count}/inflight");
    let sidecar = watch_with(server.address, &[&source]);
    holds_and_lets_go(&sidecar, &gate, &work, |name| {
        told(&mut clients, &format!("answered {name}"));
    });
}

#[test]
fn a_websocket_whose_message_waits_for_an_answer() {
    let server = servers::script(&["ws_app.py"]);
    let gate = Gate::new();
    let address = server.address.to_string();
    let mut clients = clients(&["ws_client.py", &address, gate.name()]);
    let sidecar = watch(server.address);
    holds_and_lets_go(&sidecar, &gate, &["slow"], |name| {
        told(&mut clients, &format!("answered {name}"));
    });
}

#[test]
fn a_websocket_that_is_pinged_and_whose_message_waits_for_an_answer() {
    let server = servers::script(&["ws_app.py", "0.5"]);
    let gate = Gate::new();
    let address = server.address.to_string();
    let mut clients = clients(&["ws_client.py", &address, gate.name()]);
    let sidecar = watch(server.address);
    holds_and_lets_go(&sidecar, &gate, &["slow"], |name| {
        told(&mut clients, &format!("answered {name}"));
    });
}
