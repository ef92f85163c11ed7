//! Work without HTTP: a real Celery worker, fed by a real Redis, keeps its count in a file.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::support::*;

#[test]
fn a_celery_worker_ends_when_its_tasks_have() {
    let program = folder("target/test-env/bin/redis-server");
    if !program.exists() {
        println!("skipped: Debian's package redis-tools is not installed");
        return;
    }
    let shared = tempfile::tempdir().unwrap();
    let path = |name: &str| shared.path().join(name);
    let socket = path("redis.sock");
    let mut redis = Command::new(program);
    redis
        .args(["--port", "0", "--save", "", "--unixsocket"])
        .arg(&socket);
    let _redis = Process::start(redis.current_dir(shared.path()));
    wait_for("Redis", || socket.exists().then_some(()));
    let environment = [
        ("BROKER", format!("redis+socket://{}", socket.display())),
        ("INFLIGHT", path("inflight").display().to_string()),
        ("DRAINING", path("draining").display().to_string()),
    ];
    let environment = || environment.iter().map(|(name, value)| (*name, value));
    let mut worker = python("celery");
    worker.args([
        "-A",
        "celery_app",
        "worker",
        "--concurrency=2",
        "--loglevel=INFO",
    ]);
    let mut worker = Process::start(worker.envs(environment()));
    let send = |gate: &Gate, names: &[&str]| {
        let mut client = python("python");
        client.arg("celery_app.py").arg(gate.name()).args(names);
        assert!(client.envs(environment()).status().unwrap().success());
    };
    let source = format!("--inflight=text+file://{}", path("inflight").display());
    let drain_file = format!("--drain-file={}", path("draining").display());
    let sidecar = Sidecar::start(&[&source, &drain_file, "--min-wait=0s", "--quiet-period=1s"]);
    sidecar.wait_for_sources();

    let gate = Gate::new();
    send(&gate, &["a", "b"]);
    gate.wait_for("a");
    gate.wait_for("b");
    let hook = sidecar.hook("/prestop/self");
    wait_for("the count", || {
        (sidecar.status()["sources"][0]["inflight"] == 2).then_some(())
    });
    // What comes now is another worker's.
    wait_for("the worker to take no more tasks", || {
        queue_is_left(&worker).then_some(())
    });
    send(&gate, &["c"]);
    gate.open("a");
    wait_for("one task to end", || {
        (sidecar.status()["sources"][0]["inflight"] == 1).then_some(())
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(!hook.is_finished(), "a task is at work");
    gate.open("b");
    let verdict = hook.join().unwrap().unwrap().json();
    assert_eq!(
        (&verdict["outcome"], &verdict["inflight"]),
        (&"drained".into(), &0.into()),
        "{verdict}"
    );
    assert!(!Path::new(gate.name()).join("c.started").exists());
    worker.signal("TERM");
    worker.ended();
}

/// Whether the worker has said that it no longer listens to the queue.
fn queue_is_left(worker: &Process) -> bool {
    worker
        .lines()
        .iter()
        .any(|line| line.contains("Canceling queue"))
}
