//! Each kind of page over each transport, served by real apps.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::apps::drains;
use super::support::*;

const NO_OPENSSL: &str = "skipped: Debian's package openssl is not installed";

/// A certificate of its own making for these names, and its key; nothing where there is no openssl.
pub fn certificate(folder: &TempDir, names: &str) -> Option<PathBuf> {
    let pem = folder.path().join("shop.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=shop"])
        .args(["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-addext", &format!("subjectAltName={names}")])
        .args([Path::new("-keyout"), &pem, Path::new("-out"), &pem])
        .stderr(Stdio::null())
        .status();
    match made {
        Ok(status) => assert!(status.success(), "openssl: {status}"),
        Err(_) => return None,
    }
    Some(pem)
}

/// The shop over https too: the app, where its requests go, and where its pages are.
fn shop_with_tls(pem: &Path) -> (Process, String, String) {
    let (mut app, base) = shop_with(0, &["--tls", pem.to_str().unwrap()]);
    let secure = app.line("the https address", |line| {
        let (_, address) = line.split_once("https://")?;
        Some(format!("https://{address}"))
    });
    (app, base, secure)
}

/// The name of a source's first reading and what the log says of it, where only these certificates are trusted.
fn first_reading(source: &str, roots: &str) -> (Value, String) {
    let flag = format!("--inflight={source}");
    let environment = [("SSL_CERT_FILE", roots), ("SSL_CERT_DIR", "")];
    let sidecar = Sidecar::start_with(&[&flag], &environment);
    sidecar.wait_for_sources();
    let result = sidecar.status()["sources"][0]["result"].clone();
    let told = sidecar.said("unreadable");
    (result, format!("{told:?}"))
}

#[test]
fn a_json_page() {
    let (app, base) = shop(0);
    drains(
        app,
        &base,
        &format!("--inflight=json+{base}/stats#/counters/0/customers"),
    );
}

#[test]
fn a_json_page_whose_members_are_counted_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let (app, base) = shop_with(0, &["--unix", socket.to_str().unwrap()]);
    let source = format!("--inflight=json+unix://{}:/stats#/inside", socket.display());
    drains(app, &base, &source);
}

#[test]
fn a_page_of_one_number() {
    let (app, base) = shop(0);
    drains(app, &base, &format!("--inflight=text+{base}/inflight"));
}

#[test]
fn a_page_of_one_number_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("app.sock");
    let (app, base) = shop_with(0, &["--unix", socket.to_str().unwrap()]);
    let source = format!("--inflight=text+unix://{}:/inflight", socket.display());
    drains(app, &base, &source);
}

#[test]
fn pages_over_https_with_a_certificate_that_nobody_knows() {
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(&folder, "DNS:elsewhere.example") else {
        println!("{NO_OPENSSL}");
        return;
    };
    for page in ["json+{}/stats#/inside", "text+{}/inflight"] {
        let (app, base, secure) = shop_with_tls(&pem);
        let source = format!("--inflight={}", page.replace("{}", &secure));
        drains(app, &base, &source);
    }
}

#[test]
fn an_https_page_that_only_a_close_without_notice_ends_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(&folder, "DNS:elsewhere.example") else {
        println!("{NO_OPENSSL}");
        return;
    };
    let (_app, base, secure) = shop_with_tls(&pem);
    let (result, _) = first_reading(&format!("text+{base}/inflight?until=close"), "");
    assert_eq!(result, "ok", "over TCP a close is an end");
    let (result, told) = first_reading(&format!("text+{secure}/inflight?until=close"), "");
    assert_eq!(result, "broken", "{told}");
    let (result, told) = first_reading(&format!("text+{secure}/inflight"), "");
    assert_eq!(result, "ok", "with a length it is whole: {told}");
}

