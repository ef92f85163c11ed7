//! What is added to a pod: a pure function of the pod and the settings, and the same as the chart's policy makes of it.

mod container;

use serde_json::{Value, json};

use super::settings::{PREFIX, Place, Setting, Settings, is_not_of_the_hook, is_other_sidecar};
use super::warnings::warnings;
use crate::podspec::edit::Position;
use crate::podspec::{Container, Node, Pod, Role};

/// The name of the sidecar's container, of the volume with the binary, and of its mounts.
pub const NAME: &str = "gracekeeper";
/// Where mode `hook` has the binary.
pub const BINARY: &str = "/gracekeeper-bin/gracekeeper";
/// The label that an injected pod has: the version of what was injected.
pub const INJECTED: &str = "gracekeeper.dev/injected";
/// The annotation that says whose settings were used.
pub const INJECTED_BY: &str = "gracekeeper.dev/injected-by";
/// The path of the app's hook, by which `--uninject` and the policy know it again.
pub const APP_HOOK: &str = "/prestop/app";
/// The sidecar's port, and others for pods that have a use for it themselves.
const PORTS: [i64; 4] = [9903, 19903, 29903, 39903];
/// How far the sidecar's port is from the app's on a node's network.
const HOST_DISTANCE: i64 = 10_000;
/// The longest grace period that the sidecar takes, in seconds: a week.
const LONGEST_GRACE: i64 = 604_800;
/// What meshes read: the inbound ports that they leave alone.
pub const ISTIO_PORTS: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
pub const LINKERD_PORTS: &str = "config.linkerd.io/skip-inbound-ports";

/// A key of a mapping, or an index of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// A change to a pod. Paths begin at the mapping that has `metadata` and `spec`.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Sets the entry of that path; mappings that are missing on the way are made.
    Set { path: Vec<Step>, value: Value },
    /// Adds an item to the list of that path, which is made if it is missing.
    Add {
        path: Vec<Step>,
        value: Value,
        position: Position,
    },
}

/// What becomes of a pod.
#[derive(Debug, Default)]
pub struct Plan {
    /// Nothing where the pod is left alone.
    pub changes: Vec<Change>,
    /// What is left out, and what would stop the pod too early.
    pub warnings: Vec<String>,
}

/// What is known of a pod's namespace.
#[derive(Debug, Clone, Default)]
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// Whether Istio adds its proxy there.
    pub istio: bool,
    /// Whether Linkerd does.
    pub linkerd: bool,
}

/// What is added to a pod.
pub fn plan(pod: &Pod<'_>, namespace: &Namespace, settings: &Settings) -> Plan {
    if is_left_alone(pod) {
        return Plan::default();
    }
    let facts = Facts::new(pod, namespace, settings);
    let mut changes = match facts.is_hook() {
        true => facts.hook(),
        false => facts.sidecar(),
    };
    changes.extend(facts.common());
    Plan {
        changes,
        warnings: warnings(&facts),
    }
}

/// Pods that opted out, that are not ours to change, or that have it already.
fn is_left_alone(pod: &Pod<'_>) -> bool {
    let label = pod.label("gracekeeper.dev/inject").and_then(Node::text);
    let os = pod.spec.at(&["os", "name"]).and_then(Node::text);
    let selected = pod.spec.at(&["nodeSelector", "kubernetes.io/os"]);
    label == Some("false")
        || pod.annotation("kubernetes.io/config.mirror").is_some()
        || [os, selected.and_then(Node::text)].contains(&Some("windows"))
        || has_it(pod)
}

/// Whether the sidecar or the volume is there.
pub fn has_it(pod: &Pod<'_>) -> bool {
    let volumes = pod.spec.get("volumes");
    pod.containers().iter().any(|it| it.name() == NAME)
        || (volumes.into_iter().flat_map(Node::items))
            .any(|volume| volume.text_at("name") == Some(NAME))
}

