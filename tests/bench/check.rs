//! How long `gracekeeper check` takes for a thousand manifests: the real binary on a folder of files. Nothing here passes or
//! fails: it prints.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const MANIFESTS: usize = 1000;
const RUNS: usize = 10;

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fill(folder.path());
    println!(
        "{MANIFESTS} files, {} KiB: a Service, a Deployment with the sidecar and a budget each\n",
        bytes / 1024
    );
    println!("| format | median | most |\n| --- | --- | --- |");
    for format in ["text", "json", "sarif"] {
        let mut times: Vec<Duration> = (0..RUNS).map(|_| run(folder.path(), format)).collect();
        times.sort();
        println!(
            "| {format} | {:.0?} | {:.0?} |",
            times[RUNS / 2],
            times[RUNS - 1]
        );
    }
}

/// Files that differ in names and numbers; one in ten has something to find.
fn fill(folder: &Path) -> usize {
    let mut bytes = 0;
    for number in 0..MANIFESTS {
        let grace = if number % 10 == 0 { 5 } else { 60 };
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: app-{number}, namespace: n{ns} }}\nspec:\n  selector: {{ app: app-{number} }}\n  \
             ports: [{{ port: 80, targetPort: 8000 }}]\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{ name: app-{number}, namespace: n{ns} }}\n\
             spec:\n  replicas: 2\n  selector: {{ matchLabels: {{ app: app-{number} }} }}\n  template:\n    metadata: {{ labels: {{ app: app-{number} }} }}\n    \
             spec:\n      terminationGracePeriodSeconds: {grace}\n      initContainers:\n        - name: gracekeeper\n          image: registry.example/gracekeeper:0.1.0\n          \
             restartPolicy: Always\n          args:\n            - run\n            - --app-port=8000\n            - --grace-period={grace}s\n            \
             - --inflight=prometheus+http://127.0.0.1:8000/metrics#sum(http_requests_inprogress)\n          readinessProbe: {{ httpGet: {{ path: /readyz, port: 9903 }}, periodSeconds: 2 }}\n          \
             lifecycle: {{ preStop: {{ httpGet: {{ path: /prestop/self, port: 9903 }} }} }}\n      containers:\n        - name: app\n          image: registry.example/shop:1\n          \
             ports: [{{ containerPort: 8000 }}]\n          lifecycle: {{ preStop: {{ httpGet: {{ path: /prestop/app, port: 9903 }} }} }}\n---\napiVersion: policy/v1\n\
             kind: PodDisruptionBudget\nmetadata: {{ name: app-{number}, namespace: n{ns} }}\nspec: {{ maxUnavailable: 1, selector: {{ matchLabels: {{ app: app-{number} }} }} }}\n",
            ns = number % 20,
        );
        bytes += text.len();
        std::fs::write(folder.join(format!("app-{number}.yaml")), text).unwrap();
    }
    bytes
}

fn run(folder: &Path, format: &str) -> Duration {
    let start = Instant::now();
    let status = Command::new(env!("CARGO_BIN_EXE_gracekeeper"))
        .args(["check", "--format", format])
        .arg(folder)
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert_eq!(
        status.code(),
        Some(1),
        "one file in ten has something to find"
    );
    start.elapsed()
}
