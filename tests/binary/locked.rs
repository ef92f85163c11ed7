//! Requests that try to start, end or undo a drain without the token, written byte by byte: none does, and none ends the
//! sidecar.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;

use super::support::*;

const TOKEN: &str = "secret";

/// What changes state, as it should be asked.
const CHANGES: [(&str, &str); 6] = [
    ("GET", "/prestop"),
    ("GET", "/prestop/app"),
    ("GET", "/prestop/self"),
    ("POST", "/drain"),
    ("DELETE", "/drain"),
    ("POST", "/release"),
];

/// A request of these headers, the last of its connection.
fn request(method: &str, path: &str, headers: &str) -> Vec<u8> {
    format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n")
        .into_bytes()
}

/// Paths that lead to those of the hooks where a server or a proxy is generous.
fn other_paths() -> Vec<Vec<u8>> {
    let mut paths: Vec<String> = Vec::new();
    for (_, path) in CHANGES {
        let (name, rest) = (&path[1..], path[1..].replace('/', "//"));
        let upper = path.to_uppercase();
        let title = format!("/{}{}", name[..1].to_uppercase(), &name[1..]);
        let first = format!("/%{:02x}{}", name.as_bytes()[0], &name[1..]);
        paths.extend([
            format!("/{path}"),
            format!("//x{path}"),
            format!("/{rest}"),
            format!("{path}/"),
            format!("{path}//"),
            format!("{path}/."),
            format!("/.{path}"),
            format!("/x/..{path}"),
            format!("/livez/..{path}"),
            format!("/livez;{path}"),
            format!("/livez/%2e%2e{path}"),
            format!("/%2e{path}"),
            format!("/..%2f{name}"),
            format!("/%2f{name}"),
            path.replace('/', "\\"),
            path.replace('/', "%2f"),
            path.replace('/', "%252f"),
            first,
            format!("{path};x"),
            format!("{path};x=y/z"),
            format!("{path}%00"),
            format!("{path}%20"),
            format!("{path}%0d%0aX-Gracekeeper-Token:%20{TOKEN}"),
            format!("{path}?"),
            format!("{path}?wait=true"),
            format!("{path}?token={TOKEN}"),
            format!("{path}?access_token={TOKEN}"),
            format!("{path}?authorization=Bearer%20{TOKEN}"),
            format!("{path}#{TOKEN}"),
            format!("http://x{path}"),
            format!("http://{TOKEN}@x{path}"),
            format!("https://x:{TOKEN}@x{path}"),
            format!("{path}\0"),
            format!("{path}\t"),
            upper,
            title,
        ]);
    }
    paths.push("*".to_owned());
    paths.push("x:9903".to_owned());
    let mut all = Vec::new();
    for path in paths {
        for method in ["GET", "POST", "DELETE"] {
            all.push(request(method, &path, ""));
        }
    }
    all
}

fn other_methods() -> Vec<Vec<u8>> {
    let methods = [
        "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "get",
        "PRI", "DRAIN", "GET\0", "\u{1}", "",
    ];
    let mut all = Vec::new();
    for (_, path) in CHANGES {
        for method in methods {
            all.push(request(method, path, ""));
            all.push(request(method, path, "Content-Length: 0\r\n"));
            all.push(request(method, path, "Transfer-Encoding: chunked\r\n"));
        }
    }
    all
}

/// Headers that lead elsewhere, or tell who asks, where a server trusts them.
fn other_headers() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (method, path) in CHANGES {
        for name in ["X-Original-URL", "X-Rewrite-URL", "X-Forwarded-Uri"] {
            let to = format!(
                "{name}: {path}\r\nX-HTTP-Method-Override: {method}\r\nX-Method-Override: {method}\r\n"
            );
            all.push(request("GET", "/livez", &to));
            all.push(request("POST", "/livez", &to));
        }
        for headers in [
            "X-Forwarded-For: 127.0.0.1\r\nX-Real-IP: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n",
            "User-Agent: kube-lifecycle/1.36\r\n",
            "User-Agent: kube-probe/1.36\r\n",
            "User-Agent: gracekeeper-hook/0.1.0\r\n",
            "Host: localhost\r\n",
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            "Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Expect: 100-continue\r\n",
        ] {
            all.push(request(method, path, headers));
        }
    }
    all
}

