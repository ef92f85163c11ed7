//! One truth: what the chart's policy makes of a pod, `gracekeeper inject` makes of it too, key by key.
//!
//! Where KUBECONFIG names a cluster of Kubernetes 1.36 or later, its API server is asked by dry runs; with
//! GRACEKEEPER_RECORD=1 its answers are written to recorded.jsonl. Without a cluster those answers are what is compared.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{TOKEN, inject};

const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/inject");
const POLICY: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/deploy/injection/injection.yaml"
);
/// The namespace of recorded pods.
const NAMESPACE: &str = "inject-truth";
const FEWEST: usize = 40;

/// What an API server made of a shape.
#[derive(Serialize, Deserialize)]
struct Recorded {
    shape: String,
    /// Without the policy.
    plain: Value,
    /// With it.
    policy: Value,
    warnings: Vec<String>,
}

/// The shapes as YAML, by name.
fn shapes() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(Path::new(HERE).join("shapes.yaml")).expect("shapes");
    (text.split("\n---\n"))
        .map(|shape| {
            let (_, rest) = shape.split_once("name: ").expect("a name");
            let end = rest.find([',', ' ', '\n']).expect("more");
            (rest[..end].to_owned(), format!("{shape}\n"))
        })
        .collect()
}

/// Takes out what differs from one request to the next, and who injected.
fn normalised(pod: &Value) -> Value {
    let mut metadata = json!({});
    for key in ["name", "labels", "annotations"] {
        if let Some(value) = pod["metadata"].get(key) {
            metadata[key] = value.clone();
        }
    }
    if let Some(annotations) = metadata["annotations"].as_object_mut() {
        annotations.remove("gracekeeper.dev/injected-by");
    }
    if metadata["annotations"]
        .as_object()
        .is_none_or(|it| it.is_empty())
    {
        metadata
            .as_object_mut()
            .expect("an object")
            .remove("annotations");
    }
    let mut spec = pod["spec"].clone();
    let is_token = |it: &Value| {
        it["name"]
            .as_str()
            .is_some_and(|name| name.starts_with("kube-api-access-"))
    };
    let drop_tokens = |holder: &mut Value, key: &str| {
        let left = holder[key].as_array_mut().map(|list| {
            list.retain(|it| !is_token(it));
            list.len()
        });
        if left.is_none_or(|left| left == 0) {
            holder.as_object_mut().expect("an object").remove(key);
        }
    };
    drop_tokens(&mut spec, "volumes");
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            drop_tokens(container, "volumeMounts");
        }
    }
    for key in [
        "tolerations",
        "priority",
        "preemptionPolicy",
        "schedulerName",
        "enableServiceLinks",
        "initContainers",
    ] {
        if spec[key].is_null() || key != "initContainers" {
            spec.as_object_mut().expect("an object").remove(key);
        }
    }
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec })
}

/// Adds what the API server adds to a container or a hook of ours.
fn with_defaults(mut pod: Value) -> Value {
    fn default(holder: &mut Value, key: &str, value: Value) {
        if holder.is_object() && holder[key].is_null() {
            holder[key] = value;
        }
    }
    fn probe(probe: &mut Value) {
        if probe.is_null() {
            return;
        }
        for (key, value) in [
            ("failureThreshold", 3),
            ("successThreshold", 1),
            ("timeoutSeconds", 1),
        ] {
            default(probe, key, json!(value));
        }
        if !probe["httpGet"].is_null() {
            default(&mut probe["httpGet"], "scheme", json!("HTTP"));
        }
    }
    fn hook(container: &mut Value) {
        if container.pointer("/lifecycle/preStop/httpGet").is_some() {
            default(
                &mut container["lifecycle"]["preStop"]["httpGet"],
                "scheme",
                json!("HTTP"),
            );
        }
    }
    for container in pod["spec"]["containers"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        hook(container);
    }
    for container in pod["spec"]["initContainers"]
        .as_array_mut()
        .into_iter()
        .flatten()
    {
        if container["name"] != "gracekeeper" || container["env"].is_null() {
            continue;
        }
        hook(container);
        default(
            container,
            "terminationMessagePath",
            json!("/dev/termination-log"),
        );
        default(container, "terminationMessagePolicy", json!("File"));
        for name in ["startupProbe", "readinessProbe"] {
            if container.get(name).is_some() {
                probe(&mut container[name]);
            }
        }
        for variable in container["env"].as_array_mut().into_iter().flatten() {
            if variable.pointer("/valueFrom/fieldRef").is_some() {
                default(
                    &mut variable["valueFrom"]["fieldRef"],
                    "apiVersion",
                    json!("v1"),
                );
            }
        }
    }
    pod
}

