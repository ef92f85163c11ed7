//! `gracekeeper hook` and `gracekeeper install`: the hook as a command in the app's own container.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::client::Client;
use super::support::*;

/// Where the kubelet calls from in these tests.
const KUBELET: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// Runs the hook, of this binary, with these flags.
fn hook(flags: &[&str]) -> JoinHandle<Output> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gracekeeper"));
    command
        .arg("hook")
        .args(flags)
        .env("GRACEKEEPER_LOCAL_PEERS", "clients");
    thread::spawn(move || command.output().unwrap())
}

fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(text.lines().count(), 1, "{output:?}");
    text.into_owned()
}

/// A port on which nothing listens.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

#[test]
fn the_hook_waits_for_the_sidecar_and_says_its_verdict_in_one_line() {
    let (_app, base) = shop(0);
    let source = shop_source(&base);
    let secret = [("GRACEKEEPER_TOKEN", "secret")];
    let sidecar = Sidecar::start_with(&[&source, "--min-wait=0s", "--quiet-period=0s"], &secret);
    sidecar.wait_for_sources();
    let gate = Gate::new();
    let work = gate.enter(&base, "work");
    let token = gate_file(&gate, "token", "secret\n");
    let listen = format!("--listen={}", sidecar.address);
    // Its own flags say that it would take no time at all: they are not what counts here.
    let times = ["--timeout=1ms", "--grace-period=1s", "--reserve=0s"];
    let own = [&listen, "--token-file", &token, &source];
    let hook = hook(&[own.as_slice(), &times].concat());
    wait_for("the drain", || {
        (sidecar.status()["phase"] == "draining").then_some(())
    });
    thread::sleep(Duration::from_millis(1500));
    assert!(!hook.is_finished(), "the work is still under way");
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    let told = said(&hook.join().unwrap());
    assert!(told.starts_with("gracekeeper: drained after "), "{told}");
    assert!(
        told.contains("started by: app hook") && !told.contains("without"),
        "{told}"
    );
}

#[test]
fn where_no_sidecar_answers_the_hook_drains_by_itself() {
    let (_app, base) = shop(0);
    let source = shop_source(&base);
    let gate = Gate::new();
    let file = format!("{}/draining", gate.name());
    let work = gate.enter(&base, "work");
    let listen = format!("--listen=[::]:{}", free_port());
    let drain_file = format!("--drain-file={file}");
    let hook = hook(&[
        &listen,
        &source,
        "--min-wait=0s",
        "--quiet-period=0s",
        &drain_file,
    ]);
    wait_for("the app to be told", || {
        std::path::Path::new(&file).exists().then_some(())
    });
    thread::sleep(Duration::from_millis(300));
    assert!(!hook.is_finished(), "the work is still under way");
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    let told = said(&hook.join().unwrap());
    assert!(told.starts_with("gracekeeper: drained after "), "{told}");
    assert!(
        told.contains("without the sidecar: nothing listens on 127.0.0.1:"),
        "{told}"
    );
    assert!(
        !std::path::Path::new(&file).exists(),
        "the next start is no drain"
    );
}

#[test]
fn a_sidecar_that_hangs_or_wants_another_token_or_dies_is_no_reason_to_cut_requests_off() {
    let (_app, base) = shop(0);
    let source = shop_source(&base);
    let own = [source.as_str(), "--min-wait=0s", "--quiet-period=0s"];

    let hung = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = format!("--listen={}", hung.local_addr().unwrap());
    let told = said(&hook(&[&own[..], &[&listen]].concat()).join().unwrap());
    assert!(told.contains("did not answer within 1s"), "{told}");

    let secret = [("GRACEKEEPER_TOKEN", "secret")];
    let mut sidecar = Sidecar::start_with(&own, &secret);
    sidecar.wait_for_sources();
    let listen = format!("--listen={}", sidecar.address);
    let told = said(&hook(&[&own[..], &[&listen]].concat()).join().unwrap());
    assert!(told.contains("wants its token"), "{told}");
    assert_eq!(sidecar.status()["phase"], "serving");

    let gate = Gate::new();
    let token = gate_file(&gate, "token", "secret");
    let work = gate.enter(&base, "work");
    let hook = hook(&[&own[..], &[&listen, "--token-file", &token]].concat());
    wait_for("the drain", || {
        (sidecar.status()["phase"] == "draining").then_some(())
    });
    sidecar.process.kill();
    thread::sleep(Duration::from_millis(500));
    assert!(!hook.is_finished(), "the work is still under way");
    gate.open("work");
    assert_eq!(work.join().unwrap().unwrap().status, 200);
    let told = said(&hook.join().unwrap());
    assert!(told.contains("went away"), "{told}");
}