/// The token where it does not belong, and others in its place.
fn other_tokens() -> Vec<Vec<u8>> {
    let headers = [
        "Authorization: secret",
        "Authorization: Basic secret",
        "Authorization: Basic c2VjcmV0OnNlY3JldA==",
        "Authorization: Token secret",
        "Authorization: Bearersecret",
        "Authorization: Bearer",
        "Authorization: Bearer ",
        "Authorization: Bearer secre",
        "Authorization: Bearer secrets",
        "Authorization: Bearer SECRET",
        "Authorization: Bearer secret, Bearer other",
        "Authorization: Bearer \"secret\"",
        "Authorization: Bearer s%65cret",
        "Authorization: Bearer se\tcret",
        "Authorization: Bearer secret\0",
        "Authorization: Bearer other\r\nAuthorization: Bearer another",
        "Authorization: Bearer sec\r\n ret",
        "Authorization : Bearer secret",
        " Authorization: Bearer secret",
        "Authorization\0: Bearer secret",
        "X-Gracekeeper-Token:",
        "X-Gracekeeper-Token: ",
        "X-Gracekeeper-Token: Bearer secret",
        "X-Gracekeeper-Token: SECRET",
        "X-Gracekeeper-Token: secret,secret",
        "X-Gracekeeper-Token: other\r\nX-Gracekeeper-Token: another",
        "X-Gracekeeper-Token : secret",
        "X-Gracekeeper_Token: secret",
        "X_Gracekeeper_Token: secret",
        "X-Gracekeeper-Tokens: secret",
        "X-Other: a\r\n X-Gracekeeper-Token: secret",
        "X-Other: a\rX-Gracekeeper-Token: secret",
        "Proxy-Authorization: Bearer secret",
        "X-Authorization: Bearer secret",
        "X-Auth-Token: secret",
        "Token: secret",
        "Cookie: token=secret; X-Gracekeeper-Token=secret; Authorization=Bearer secret",
        "Host: secret",
        "Connection: X-Gracekeeper-Token",
    ];
    let mut all = Vec::new();
    for (method, path) in CHANGES {
        for header in headers {
            all.push(request(method, path, &format!("{header}\r\n")));
        }
    }
    all
}

/// Requests within requests.
fn smuggled() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (method, path) in CHANGES {
        let inner = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        let (length, hex) = (inner.len(), format!("{:x}", inner.len()));
        for outer in ["GET", "POST"] {
            let first = format!("{outer} /livez HTTP/1.1\r\nHost: x\r\n");
            for rest in [
                format!("\r\n{inner}"),
                format!("Content-Length: 0\r\n\r\n{inner}"),
                format!("Content-Length: {length}\r\n\r\n{inner}"),
                format!("Content-Length: {length}\r\nContent-Length: 0\r\n\r\n{inner}"),
                format!("Content-Length: 0\r\nContent-Length: {length}\r\n\r\n{inner}"),
                format!("Content-Length: 0, {length}\r\n\r\n{inner}"),
                format!("Content-Length: +{length}\r\n\r\n{inner}"),
                format!("Content-Length: -1\r\n\r\n{inner}"),
                format!("Content-Length: 99999999999999999999\r\n\r\n{inner}"),
                format!("Content-Length: 0x{hex}\r\n\r\n{inner}"),
                format!(
                    "Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
                ),
                format!("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n{inner}"),
                format!("Transfer-Encoding: chunked\r\n\r\n{hex}\r\n{inner}\r\n0\r\n\r\n"),
                format!(
                    "Transfer-Encoding: chunked\r\n\r\n{hex};a=\"\r\n\"\r\n{inner}\r\n0\r\n\r\n"
                ),
                format!(
                    "Transfer-Encoding: chunked\r\n\r\n0\r\nX-Gracekeeper-Token: secret\r\n\r\n{inner}"
                ),
                format!("Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n{inner}"),
                format!("Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{inner}"),
                format!("Transfer-Encoding:\u{b}chunked\r\n\r\n0\r\n\r\n{inner}"),
                format!("Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{inner}"),
                format!(
                    "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"
                ),
                format!("X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{inner}"),
                format!("X-Gracekeeper-Token: secret\r\n\r\n{inner}"),
                format!("Authorization: Bearer secret\r\nContent-Length: 0\r\n\r\n{inner}"),
            ] {
                all.push(format!("{first}{rest}").into_bytes());
            }
        }
    }
    all
}