/// A pod with the settings that apply to it.
pub struct Facts<'a> {
    pub pod: &'a Pod<'a>,
    pub namespace: &'a Namespace,
    pub settings: Settings,
    /// Those of `containers`, in order.
    pub containers: Vec<Container<'a>>,
    pub init_containers: Vec<Container<'a>>,
}

impl<'a> Facts<'a> {
    fn new(pod: &'a Pod<'a>, namespace: &'a Namespace, settings: &Settings) -> Self {
        let mut settings = settings.clone();
        for setting in Setting::all().iter().filter(|it| it.is_of_pods()) {
            let annotation = pod.annotation(&format!("{PREFIX}{}", setting.name));
            if let Some(value) = annotation.and_then(Node::text)
                && setting.takes(value)
            {
                settings.set(setting.name, value);
            }
        }
        let of = |key, role| {
            let items = pod.spec.get(key).into_iter().flat_map(Node::items);
            items.map(|node| Container { node, role }).collect()
        };
        Self {
            pod,
            namespace,
            settings,
            containers: of("containers", Role::Ordinary),
            init_containers: of("initContainers", Role::Init),
        }
    }

    pub fn is_hook(&self) -> bool {
        self.settings.get("mode") == "hook"
    }

    pub fn on_host(&self) -> bool {
        self.pod.host_network()
    }

    /// The TCP ports that the app's containers say they open.
    pub fn tcp_ports(&self) -> Vec<i64> {
        (self.containers.iter())
            .filter(|it| !is_other_sidecar(it.name()))
            .flat_map(|it| it.ports().map(|(number, _)| number))
            .collect()
    }

    /// All ports of all containers, of whatever protocol.
    pub fn taken_ports(&self) -> Vec<i64> {
        (self.containers.iter().chain(&self.init_containers))
            .flat_map(|it| it.node.get("ports"))
            .flat_map(Node::items)
            .filter_map(|port| port.number_at("containerPort"))
            .collect()
    }

    /// The sidecar's own. It starts first, so it must not take one that the app wants. The ports of a node are shared by
    /// many pods: there it follows the app's, which is the only one of its number on the node.
    fn port(&self) -> i64 {
        let taken = self.taken_ports();
        let asked = self.settings.get("port").parse().ok();
        if let Some(port) = asked.filter(|port| !taken.contains(port)) {
            return port;
        }
        if !self.on_host() {
            let free = PORTS.into_iter().find(|port| !taken.contains(port));
            return free.unwrap_or(PORTS[0]);
        }
        match self.tcp_ports().first() {
            None => PORTS[0],
            Some(first) if *first <= 65_535 - HOST_DISTANCE => first + HOST_DISTANCE,
            Some(first) => first - HOST_DISTANCE,
        }
    }

    /// The app's ports, one a line, or `auto`.
    fn app_ports(&self) -> String {
        let asked = self.settings.get("app-port");
        if !asked.is_empty() {
            return asked.replace(' ', "").replace(',', "\n").trim().to_owned();
        }
        let ports: Vec<_> = self.tcp_ports().iter().map(ToString::to_string).collect();
        match ports.is_empty() {
            true => "auto".to_owned(),
            false => ports.join("\n"),
        }
    }

    /// The pod's grace period, lengthened where a setting says so.
    fn grace(&self) -> i64 {
        let asked = humantime::parse_duration(self.settings.get("grace-period"));
        let asked = asked.map_or(0, |it| i64::try_from(it.as_secs()).unwrap_or(i64::MAX));
        asked.max(self.pod.grace())
    }

    fn grace_text(&self) -> String {
        format!("{}s", self.grace().min(LONGEST_GRACE))
    }

    /// On one node several sidecars may be within reach of a hook, so each workload has a token of its own.
    fn token(&self) -> String {
        let token = self.settings.get("token");
        if token.is_empty() || !self.on_host() {
            return token.to_owned();
        }
        let metadata = self.pod.object.node.get("metadata");
        let text = |key| metadata.and_then(|it| it.text_at(key));
        let name = text("generateName").or_else(|| text("name"));
        let name = name.unwrap_or_default();
        format!("{token}.{}.{name}", self.namespace.name)
    }