#[test]
fn a_host_other_than_loopback_needs_a_certificate_that_is_valid() {
    let folder = tempfile::tempdir().unwrap();
    // An address that leads here but is not loopback's.
    let Some(pem) = certificate(&folder, "IP:0.0.0.0") else {
        println!("{NO_OPENSSL}");
        return;
    };
    let (_app, _, secure) = shop_with_tls(&pem);
    let here = format!("text+{}/inflight", secure.replace("127.0.0.1", "0.0.0.0"));
    let other = format!(
        "text+{}/inflight",
        secure.replace("127.0.0.1", "[::ffff:0.0.0.0]")
    );
    let pem = pem.to_str().unwrap();
    let (result, told) = first_reading(&here, pem);
    assert_eq!(
        result, "ok",
        "its issuer is trusted, and it names the host: {told}"
    );
    let another = tempfile::tempdir().unwrap();
    let nowhere = another.path().join("nowhere.pem");
    let unrelated = certificate(&another, "IP:0.0.0.0").unwrap();
    for (source, roots, part) in [
        (&here, nowhere.to_str().unwrap(), "no root certificates"),
        (&here, unrelated.to_str().unwrap(), "certificate"),
        (&other, pem, "not valid for name"),
    ] {
        let (result, told) = first_reading(source, roots);
        assert_eq!(result, "tls", "{told}");
        assert!(told.contains(part), "{told}");
    }
}

#[test]
fn the_app_is_told_and_asked_over_https_and_unix_sockets_too() {
    let folder = tempfile::tempdir().unwrap();
    let Some(pem) = certificate(&folder, "DNS:elsewhere.example") else {
        println!("{NO_OPENSSL}");
        return;
    };
    let (_tls_app, _, secure) = shop_with_tls(&pem);
    let socket = folder.path().join("app.sock");
    let (_app, base) = shop_with(0, &["--unix", socket.to_str().unwrap()]);
    let unix = format!("unix://{}:", socket.display());
    for place in [&secure, &unix] {
        let (notify, ready) = (
            format!("--notify={place}/drain"),
            format!("--app-ready={place}/stats"),
        );
        let sidecar = Sidecar::start(&[&shop_source(&base), &notify, &ready, "--min-wait=0s"]);
        sidecar.wait_for_sources();
        assert_eq!(sidecar.get("/readyz").status, 200, "{place}");
        sidecar.hook("/prestop/app").join().unwrap().unwrap();
        wait_for("the app to be told", || {
            sidecar.said("the app was told").pop()
        });
    }
}

/// Where Debian has nginx, which is not on every user's path.
const NGINX: &str = "/usr/sbin/nginx";

#[test]
fn nginx_before_a_slow_upstream() {
    if !Path::new(NGINX).exists() {
        println!("skipped: Debian's package nginx-light is not installed");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let (_upstream, upstream) = shop(0);
    // An address of its own, so that no other test takes the port in the meantime.
    let listener = TcpListener::bind("127.0.0.9:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let configuration = format!(
        "daemon off; pid {path}/pid; worker_processes 1;
        events {{ }}
        http {{
            access_log off; client_body_temp_path {path}/body; proxy_temp_path {path}/proxy;
            fastcgi_temp_path {path}/fastcgi; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
            server {{
                listen {address};
                location = /stub_status {{ stub_status; }}
                location / {{ proxy_pass {upstream}; }}
            }}
        }}"
    );
    let file = folder.path().join("nginx.conf");
    std::fs::write(&file, configuration).unwrap();
    let mut command = Command::new(NGINX);
    command
        .args(["-e", "stderr", "-p"])
        .arg(folder.path())
        .arg("-c")
        .arg(&file);
    let app = Process::start(&mut command);
    let base = format!("http://{address}");
    wait_for("nginx", || ask("GET", &format!("{base}/stub_status"), &[]));
    // A client that keeps its connection is not in flight.
    let idle = TcpStream::connect(address).unwrap();
    drains(app, &base, &format!("--inflight=nginx+{base}/stub_status"));
    drop(idle);
}
