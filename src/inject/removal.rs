//! `--uninject`: takes out of a pod what injection added.

use super::plan::{
    APP_HOOK, BINARY, INJECTED, INJECTED_BY, ISTIO_PORTS, LINKERD_PORTS, NAME, Step, in_container,
    path,
};
use super::text;
use crate::podspec::{Action, Node, Pod, Stream};

/// A document's text without what was injected into the pod of that number. A grace period that was lengthened stays, and
/// so does a pull secret: nothing says what they were before.
pub fn removed(text: &str, number: usize) -> String {
    let mut text = text.to_owned();
    while let Some(next) = step(&text, number) {
        text = next;
    }
    text
}

/// One part less; None where there is none left.
fn step(text: &str, number: usize) -> Option<String> {
    let stream = Stream::parse(text.to_owned());
    let pod = text::pod(&stream, number)?;
    // The label goes last, since it says that the rest is ours.
    pod.label(INJECTED)?;
    if let Some((annotation, ports)) = mesh_ports(&pod) {
        return with_ports(text, number, annotation, &ports);
    }
    let part = named(&pod, "initContainers")
        .or_else(|| named(&pod, "volumes"))
        .or_else(|| in_containers(&pod))
        .or_else(|| {
            pod.annotation(INJECTED_BY)
                .map(|_| path(&["metadata", "annotations", INJECTED_BY]))
        })
        .unwrap_or_else(|| path(&["metadata", "labels", INJECTED]));
    text::without(text, number, &part)
}

/// What has our name in a list of the pod spec.
fn named(pod: &Pod<'_>, list: &str) -> Option<Vec<Step>> {
    let index = index_of(pod.spec.get(list)?)?;
    let mut steps = path(&["spec", list]);
    steps.push(Step::Index(index));
    Some(steps)
}

fn index_of(list: &Node) -> Option<usize> {
    list.items().position(|it| it.text_at("name") == Some(NAME))
}

/// A hook or a mount of ours in one of the containers.
fn in_containers(pod: &Pod<'_>) -> Option<Vec<Step>> {
    let containers = pod.containers().into_iter();
    let ordinary = containers.filter(|it| it.role == crate::podspec::Role::Ordinary);
    ordinary.enumerate().find_map(|(index, container)| {
        if let Some(mount) = container.node.get("volumeMounts").and_then(index_of) {
            let mut steps = in_container(index, &["volumeMounts"]);
            steps.push(Step::Index(mount));
            return Some(steps);
        }
        let ours = match container.pre_stop()?.action() {
            Action::HttpGet { path, .. } => path == APP_HOOK,
            Action::Exec(command) => command.first() == Some(&BINARY),
            _ => false,
        };
        ours.then(|| in_container(index, &["lifecycle", "preStop"]))
    })
}

/// The mesh's annotation that has the sidecar's port, and the other ports in it.
fn mesh_ports(pod: &Pod<'_>) -> Option<(&'static str, String)> {
    let containers = pod.containers();
    let sidecar = containers.iter().find(|it| it.name() == NAME)?;
    let listen = sidecar.env("GRACEKEEPER_LISTEN")?.text_at("value")?;
    let (_, port) = listen.rsplit_once(':')?;
    [ISTIO_PORTS, LINKERD_PORTS]
        .into_iter()
        .find_map(|annotation| {
            let ports: Vec<_> = pod.annotation(annotation)?.text()?.split(',').collect();
            let others: Vec<_> = ports.iter().copied().filter(|it| *it != port).collect();
            (others.len() < ports.len()).then(|| (annotation, others.join(",")))
        })
}

fn with_ports(text: &str, number: usize, annotation: &str, ports: &str) -> Option<String> {
    let path = path(&["metadata", "annotations", annotation]);
    match ports {
        "" => text::without(text, number, &path),
        ports => {
            let value = ports.into();
            text::changed(text, number, &super::plan::Change::Set { path, value })
        }
    }
}
