//! All objects of all files together: pods with the Services that select them, budgets, autoscalers, our sidecars.

use std::collections::HashMap;

use crate::podspec::object::selects;
use crate::podspec::{Container, Document, Node, Object, Pod, Role, Stream};

use super::sidecar::Sidecar;

/// A file, or what a cluster has.
#[derive(Debug)]
pub struct File {
    /// Its path, `-` for standard input, or where in the cluster it is.
    pub name: String,
    /// What is in it.
    pub stream: Stream,
    /// Whether it is on a disk, where it can be changed.
    pub on_disk: bool,
}

/// An object and where it is.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The index of its file.
    pub file: usize,
    /// The file's text.
    pub text: &'a str,
    /// Its document.
    pub document: &'a Document,
    /// The object.
    pub object: Object<'a>,
    /// The metadata of its pod template, which may say what to ignore.
    pub pod_metadata: Option<&'a Node>,
}

/// A pod spec, and what others say of its pods.
#[derive(Debug)]
pub struct PodFacts<'a> {
    /// Where it is.
    pub source: Source<'a>,
    /// The pod spec.
    pub pod: Pod<'a>,
    /// Its containers.
    pub containers: Vec<Container<'a>>,
    /// The Services that select it and bring more than scrapes of metrics.
    pub services: Vec<Service<'a>>,
    /// Our sidecar.
    pub sidecar: Option<Sidecar<'a>>,
    /// Whether our sidecar or hook will be injected.
    pub injected: bool,
    /// Which mesh's proxy is in it, or will be.
    pub mesh: Option<Mesh<'a>>,
    /// How many pods there are at least; none where it is not known.
    pub replicas: Option<i64>,
}

/// A Service.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Where it is.
    pub source: Source<'a>,
    /// Its `spec`.
    pub spec: &'a Node,
}

/// A service mesh.
#[derive(Debug, Clone, Copy)]
pub struct Mesh<'a> {
    /// Which one.
    pub name: &'static str,
    /// Its proxy, where it is written and not injected later.
    pub proxy: Option<Container<'a>>,
    /// Where to point at.
    pub at: &'a Node,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Manifests<'a> {
    /// Every object.
    pub objects: Vec<Source<'a>>,
    /// Every pod spec.
    pub pods: Vec<PodFacts<'a>>,
    /// Every Service with a selector.
    pub services: Vec<Service<'a>>,
    index: Index<'a>,
}

/// Where to look first, so that a thousand pods are not compared with a thousand Services each.
#[derive(Debug, Default)]
struct Index<'a> {
    /// Services by the first label that they select.
    services: HashMap<(&'a str, &'a str), Vec<Service<'a>>>,
    /// Budgets likewise.
    budgets: HashMap<(&'a str, &'a str), Vec<Source<'a>>>,
    /// Budgets that select no single label: by expressions, or all pods.
    wide_budgets: Vec<Source<'a>>,
    /// Autoscalers by the kind and name of what they scale.
    autoscalers: HashMap<(&'a str, &'a str), Vec<Source<'a>>>,
    /// Namespaces by name.
    namespaces: HashMap<&'a str, &'a Node>,
    /// The pods, by each of their labels.
    pods: HashMap<(&'a str, &'a str), Vec<usize>>,
}