/// Other protocols, and versions of this one.
fn other_protocols() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (method, path) in CHANGES {
        for version in [
            "",
            " HTTP/0.9",
            " HTTP/1.0",
            " HTTP/1.2",
            " HTTP/2.0",
            " HTTP/3",
            " ICAP/1.0",
        ] {
            all.push(format!("{method} {path}{version}\r\nHost: x\r\n\r\n").into_bytes());
        }
        let plain = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        all.push(format!("PROXY TCP4 127.0.0.1 127.0.0.1 1 9903\r\n{plain}").into_bytes());
        all.push([b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00", plain.as_bytes()].concat());
        all.push(format!("\r\n\r\n{plain}").into_bytes());
        all.push(plain.replace("\r\n", "\n").into_bytes());
        all.push(plain.replace("\r\n", "\r").into_bytes());
        // HTTP/2 with prior knowledge: settings, then the request as literal headers, without indexing.
        let mut block = Vec::new();
        for (name, value) in [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", "x"),
        ] {
            block.push(0);
            for text in [name, value] {
                block.push(text.len() as u8);
                block.extend(text.bytes());
            }
        }
        let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        frames.extend([0, 0, block.len() as u8, 1, 5, 0, 0, 0, 1]);
        frames.extend(block);
        all.push(frames);
    }
    // The beginning of a TLS handshake.
    all.push(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec());
    all.push(vec![0; 4096]);
    all.push(vec![b'\n'; 4096]);
    all
}

/// Sends bytes, and takes in whatever comes back until the sidecar has closed the connection.
fn send(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // It may be refused before it is complete.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Sends all of them, some at a time.
fn send_all(address: SocketAddr, requests: &[Vec<u8>]) {
    thread::scope(|scope| {
        for part in requests.chunks(requests.len().div_ceil(16)) {
            scope.spawn(move || {
                for bytes in part {
                    let answer = send(address, bytes);
                    let answer = String::from_utf8_lossy(&answer);
                    let asked = String::from_utf8_lossy(bytes);
                    assert!(!answer.contains("outcome"), "{asked}\n{answer}");
                    assert!(!answer.contains(" 202 "), "{asked}\n{answer}");
                    assert!(!answer.contains(" 409 "), "{asked}\n{answer}");
                }
            });
        }
    });
}

fn all() -> Vec<Vec<u8>> {
    [
        other_paths(),
        other_methods(),
        other_headers(),
        other_tokens(),
        smuggled(),
        other_protocols(),
    ]
    .concat()
}

#[test]
fn nothing_starts_a_drain_without_the_token() {
    let flags = ["--app-port=1", "--min-wait=0s", "--quiet-period=0s"];
    let mut sidecar = Sidecar::start_with(&flags, &[("GRACEKEEPER_TOKEN", TOKEN)]);
    send_all(sidecar.address, &all());
    assert!(sidecar.process.running());
    assert_eq!(sidecar.status()["phase"], "serving");
    assert_eq!(sidecar.get("/readyz").status, 200);
    let page = sidecar.get("/metrics").body;
    assert!(
        !page.contains("gracekeeper_drain_seconds_count 1"),
        "{page}"
    );
    let hooks = page
        .lines()
        .filter(|line| line.starts_with("gracekeeper_hooks_total{"));
    assert!(hooks.into_iter().all(|line| line.ends_with(" 0")), "{page}");
    assert!(sidecar.said("panicked").is_empty());
    assert!(
        !sidecar
            .process
            .lines()
            .iter()
            .any(|line| line.contains(TOKEN)),
        "the token is in no log"
    );
    // With it, each works.
    let token = [("x-gracekeeper-token", TOKEN)];
    let answer = ask("GET", &sidecar.url("/prestop/app"), &token).unwrap();
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("outcome"), "{}", answer.body);
}

#[test]
fn nothing_ends_or_undoes_a_drain_without_the_token() {
    let (_app, base) = shop(0);
    let flags = [shop_source(&base)];
    let flags = [flags[0].as_str(), "--min-wait=0s", "--grace-period=600s"];
    let sidecar = Sidecar::start_with(&flags, &[("GRACEKEEPER_TOKEN", TOKEN)]);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let request = gate.enter(&base, "a");
    let token = [("authorization", "Bearer secret")];
    let drained = ask("POST", &sidecar.url("/drain"), &token).unwrap();
    assert_eq!(drained.status, 202);
    let url = sidecar.url("/prestop/app");
    let hook = thread::spawn(move || ask("GET", &url, &token));
    wait_for("the hook", || {
        sidecar
            .get("/metrics")
            .body
            .contains("gracekeeper_hooks_total{hook=\"app\"} 1")
            .then_some(())
    });
    send_all(sidecar.address, &all());
    assert_eq!(sidecar.status()["phase"], "draining");
    assert!(!hook.is_finished());
    gate.open("a");
    assert_eq!(request.join().unwrap().unwrap().status, 200);
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(verdict["outcome"], "drained", "{verdict}");
    assert_eq!(verdict["going"], false, "{verdict}");
}
