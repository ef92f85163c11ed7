//! The filter: what it adds, what it leaves as it is, and what it says.

use std::fs;

use crate::{inject, injected};

const DEPLOYMENT: &str = "\
# The shop.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web # its name
  namespace: shop
spec:
  unknownField: 0o17 # of another version
  template:
    metadata:
      labels: { app: web }
    spec:
      containers:
        - name: web
          image: web
          ports:
            - containerPort: 8000 # http
          volumeMounts: [{name: files, mountPath: /files}]
      volumes:
        - name: files
          configMap: { name: files, defaultMode: 0644 }
";
const SERVICE: &str = "\
---
apiVersion: v1
kind: Service
metadata: {name: web,   labels: {}} # odd, and left so
";

#[test]
fn comments_order_and_unknown_fields_stay_and_other_documents_are_untouched() {
    let before = format!("{DEPLOYMENT}{SERVICE}");
    let after = injected(&[], &before);
    assert!(after.ends_with(SERVICE), "{after}");
    let mut rest = after.lines();
    for line in DEPLOYMENT.lines().filter(|line| !line.contains("labels:")) {
        assert!(
            rest.any(|it| it == line),
            "{line:?} is not there, or not in its place\n{after}"
        );
    }
    for part in [
        "name: gracekeeper",
        "path: /prestop/app",
        "value: \"8000\"",
        "gracekeeper.dev/injected: \"0.1.0\"",
    ] {
        assert!(after.contains(part), "{part} in\n{after}");
    }
}

#[test]
fn twice_is_once_and_uninject_brings_back_every_byte() {
    for words in [&[][..], &["--mode=hook", "--min-wait=3s"]] {
        // A line of YAML may end in each of these ways.
        for line_break in ["\n", "\r\n", "\r"] {
            let before = format!("{DEPLOYMENT}{SERVICE}").replace('\n', line_break);
            let after = injected(words, &before);
            assert_ne!(after, before);
            assert_eq!(injected(words, &after), after);
            assert_eq!(injected(&["--uninject"], &after), before);
        }
    }
}

#[test]
fn uninject_takes_ports_out_of_the_meshs_annotation_and_leaves_what_was_not_injected() {
    let pod = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
  annotations:
    sidecar.istio.io/inject: \"true\"
    traffic.sidecar.istio.io/excludeInboundPorts: \"9000\"
spec:
  initContainers:
    - name: migrate
      image: web
  containers:
    - name: web
      image: web
      ports: [{ containerPort: 8000 }]
      lifecycle:
        postStart: { exec: { command: [\"true\"] } }
";
    let after = injected(&[], pod);
    assert!(
        after.contains("excludeInboundPorts: \"9000,9903\""),
        "{after}"
    );
    assert_eq!(injected(&["--uninject"], &after), pod);
    let by_hand = pod.replace("name: migrate", "name: gracekeeper");
    assert_eq!(injected(&["--uninject"], &by_hand), by_hand);
}

#[test]
fn uninject_leaves_a_container_that_has_nothing_else() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata: { name: web }\nspec:\n  containers:\n    - lifecycle:\n";
    let after = injected(&[], pod);
    assert_ne!(after, pod);
    assert_eq!(injected(&["--uninject"], &after), pod);
}

#[test]
fn json_stays_json_and_lists_are_lists() {
    let list = r#"{"apiVersion": "v1", "kind": "List", "items": [
  {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a", "image": "a"}]}},
  {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"containers": "none"}}
]}"#;
    let after: serde_json::Value = serde_json::from_str(&injected(&[], list)).unwrap();
    assert_eq!(
        after["items"][0]["spec"]["initContainers"][0]["name"],
        "gracekeeper"
    );
    assert_eq!(after["items"][1]["data"]["containers"], "none");
}

