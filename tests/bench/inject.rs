//! How long `gracekeeper inject` takes for 1,000 manifests: less than a second is the aim.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gracekeeper::cli::{self, Command};
use gracekeeper::inject;

const MANIFESTS: usize = 1000;

const DEPLOYMENT: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web-NUMBER
  namespace: shop
spec:
  selector:
    matchLabels: { app: web }
  template:
    metadata:
      labels: { app: web }
      annotations:
        gracekeeper.dev/min-wait: 8s
    spec:
      containers:
        - name: web
          image: registry.example/web:1.0.0
          ports:
            - name: http
              containerPort: 8000
          env:
            - { name: A, value: \"1\" }
            - { name: B, valueFrom: { secretKeyRef: { name: s, key: k } } }
          readinessProbe:
            httpGet: { path: /healthz, port: http }
          resources:
            requests: { cpu: 100m, memory: 128Mi }
          volumeMounts:
            - { name: files, mountPath: /files }
      volumes:
        - name: files
          configMap: { name: files }
---
";

fn thousand_manifests(c: &mut Criterion) {
    let mut text = String::new();
    for number in 0..MANIFESTS {
        let _ = write!(
            text,
            "{}",
            DEPLOYMENT.replace("NUMBER", &number.to_string())
        );
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text).expect("written");
    let words = [
        "gracekeeper",
        "inject",
        file.path().to_str().expect("a path"),
    ]
    .map(str::to_owned);
    let Ok(Command::Inject(injection)) =
        cli::parse(&words, &BTreeMap::new()).map(|invocation| invocation.command)
    else {
        panic!("the command line is wrong");
    };
    let mut group = c.benchmark_group("inject");
    group
        .sample_size(10)
        .throughput(Throughput::Elements(MANIFESTS as u64));
    group.bench_function("1,000 manifests", |b| {
        b.iter(|| black_box(inject::run(&injection).expect("injected").text.len()));
    });
    group.finish();
}

criterion_group!(benches, thousand_manifests);
criterion_main!(benches);