impl<'a> Manifests<'a> {
    /// Puts the objects of all files in relation.
    pub fn of(files: &'a [File]) -> Self {
        let objects: Vec<Source<'a>> = files
            .iter()
            .enumerate()
            .flat_map(|(file, read)| {
                let stream = &read.stream;
                (stream.documents.iter()).flat_map(move |document| {
                    Object::all(&document.root)
                        .into_iter()
                        .map(move |object| Source {
                            file,
                            text: &stream.text,
                            document,
                            object,
                            pod_metadata: None,
                        })
                })
            })
            .collect();
        let services: Vec<Service<'a>> = (objects.iter())
            .filter(|source| source.object.kind == "Service")
            .filter_map(|source| {
                let spec = source.object.spec()?;
                spec.get("selector")?;
                Some(Service {
                    source: *source,
                    spec,
                })
            })
            .collect();
        let mut manifests = Self {
            index: Index::of(&objects, &services),
            objects,
            pods: Vec::new(),
            services,
        };
        manifests.pods = (manifests.objects.iter())
            // A chart's test runs once and serves nothing.
            .filter(|source| !is_test_of_chart(source.object))
            .flat_map(|source| {
                Pod::all(source.object)
                    .into_iter()
                    .map(|pod| (*source, pod))
            })
            .map(|(source, pod)| manifests.facts(source, pod))
            .collect();
        for (number, facts) in manifests.pods.iter().enumerate() {
            for label in facts.pod.labels().into_iter().flat_map(pairs) {
                manifests.index.pods.entry(label).or_default().push(number);
            }
        }
        manifests
    }

    /// The objects of a kind.
    pub fn of_kind(&self, kind: &'static str) -> impl Iterator<Item = &Source<'a>> {
        self.objects
            .iter()
            .filter(move |source| source.object.kind == kind)
    }

    /// The pods that a Service selects.
    pub fn selected_by<'b>(
        &'b self,
        service: &'b Service<'a>,
    ) -> impl Iterator<Item = &'b PodFacts<'a>> {
        let label = service.spec.get("selector").and_then(first_pair);
        self.labelled(label).filter(|facts| service.selects(facts))
    }

    /// The pods that have a label.
    pub fn labelled(
        &self,
        label: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = &PodFacts<'a>> {
        let numbers = label.and_then(|label| self.index.pods.get(&label));
        (numbers.into_iter().flatten()).filter_map(|&number| self.pods.get(number))
    }

    /// The budgets that may select pods with these labels.
    pub fn budgets_for(&self, labels: Option<&'a Node>) -> impl Iterator<Item = &Source<'a>> {
        let named = labels
            .into_iter()
            .flat_map(pairs)
            .filter_map(|label| self.index.budgets.get(&label))
            .flatten();
        named.chain(&self.index.wide_budgets)
    }

    fn facts(&self, mut source: Source<'a>, pod: Pod<'a>) -> PodFacts<'a> {
        source.pod_metadata = pod.metadata;
        let containers = pod.containers();
        let namespace = source.object.namespace();
        let namespace = namespace.and_then(|name| self.index.namespaces.get(name).copied());
        let mut facts = PodFacts {
            source,
            pod,
            sidecar: containers
                .iter()
                .find_map(|&container| Sidecar::of(container)),
            services: Vec::new(),
            injected: is_injected(&pod, namespace),
            mesh: mesh(&pod, &containers, namespace),
            replicas: None,
            containers,
        };
        facts.services = (pod.labels().into_iter().flat_map(pairs))
            .filter_map(|label| self.index.services.get(&label))
            .flatten()
            .filter(|service| service.selects(&facts) && service.brings_requests(&facts.containers))
            .copied()
            .collect();
        (facts.services).sort_by_key(|service| (service.source.file, service.spec.span.start));
        facts.replicas = self.replicas(&facts);
        facts
    }

    /// How many pods there are at least: an autoscaler's minimum, else what the object says.
    fn replicas(&self, facts: &PodFacts<'a>) -> Option<i64> {
        let object = facts.source.object;
        let scaled = ["Deployment", "ReplicaSet", "StatefulSet", "Rollout"];
        if !scaled.contains(&object.kind) {
            return None;
        }
        let target = object.name().map(|name| (object.kind, name));
        let autoscaler = target
            .and_then(|target| self.index.autoscalers.get(&target))
            .into_iter()
            .flatten()
            .find(|scaler| scaler.object.may_share_namespace(&object));
        let key = match autoscaler {
            Some(_) => "minReplicas",
            None => "replicas",
        };
        let spec = autoscaler.map_or(object.spec(), |scaler| scaler.object.spec());
        Some(spec.and_then(|spec| spec.number_at(key)).unwrap_or(1))
    }
}