#[test]
fn a_resource_list_is_a_krm_functions_input_with_its_settings() {
    let list = "\
apiVersion: config.kubernetes.io/v1
kind: ResourceList
functionConfig:
  apiVersion: v1
  kind: ConfigMap
  metadata: { name: gracekeeper }
  data: { min-wait: 7s, image: \"registry.example/gracekeeper:2\" }
items:
  - apiVersion: v1
    kind: Pod
    metadata: { name: a }
    spec:
      containers:
        - { name: a, image: a }
";
    let after = injected(&[], list);
    assert!(
        after.contains("kind: ResourceList") && after.contains("value: \"7s\""),
        "{after}"
    );
    assert!(
        after.contains("image: \"registry.example/gracekeeper:2\""),
        "{after}"
    );
    let wrong = inject(&[], &list.replace("min-wait: 7s", "min-wait: 7"));
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("write 5s, 1m30s or 250ms"));
}

#[test]
fn the_namespace_of_the_manifests_says_whether_a_mesh_is_there() {
    let namespace = "{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {istio-injection: enabled}}}\n---\n";
    assert!(
        injected(&[], &format!("{namespace}{DEPLOYMENT}"))
            .contains("excludeInboundPorts: \"9903\"")
    );
    assert!(!injected(&[], DEPLOYMENT).contains("excludeInboundPorts"));
}

#[test]
fn warnings_name_the_object_and_go_to_standard_error() {
    let annotations =
        "annotations: { gracekeeper.dev/min-wait: soon, gracekeeper.dev/colour: blue }";
    let pod = DEPLOYMENT.replace("labels: { app: web }", annotations);
    let output = inject(&[], &pod);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(
            "warning: Deployment shop/web: the annotation gracekeeper.dev/colour sets nothing"
        ),
        "{said}"
    );
    assert!(
        said.contains("gracekeeper.dev/min-wait \"soon\" is left out: write 5s, 1m30s or 250ms"),
        "{said}"
    );
}

#[test]
fn files_and_folders_are_read_in_order_and_written_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    fs::create_dir(path("more")).unwrap();
    fs::write(path("a.yaml"), DEPLOYMENT).unwrap();
    fs::write(
        path("more/b.yml"),
        DEPLOYMENT.replace("name: web #", "name: other #"),
    )
    .unwrap();
    fs::write(path("notes.txt"), "containers").unwrap();
    let folder = folder.path().to_str().unwrap();
    let after = injected(&[folder], "");
    assert_eq!(after.matches("kind: Deployment").count(), 2);
    assert!(after.contains("\n---\n# The shop."), "{after}");
    assert_eq!(injected(&["--in-place", folder], ""), "");
    assert!(
        fs::read_to_string(path("more/b.yml"))
            .unwrap()
            .contains("name: gracekeeper")
    );
    assert_eq!(fs::read_to_string(path("notes.txt")).unwrap(), "containers");
    injected(&["--in-place", "--uninject", folder], "");
    assert_eq!(fs::read_to_string(path("a.yaml")).unwrap(), DEPLOYMENT);
}

#[test]
fn what_cannot_be_injected_is_an_error_with_its_place() {
    for (input, told) in [
        ("containers: [a, b\n---\nx: 1\n", "-:"),
        (
            "---\nx: &a {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: &m {name: a}\nspec:\n  containers: [{name: a, image: a}]\nmore: *m\n",
            "-:8: Pod a is in a document with YAML aliases",
        ),
        // What is no list is not replaced by one.
        (
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers: [{name: a, image: a}]\n  initContainers: {name: b}\n",
            "-:5: Pod a has no place for what is injected",
        ),
    ] {
        let output = inject(&[], input);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(told), "{said}");
    }
}

#[test]
fn wrong_settings_are_told_all_at_once() {
    let words = [
        "--min-wait=soon",
        "--mode=sidekick",
        "--port=80",
        "--settings=/nowhere.yaml",
        "--in-place",
    ];
    let output = inject(&words, "");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert_eq!(said.lines().count(), words.len(), "{said}");
}

#[test]
fn a_file_of_settings_is_a_namespaces_config_map() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(
        file.path(),
        "{apiVersion: v1, kind: ConfigMap, data: {min-wait: 9s, mode: hook}}\n",
    )
    .unwrap();
    let after = injected(
        &["--settings", file.path().to_str().unwrap(), "--min-wait=8s"],
        DEPLOYMENT,
    );
    assert!(
        after.contains("--min-wait=8s") && after.contains("/gracekeeper-bin"),
        "{after}"
    );
}