    /// Whether the Kubernetes API may be asked: the service account has to be named in the settings.
    pub fn kube(&self) -> &str {
        let asked = self.settings.get("kube");
        if !asked.is_empty() {
            return asked;
        }
        let account = self.pod.spec.text_at("serviceAccountName");
        let account = format!("{}/{}", self.namespace.name, account.unwrap_or("default"));
        match self.settings.list("service-accounts").contains(&account) {
            true => "auto",
            false => "off",
        }
    }

    /// The app's containers: those that listen or are named; where none does, all.
    pub fn apps(&self) -> Vec<(usize, &Container<'a>)> {
        let named = self.settings.list("containers");
        let all = || self.containers.iter().enumerate();
        let listening: Vec<_> = all()
            .filter(|(_, it)| {
                named.iter().any(|name| name == it.name())
                    || !is_other_sidecar(it.name()) && it.ports().next().is_some()
            })
            .collect();
        match listening.is_empty() {
            true => all()
                .filter(|(_, it)| !is_other_sidecar(it.name()))
                .collect(),
            false => listening,
        }
    }

    /// Those without a hook that the user wrote, which is never touched.
    fn hookless(&self) -> Vec<usize> {
        let apps = self.apps().into_iter();
        apps.filter(|(_, it)| it.pre_stop().is_none())
            .map(|(index, _)| index)
            .collect()
    }