/// Every place where two values differ.
fn differences(path: &str, policy: &Value, command: &Value, into: &mut Vec<String>) {
    match (policy, command) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let of = |map: &serde_json::Map<String, Value>| {
                    map.get(key).cloned().unwrap_or_default()
                };
                differences(&format!("{path}.{key}"), &of(a), &of(b), into);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differences(&format!("{path}[{index}]"), a, b, into);
            }
        }
        _ if policy == command => {}
        _ => into.push(format!(
            "{path}: the policy has {policy}, inject has {command}"
        )),
    }
}

fn assert_same(shape: &str, policy: &Value, command: &Value) {
    let mut found = Vec::new();
    differences("", policy, command, &mut found);
    assert!(found.is_empty(), "{shape}:\n{}", found.join("\n"));
}

/// The words that give `inject` the settings of the policy under test.
fn words(namespace: &str) -> Vec<String> {
    let words = [
        "--token".to_owned(),
        TOKEN.to_owned(),
        "--namespace".to_owned(),
        namespace.to_owned(),
        format!("--service-accounts={namespace}/api"),
    ];
    words.to_vec()
}

fn run(namespace: &str, input: &str) -> (String, Vec<String>) {
    let words = words(namespace);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = inject(&words, input);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{errors}");
    let warnings = errors
        .lines()
        .map(|line| line.split_once(": Pod ").expect(line).1);
    let warnings = warnings.map(|line| line.split_once(": ").expect(line).1.to_owned());
    (
        String::from_utf8(output.stdout).expect("text"),
        warnings.collect(),
    )
}

#[test]
fn inject_makes_of_each_pod_what_the_policy_makes_of_it() {
    let text = std::fs::read_to_string(Path::new(HERE).join("recorded.jsonl")).expect("recorded");
    let recorded: Vec<Recorded> = (text.lines())
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert!(recorded.len() >= FEWEST, "only {} shapes", recorded.len());
    let names: Vec<_> = recorded.iter().map(|it| it.shape.as_str()).collect();
    let all = shapes();
    assert_eq!(
        names,
        all.keys().map(String::as_str).collect::<Vec<_>>(),
        "record them anew"
    );
    let mut changed = 0;
    for Recorded {
        shape,
        plain,
        policy,
        warnings,
    } in &recorded
    {
        let (text, said) = run(
            NAMESPACE,
            &serde_json::to_string_pretty(plain).expect("JSON"),
        );
        let command: Value = serde_json::from_str(&text).expect("JSON stays JSON");
        assert_same(shape, policy, &with_defaults(normalised(&command)));
        assert_eq!(said.join("; "), warnings.join("; "), "{shape}");
        changed += usize::from(policy != plain);
    }
    assert!(
        changed * 4 > recorded.len() * 3,
        "the policy changed only {changed}"
    );
}

/// An API server, with the policy under a name of its own and a namespace that it acts on.
struct Cluster {
    name: String,
    policy: String,
}