impl<'a> Index<'a> {
    fn of(objects: &[Source<'a>], services: &[Service<'a>]) -> Self {
        let mut index = Self::default();
        for service in services {
            if let Some(label) = service.spec.get("selector").and_then(first_pair) {
                index.services.entry(label).or_default().push(*service);
            }
        }
        for source in objects {
            let node = source.object.node;
            match source.object.kind {
                "PodDisruptionBudget" => {
                    let labels = node.at(&["spec", "selector", "matchLabels"]);
                    match labels.and_then(first_pair) {
                        Some(label) => index.budgets.entry(label).or_default().push(*source),
                        None => index.wide_budgets.push(*source),
                    }
                }
                "HorizontalPodAutoscaler" => {
                    let target = node.at(&["spec", "scaleTargetRef"]);
                    let target = target
                        .and_then(|node| Some((node.text_at("kind")?, node.text_at("name")?)));
                    if let Some(target) = target {
                        index.autoscalers.entry(target).or_default().push(*source);
                    }
                }
                "Namespace" => {
                    if let Some(name) = source.object.name() {
                        index.namespaces.entry(name).or_insert(node);
                    }
                }
                _ => {}
            }
        }
        index
    }
}

/// Whether `helm test` makes it, by any of the names of its hook.
fn is_test_of_chart(object: Object<'_>) -> bool {
    let hooks = object.annotation("helm.sh/hook").and_then(Node::text);
    hooks.is_some_and(|hooks| {
        (hooks.split(',').map(str::trim))
            .any(|hook| ["test", "test-success", "test-failure"].contains(&hook))
    })
}

/// The labels of a mapping.
fn pairs(labels: &Node) -> impl Iterator<Item = (&str, &str)> {
    (labels.entries()).filter_map(|entry| Some((entry.key.text()?, entry.value.text()?)))
}

/// The first of them.
pub fn first_pair(labels: &Node) -> Option<(&str, &str)> {
    pairs(labels).next()
}

impl<'a> Source<'a> {
    /// Rules that annotations say to ignore.
    pub fn ignored(&self) -> Vec<String> {
        let annotation = "gracekeeper.dev/ignore";
        let of_pod = self
            .pod_metadata
            .and_then(|metadata| metadata.at(&["annotations", annotation]));
        [self.object.annotation(annotation), of_pod]
            .into_iter()
            .flatten()
            .filter_map(Node::text)
            .flat_map(rule_ids)
            .collect()
    }
}

/// Ids in a text: `GK007, GK008`.
pub fn rule_ids(text: &str) -> impl Iterator<Item = String> {
    text.split([',', ' ', ';', '\n'])
        .map(|word| word.trim().trim_end_matches(':').to_uppercase())
        .filter(|word| word.starts_with("GK") && word.len() == 5)
}

impl<'a> Service<'a> {
    fn selects(&self, facts: &PodFacts<'_>) -> bool {
        let owner = facts.source.object;
        !matches!(owner.kind, "Job" | "CronJob")
            && self.spec.text_at("type") != Some("ExternalName")
            && self.source.object.may_share_namespace(&owner)
            && selects(self.spec.get("selector"), facts.pod.labels())
    }

    /// Whether it has no address of its own, so that clients find the pods by DNS.
    pub fn is_headless(&self) -> bool {
        self.spec.text_at("clusterIP") == Some("None")
    }