    /// The mount of an app's container that a drain file would be in.
    pub fn drain_file_mount(&self) -> Option<&'a Node> {
        let file = self.settings.get("drain-file");
        if file.is_empty() {
            return None;
        }
        let mounts = self
            .containers
            .iter()
            .flat_map(|it| it.node.get("volumeMounts"));
        mounts.flat_map(Node::items).find(|mount| {
            let path = mount.text_at("mountPath").unwrap_or_default();
            mount.get("subPath").is_none()
                && file.starts_with(&format!("{}/", path.trim_end_matches('/')))
        })
    }

    /// The init container, and the hooks that call it.
    fn sidecar(&self) -> Vec<Change> {
        let port = self.port();
        let mut changes = vec![Change::Add {
            path: path(&["spec", "initContainers"]),
            value: self.container(port),
            position: Position::First,
        }];
        changes.extend(self.hookless().into_iter().map(|index| Change::Set {
            path: in_container(index, &["lifecycle", "preStop"]),
            value: self.http_hook(APP_HOOK, port),
        }));
        changes
    }

    /// Flags that are set, in order.
    fn flags(&self) -> impl Iterator<Item = (&'static str, &str)> {
        (Setting::all().iter())
            .filter(|setting| setting.place == Place::Flag)
            .map(|setting| (setting.name, self.settings.get(setting.name)))
            .filter(|(_, value)| !value.is_empty())
    }

    fn http_hook(&self, path: &str, port: i64) -> Value {
        let mut get = with_host(json!({ "path": path, "port": port }), self.on_host());
        let token = self.token();
        if !token.is_empty() {
            get["httpHeaders"] = json!([{ "name": "X-Gracekeeper-Token", "value": token }]);
        }
        json!({ "httpGet": get })
    }

    /// No container, but the binary from an image volume and an exec hook in the app's own container.
    fn hook(&self) -> Vec<Change> {
        let hookless = self.hookless();
        if hookless.is_empty() {
            return Vec::new();
        }
        let image = json!({ "reference": self.settings.get("image"), "pullPolicy": self.settings.get("pull-policy") });
        let mut changes = vec![Change::Add {
            path: path(&["spec", "volumes"]),
            value: json!({ "name": NAME, "image": image }),
            position: Position::Last,
        }];
        for index in hookless {
            let folder = BINARY.trim_end_matches("/gracekeeper");
            changes.push(Change::Add {
                path: in_container(index, &["volumeMounts"]),
                value: json!({ "name": NAME, "mountPath": folder, "readOnly": true }),
                position: Position::Last,
            });
            changes.push(Change::Set {
                path: in_container(index, &["lifecycle", "preStop"]),
                value: json!({ "exec": { "command": self.command() } }),
            });
        }
        changes
    }

    fn command(&self) -> Vec<String> {
        let words = [
            BINARY,
            "hook",
            "--on-mistake=defaults",
            "--kube=off",
            "--listen=127.0.0.1:0",
        ];
        let mut command = words.map(str::to_owned).to_vec();
        command.push(format!("--grace-period={}", self.grace_text()));
        command.extend(
            self.app_ports()
                .split('\n')
                .map(|port| format!("--app-port={port}")),
        );
        for (name, value) in self.flags().filter(|(name, _)| !is_not_of_the_hook(name)) {
            let repeated = ["inflight", "requests", "notify"].contains(&name);
            let values: Vec<_> = match repeated {
                true => value
                    .split('\n')
                    .map(str::trim)
                    .filter(|it| !it.is_empty())
                    .collect(),
                false => vec![value.trim()],
            };
            command.extend(values.into_iter().map(|value| format!("--{name}={value}")));
        }
        command
    }

    /// What both modes have in common.
    fn common(&self) -> Vec<Change> {
        let in_metadata = |kind: &str, key: &str, value: &str| Change::Set {
            path: path(&["metadata", kind, key]),
            value: json!(value),
        };
        let mut changes = vec![
            in_metadata("labels", INJECTED, env!("CARGO_PKG_VERSION")),
            in_metadata("annotations", INJECTED_BY, "command"),
        ];
        for mesh in self.meshes() {
            let port = self.port().to_string();
            let there = self
                .pod
                .annotation(mesh)
                .and_then(Node::text)
                .unwrap_or_default();
            let value = match there {
                "" => port,
                there if there.split(',').any(|it| it == port) => there.to_owned(),
                there => format!("{there},{port}"),
            };
            changes.push(in_metadata("annotations", mesh, &value));
        }
        if self.grace() != self.pod.grace() {
            changes.push(Change::Set {
                path: path(&["spec", "terminationGracePeriodSeconds"]),
                value: json!(self.grace()),
            });
        }
        let secret = self.settings.get("image-pull-secret");
        let mut secrets = self
            .pod
            .spec
            .get("imagePullSecrets")
            .into_iter()
            .flat_map(Node::items);
        if !secret.is_empty() && !secrets.any(|it| it.text_at("name") == Some(secret)) {
            changes.push(Change::Add {
                path: path(&["spec", "imagePullSecrets"]),
                value: json!({ "name": secret }),
                position: Position::Last,
            });
        }
        changes
    }

    /// The annotations by which a mesh leaves the sidecar's port out of its capture.
    fn meshes(&self) -> Vec<&'static str> {
        if self.is_hook() {
            return Vec::new();
        }
        let mut meshes = Vec::new();
        let annotation = |name| self.pod.annotation(name).and_then(Node::text);
        let label = self
            .pod
            .label("sidecar.istio.io/inject")
            .and_then(Node::text);
        let istio = label.or_else(|| annotation("sidecar.istio.io/inject"));
        if istio.map_or(self.namespace.istio, |value| value == "true") {
            meshes.push(ISTIO_PORTS);
        }
        let linkerd = annotation("linkerd.io/inject");
        if linkerd.map_or(self.namespace.linkerd, |value| {
            ["enabled", "ingress"].contains(&value)
        }) {
            meshes.push(LINKERD_PORTS);
        }
        meshes
    }
}

pub fn path(keys: &[&str]) -> Vec<Step> {
    keys.iter().map(|&key| Step::Key(key.to_owned())).collect()
}

pub fn in_container(index: usize, keys: &[&str]) -> Vec<Step> {
    let mut steps = path(&["spec", "containers"]);
    steps.push(Step::Index(index));
    steps.extend(path(keys));
    steps
}

/// The kubelet finds no pod IP of a pod on the node's network.
fn with_host(mut action: Value, on_host: bool) -> Value {
    if on_host {
        action["host"] = json!("127.0.0.1");
    }
    action
}
