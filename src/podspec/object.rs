//! Objects of Kubernetes in documents: what they are called, and the members of lists.

use super::document::Node;

/// An object.
#[derive(Debug, Clone, Copy)]
pub struct Object<'a> {
    /// The whole object.
    pub node: &'a Node,
    /// Its `kind`.
    pub kind: &'a str,
    /// Its `apiVersion`.
    pub api_version: &'a str,
}

impl<'a> Object<'a> {
    /// The objects of a document: itself, or the items of a List, or of what `kubectl get -o yaml` prints.
    pub fn all(root: &'a Node) -> Vec<Self> {
        let mut objects = Vec::new();
        collect(root, &mut objects, 0);
        objects
    }

    /// Its name, or the beginning of one.
    pub fn name(&self) -> Option<&'a str> {
        let metadata = self.node.get("metadata")?;
        metadata
            .text_at("name")
            .or_else(|| metadata.text_at("generateName"))
    }

    /// Its namespace, where one is written.
    pub fn namespace(&self) -> Option<&'a str> {
        self.node.at(&["metadata", "namespace"])?.text()
    }

    /// An annotation of the object itself.
    pub fn annotation(&self, name: &str) -> Option<&'a Node> {
        self.node.at(&["metadata", "annotations", name])
    }

    /// Its `spec`.
    pub fn spec(&self) -> Option<&'a Node> {
        self.node.get("spec")
    }

    /// Where to point at it as a whole: its name, else its kind.
    pub fn head(&self) -> &'a Node {
        self.node
            .at(&["metadata", "name"])
            .or_else(|| self.node.get("kind"))
            .unwrap_or(self.node)
    }

    /// `Deployment shop/web`, or without the namespace where none is written.
    pub fn title(&self) -> String {
        let name = self.name().unwrap_or("(no name)");
        match self.namespace() {
            Some(namespace) => format!("{} {namespace}/{name}", self.kind),
            None => format!("{} {name}", self.kind),
        }
    }

    /// Whether both may be in one namespace. One that is not written is the one that the manifests are applied to.
    pub fn may_share_namespace(&self, other: &Object<'_>) -> bool {
        match (self.namespace(), other.namespace()) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        }
    }
}

fn collect<'a>(node: &'a Node, into: &mut Vec<Object<'a>>, depth: usize) {
    // A document that is a list, as some tools write it.
    if node.is_sequence() && depth == 0 {
        node.items().for_each(|item| collect(item, into, depth + 1));
    }
    let (Some(kind), Some(api_version)) = (node.text_at("kind"), node.text_at("apiVersion")) else {
        return;
    };
    match node.get("items") {
        Some(items) if kind.ends_with("List") && depth < 4 => {
            items
                .items()
                .for_each(|item| collect(item, into, depth + 1));
        }
        _ => into.push(Object {
            node,
            kind,
            api_version,
        }),
    }
}

/// Whether a Service's or budget's `matchLabels` (or plain selector) selects these labels. An empty one selects nothing here.
pub fn selects(selector: Option<&Node>, labels: Option<&Node>) -> bool {
    let Some(selector) = selector else {
        return false;
    };
    let mut wanted = selector.entries().peekable();
    wanted.peek().is_some()
        && wanted.all(|entry| {
            let label = entry.key.text().and_then(|key| labels?.text_at(key));
            label.is_some() && label == entry.value.text()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::podspec::Stream;

    #[test]
    fn lists_are_their_items() {
        let stream = Stream::parse(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: a, namespace: n}}\n\
             - {apiVersion: apps/v1, kind: DeploymentList, items: [{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}]}\n"
                .to_owned(),
        );
        let titles: Vec<_> = Object::all(&stream.documents[0].root)
            .iter()
            .map(Object::title)
            .collect();
        assert_eq!(titles, ["Pod n/a", "Deployment b"]);
    }

    #[test]
    fn every_label_of_a_selector_has_to_be_there() {
        let stream =
            Stream::parse("s: {a: x, b: y}\nl: {a: x, b: y, c: z}\nm: {a: x}\ne: {}\n".to_owned());
        let root = &stream.documents[0].root;
        assert!(selects(root.get("s"), root.get("l")));
        assert!(!selects(root.get("s"), root.get("m")));
        assert!(!selects(root.get("e"), root.get("l")));
        assert!(!selects(None, root.get("l")));
    }
}
