//! Pods and pod templates in objects of any kind.

use super::container::{Container, Role};
use super::document::Node;
use super::object::Object;

/// The grace period where the pod spec names none.
pub const DEFAULT_GRACE: i64 = 30;
/// How deep in an object a pod template is looked for: a JobSet's is eight deep.
const DEEPEST: usize = 12;

/// A pod, or the template of pods.
#[derive(Debug, Clone, Copy)]
pub struct Pod<'a> {
    /// The object it is in.
    pub object: Object<'a>,
    /// The pod's or the template's `metadata`.
    pub metadata: Option<&'a Node>,
    /// The pod's or the template's `spec`.
    pub spec: &'a Node,
}

impl<'a> Pod<'a> {
    /// The pods that an object is, or makes: any kind with a template that has containers.
    pub fn all(object: Object<'a>) -> Vec<Self> {
        let mut pods = Vec::new();
        if object.kind == "Pod" {
            pods.extend(pod_of(object, object.node));
        } else {
            find(object, object.node, &mut pods, 0);
        }
        pods
    }

    /// A label of the pod.
    pub fn label(&self, name: &str) -> Option<&'a Node> {
        self.labels()?.get(name)
    }

    /// The labels of the pod.
    pub fn labels(&self) -> Option<&'a Node> {
        self.metadata?.get("labels")
    }

    /// An annotation of the pod.
    pub fn annotation(&self, name: &str) -> Option<&'a Node> {
        self.metadata?.at(&["annotations", name])
    }

    /// `terminationGracePeriodSeconds`, where it is written.
    pub fn grace_node(&self) -> Option<&'a Node> {
        self.spec.get("terminationGracePeriodSeconds")
    }

    /// The grace period in seconds; the default where none is written.
    pub fn grace(&self) -> i64 {
        self.grace_node()
            .and_then(Node::number)
            .unwrap_or(DEFAULT_GRACE)
    }

    /// Whether it uses the node's network.
    pub fn host_network(&self) -> bool {
        self.spec.get("hostNetwork").is_some_and(Node::is_true)
    }

    /// All containers: init containers in order, then the others.
    pub fn containers(&self) -> Vec<Container<'a>> {
        let of = |key| self.spec.get(key).into_iter().flat_map(Node::items);
        let init = of("initContainers").map(|node| {
            let native = node.text_at("restartPolicy") == Some("Always");
            (
                node,
                if native {
                    Role::NativeSidecar
                } else {
                    Role::Init
                },
            )
        });
        init.chain(of("containers").map(|node| (node, Role::Ordinary)))
            .filter(|(node, _)| node.is_mapping())
            .map(|(node, role)| Container { node, role })
            .collect()
    }
}

fn pod_of<'a>(object: Object<'a>, holder: &'a Node) -> Option<Pod<'a>> {
    let spec = holder.get("spec")?;
    spec.get("containers")
        .is_some_and(Node::is_sequence)
        .then_some(Pod {
            object,
            metadata: holder.get("metadata"),
            spec,
        })
}

/// Templates below a node. What is inside a pod spec is not looked at, so one pod is found once.
fn find<'a>(object: Object<'a>, node: &'a Node, into: &mut Vec<Pod<'a>>, depth: usize) {
    if depth > DEEPEST {
        return;
    }
    for entry in node.entries() {
        let is_template = entry.key.text().is_some_and(|key| key.ends_with("emplate"));
        match is_template.then(|| pod_of(object, &entry.value)).flatten() {
            Some(pod) => into.push(pod),
            None => find(object, &entry.value, into, depth + 1),
        }
    }
    for item in node.items() {
        find(object, item, into, depth + 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podspec::Stream;

    fn found(text: &str) -> Vec<String> {
        let stream = Stream::parse(text.to_owned());
        (stream.documents.iter())
            .flat_map(|document| Object::all(&document.root))
            .flat_map(Pod::all)
            .flat_map(|pod| pod.containers())
            .map(|container| container.name().to_owned())
            .collect()
    }

    #[test]
    fn a_pod_template_is_found_in_any_kind() {
        let spec = "{containers: [{name: app}]}";
        for object in [
            format!("{{apiVersion: v1, kind: Pod, spec: {spec}}}"),
            format!(
                "{{apiVersion: apps/v1, kind: Deployment, spec: {{template: {{spec: {spec}}}}}}}"
            ),
            format!(
                "{{apiVersion: argoproj.io/v1alpha1, kind: Rollout, spec: {{template: {{spec: {spec}}}}}}}"
            ),
            format!("{{apiVersion: v1, kind: PodTemplate, template: {{spec: {spec}}}}}"),
            format!(
                "{{apiVersion: batch/v1, kind: CronJob, spec: {{jobTemplate: {{spec: {{template: {{spec: {spec}}}}}}}}}}}"
            ),
            format!(
                "{{apiVersion: jobset.x-k8s.io/v1, kind: JobSet, spec: {{replicatedJobs: [{{template: {{spec: {{template: {{spec: {spec}}}}}}}}}]}}}}"
            ),
        ] {
            assert_eq!(found(&object), ["app"], "{object}");
        }
    }

    #[test]
    fn what_has_no_containers_is_passed_over() {
        for object in [
            "{apiVersion: v1, kind: ConfigMap, data: {template: 'spec: {containers: []}'}}",
            "{apiVersion: x/v1, kind: Template, spec: {template: {spec: {containers: 3}}}}",
            "{kind: Pod, spec: {containers: [{name: app}]}}",
        ] {
            assert!(found(object).is_empty(), "{object}");
        }
    }
}