    /// Whether it is for more than what may fail without a loss, scrapes of metrics, profiles and probes: by its name and
    /// its ports' names. A port whose target's name no container has leads nowhere.
    fn brings_requests(&self, containers: &[Container<'_>]) -> bool {
        let name = self.source.object.name().unwrap_or_default();
        let for_scrapes = ["metrics", "metrics-service", "metrics-svc", "exporter"];
        if for_scrapes.iter().any(|end| name.ends_with(end)) {
            return false;
        }
        let for_tools = ["metrics", "monitoring", "profiling", "pprof", "probe"];
        let is_for_tools = |port: &Node| {
            ["name", "targetPort"].iter().any(|key| {
                let text = port.text_at(key).unwrap_or_default();
                for_tools.iter().any(|name| text.contains(name))
            })
        };
        let leads_somewhere = |port: &Node| match port.get("targetPort") {
            Some(target) if target.number().is_none() => target.text().is_none_or(|name| {
                name.parse::<i64>().is_ok()
                    || (containers.iter()).any(|container| container.port_named(name).is_some())
            }),
            _ => true,
        };
        let mut ports = self.spec.get("ports").into_iter().flat_map(Node::items);
        ports.any(|port| !is_for_tools(port) && leads_somewhere(port))
    }
}

impl<'a> PodFacts<'a> {
    /// The ordinary containers without our sidecar: the app's.
    pub fn apps(&self) -> impl Iterator<Item = &Container<'a>> {
        let sidecar = self
            .sidecar
            .as_ref()
            .map(|sidecar| sidecar.container.node.span.clone());
        self.containers.iter().filter(move |container| {
            container.role == Role::Ordinary && Some(&container.node.span) != sidecar.as_ref()
        })
    }

    /// Containers that go on running: all but init containers.
    pub fn running(&self) -> impl Iterator<Item = &Container<'a>> {
        (self.containers.iter()).filter(|container| container.role != Role::Init)
    }

    /// The Service with an address of its own, else any.
    pub fn main_service(&self) -> Option<&Service<'a>> {
        (self.services.iter())
            .find(|service| !service.is_headless())
            .or(self.services.first())
    }

    /// Whether an edit of it changes nothing else: no alias stands for a part of it.
    pub fn can_be_edited(&self) -> bool {
        !self.source.document.has_aliases
    }
}

/// By the label of the pod or of its namespace, as the chart's policy does it.
fn is_injected(pod: &Pod<'_>, namespace: Option<&Node>) -> bool {
    let label = "gracekeeper.dev/inject";
    match pod.label(label).and_then(Node::text) {
        Some(value) => value == "true" || value == "enabled",
        None => namespace
            .and_then(|namespace| namespace.at(&["metadata", "labels", label]))
            .and_then(Node::text)
            .is_some_and(|value| value == "enabled"),
    }
}

fn mesh<'a>(
    pod: &Pod<'a>,
    containers: &[Container<'a>],
    namespace: Option<&'a Node>,
) -> Option<Mesh<'a>> {
    for (name, proxy) in [("Istio", "istio-proxy"), ("Linkerd", "linkerd-proxy")] {
        if let Some(&container) = (containers.iter())
            .find(|container| container.name() == proxy && container.role != Role::Init)
        {
            return Some(Mesh {
                name,
                proxy: Some(container),
                at: container.head(),
            });
        }
    }
    let of_namespace = |group, key| namespace?.at(&["metadata", group, key]);
    let istio = "sidecar.istio.io/inject";
    let linkerd = "linkerd.io/inject";
    let of_pod = |key| pod.label(key).or_else(|| pod.annotation(key));
    let says = |node: Option<&'a Node>, value: &str| node.filter(|node| node.text() == Some(value));
    let injected = |name, at| Mesh {
        name,
        proxy: None,
        at,
    };
    if of_pod(istio).is_some_and(|node| node.text() == Some("false")) {
        return None;
    }
    says(of_pod(istio), "true")
        .or_else(|| says(of_namespace("labels", "istio-injection"), "enabled"))
        .map(|_| of_pod(istio).or_else(|| pod.spec.get("containers")))
        .map(|at| injected("Istio", at.unwrap_or(pod.spec)))
        .or_else(|| {
            let own = of_pod(linkerd);
            let asked = match own {
                Some(_) => says(own, "enabled").or_else(|| says(own, "ingress")),
                None => says(of_namespace("annotations", linkerd), "enabled"),
            };
            let at = own.or_else(|| pod.spec.get("containers"));
            asked.map(|_| injected("Linkerd", at.unwrap_or(pod.spec)))
        })
}