impl Cluster {
    fn kubectl(words: &[&str], input: &str) -> Result<(String, String), String> {
        let mut child = Command::new("kubectl")
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| e.to_string())?;
        child
            .stdin
            .take()
            .expect("a pipe")
            .write_all(input.as_bytes())
            .map_err(|e| e.to_string())?;
        let output = child.wait_with_output().map_err(|e| e.to_string())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        match output.status.success() {
            true => Ok((text(output.stdout), text(output.stderr))),
            false => Err(text(output.stderr)),
        }
    }

    fn new() -> Self {
        let name = format!("truth-{}", std::process::id());
        let policy = std::fs::read_to_string(POLICY).expect("run `make manifests`");
        let policy = policy
            .replace("name: gracekeeper\n", &format!("name: {name}\n"))
            .replace("name: gracekeeper-", &format!("name: {name}-"))
            .replace("policyName: gracekeeper", &format!("policyName: {name}"))
            .replace(
                "gracekeeper.dev/inject: enabled",
                &format!("gracekeeper.dev/inject: {name}"),
            )
            .replace(
                "== 'enabled')\n        && !(has",
                &format!("== '{name}')\n        && !(has"),
            )
            .replace(
                "failurePolicy: Ignore\n  reinvocation",
                "failurePolicy: Fail\n  reinvocation",
            )
            .replace("\"token\": \"\"", &format!("\"token\": \"{TOKEN}\""))
            .replace(
                "\"service-accounts\": \"\"",
                &format!("\"service-accounts\": \"{name}/api\""),
            );
        let cluster = Self { name, policy };
        let namespaces = format!(
            "{{apiVersion: v1, kind: Namespace, metadata: {{name: {0}, labels: {{gracekeeper.dev/inject: {0}}}}}}}\n---\n\
             {{apiVersion: v1, kind: Namespace, metadata: {{name: {0}-plain}}}}\n---\n\
             {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: api, namespace: {0}}}}}\n---\n\
             {{apiVersion: v1, kind: ServiceAccount, metadata: {{name: api, namespace: {0}-plain}}}}\n",
            cluster.name
        );
        Self::kubectl(&["create", "-f", "-"], &namespaces).expect("namespaces");
        Self::kubectl(&["create", "-f", "-"], &cluster.policy).expect("the policy");
        cluster
    }

    /// A dry run; the pod, and what was warned.
    fn create(&self, namespace: &str, pod: &str) -> Result<(Value, Vec<String>), String> {
        let words = [
            "create",
            "--dry-run=server",
            "--output=json",
            "--namespace",
            namespace,
            "-f",
            "-",
        ];
        let (pod, errors) = Self::kubectl(&words, pod)?;
        // A message says which policy and binding it is of, and then what it says.
        let warning = |line: &str| {
            Some(
                line.split_once("with binding '")?
                    .1
                    .split_once("': ")?
                    .1
                    .to_owned(),
            )
        };
        let warnings = errors.lines().filter_map(warning).collect();
        Ok((serde_json::from_str(&pod).expect("JSON"), warnings))
    }

    /// Waits until the API server acts by the policy, and knows the namespaces' service accounts.
    fn ready(&self, pod: &str) {
        let give_up = Instant::now() + Duration::from_secs(60);
        loop {
            let plain = self.create(&format!("{}-plain", self.name), pod);
            let injected = self.create(&self.name, pod);
            match (plain, injected) {
                (Ok(_), Ok((pod, _))) if pod["spec"]["initContainers"].is_array() => return,
                (_, last) => assert!(
                    Instant::now() < give_up,
                    "the policy does nothing: {last:?}"
                ),
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let plain = format!("{}-plain", self.name);
        let _ = Self::kubectl(
            &["delete", "namespace", "--wait=false", &self.name, &plain],
            "",
        );
        let _ = Self::kubectl(&["delete", "-f", "-"], &self.policy);
    }
}

#[test]
fn a_real_api_server_agrees_where_there_is_one() {
    if std::env::var_os("KUBECONFIG").is_none() {
        return;
    }
    let cluster = Cluster::new();
    let shapes = shapes();
    cluster.ready(&shapes["one-port"]);
    let mut lines = String::new();
    for (name, shape) in &shapes {
        let (policy, warnings) = cluster
            .create(&cluster.name, shape)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let (text, said) = run(&cluster.name, shape);
        // The policy leaves alone what has the sidecar already.
        let (command, _) = cluster
            .create(&cluster.name, &text)
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_same(name, &normalised(&policy), &normalised(&command));
        assert_eq!(said.join("; "), warnings.join("; "), "{name}");
        let (plain, _) = cluster
            .create(&format!("{}-plain", cluster.name), shape)
            .expect("a plain pod");
        let recorded = Recorded {
            shape: name.clone(),
            plain: normalised(&plain),
            policy: normalised(&policy),
            warnings,
        };
        lines += &serde_json::to_string(&recorded)
            .expect("JSON")
            .replace(&cluster.name, NAMESPACE);
        lines += "\n";
    }
    if std::env::var_os("GRACEKEEPER_RECORD").is_some() {
        std::fs::write(Path::new(HERE).join("recorded.jsonl"), lines).expect("written");
    }
}