#[test]
fn a_hook_that_has_lost_its_sidecar_knows_the_kubelets_probes_from_requests() {
    let (_app, base) = shop(0);
    let address: SocketAddr = base["http://".len()..].parse().unwrap();
    let port = format!("--app-port={}", address.port());
    let times = ["--min-wait=1s", "--quiet-period=1s", "--max-quiet=3s"];
    let own = [&port, times[0], times[1], times[2], "--grace-period=100s"];
    let mut sidecar = Sidecar::start(&own);
    sidecar.wait_for_sources();
    // As the kubelet's readiness probe of the sidecar does.
    let mut probe = Client::connect_from(KUBELET, sidecar.address);
    let request = "GET /readyz HTTP/1.1\r\nHost: x\r\nUser-Agent: kube-probe/1.36\r\n\r\n";
    probe.send(request.as_bytes()).unwrap();
    wait_for("the kubelet's address", || {
        (sidecar.status()["kubelet"][0] == KUBELET.to_string()).then_some(())
    });
    let listen = format!("--listen={}", sidecar.address);
    let hook = hook(&[&own[..], &[&listen]].concat());
    wait_for("the drain", || {
        (sidecar.status()["phase"] == "draining").then_some(())
    });
    sidecar.process.kill();
    let began = Instant::now();
    while !hook.is_finished() {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "probes hold it up"
        );
        let mut probe = Client::connect_from(KUBELET, address);
        assert_eq!(probe.ask("/hello").unwrap().status, 200);
        // The kubelet keeps no connection.
        drop(probe);
        thread::sleep(Duration::from_millis(600));
    }
    let told = said(&hook.join().unwrap());
    assert!(told.starts_with("gracekeeper: drained after "), "{told}");
}

#[test]
fn the_deadline_holds_for_a_hook_without_a_sidecar_too() {
    let (_app, base) = shop(0);
    let gate = Gate::new();
    let _work = gate.enter(&base, "work");
    let listen = format!("--listen=127.0.0.1:{}", free_port());
    let told = said(
        &hook(&[&listen, &shop_source(&base), "--timeout=2s"])
            .join()
            .unwrap(),
    );
    assert!(told.starts_with("gracekeeper: deadline after "), "{told}");
    gate.open("work");
}

#[test]
fn a_hook_that_is_told_to_stop_fails() {
    let (_app, base) = shop(0);
    let gate = Gate::new();
    let _work = gate.enter(&base, "work");
    let file = format!("{}/draining", gate.name());
    let mut command = Command::new(env!("CARGO_BIN_EXE_gracekeeper"));
    command
        .args(["hook", "--log-format=json", &shop_source(&base)])
        .args([
            &format!("--listen=127.0.0.1:{}", free_port()),
            &format!("--drain-file={file}"),
        ]);
    let mut hook = Process::start(&mut command);
    wait_for("the drain", || {
        std::path::Path::new(&file).exists().then_some(())
    });
    hook.signal("TERM");
    assert_eq!(hook.ended().code(), Some(1));
    gate.open("work");
}

#[test]
fn mistakes_of_a_hook_are_told_too() {
    let output = hook(&["--min-wait=soon", "--app-port=x"]).join().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 2);
}

#[test]
fn an_installed_copy_runs() {
    let folder = tempfile::tempdir().unwrap();
    let into = folder.path().to_str().unwrap();
    let mut install = Command::new(env!("CARGO_BIN_EXE_gracekeeper"));
    let output = install.args(["install", into]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let copy = folder.path().join("gracekeeper");
    let version = Command::new(copy).arg("--version").output().unwrap();
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("gracekeeper "));

    let mut nowhere = Command::new(env!("CARGO_BIN_EXE_gracekeeper"));
    let output = nowhere.args(["install", "/nowhere"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        told.contains("/nowhere/gracekeeper") && told.contains("mount a volume"),
        "{told}"
    );
}

/// A file in a gate's folder.
fn gate_file(gate: &Gate, name: &str, text: &str) -> String {
    let path = format!("{}/{name}", gate.name());
    fs::write(&path, text).unwrap();
    path
}
