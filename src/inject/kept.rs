//! Whether an edit of a manifest's text has left alone what it should.

use super::plan::{INJECTED, INJECTED_BY, ISTIO_PORTS, LINKERD_PORTS};
use crate::podspec::{Node, Stream};

/// What injection sets to something else where it is there.
const SET: [&str; 5] = [
    INJECTED,
    INJECTED_BY,
    ISTIO_PORTS,
    LINKERD_PORTS,
    "terminationGracePeriodSeconds",
];

/// Whether all of one text's documents are in another's: each value, and each item of a list in its order. An edit is made
/// of text, and YAML can be written in many ways: what an edit has not understood must not reach a cluster.
pub fn keeps(after: &str, before: &Stream) -> bool {
    let after = Stream::parse(after.to_owned());
    let mut pairs = after.documents.iter().zip(&before.documents);
    after.errors.len() == before.errors.len()
        && after.documents.len() == before.documents.len()
        && pairs.all(|(after, before)| has_value(&after.root, &before.root))
}

fn has_value(after: &Node, before: &Node) -> bool {
    if before.is_null() {
        return true;
    }
    if before.is_mapping() {
        return after.is_mapping() && has_entries(after, before);
    }
    if before.is_sequence() {
        let mut items = after.items();
        let mut wanted = before.items();
        return after.is_sequence()
            && wanted.all(|before| items.any(|after| has_value(after, before)));
    }
    after.text() == before.text() && after.number() == before.number()
}

/// Keys are compared in order, since one may be there twice.
fn has_entries(after: &Node, before: &Node) -> bool {
    let mut entries = after.entries();
    let mut wanted = before.entries();
    wanted.all(|before| {
        entries.any(|after| {
            after.key.text() == before.key.text()
                && (before.key.text().is_some_and(|key| SET.contains(&key))
                    || has_value(&after.value, &before.value))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_no_loss_and_what_is_gone_or_moved_is_one() {
        let before = Stream::parse("a: [1, 2]\nb: {c: x, d: }\n".to_owned());
        for (after, kept) in [
            ("a: [0, 1, 3, 2]\nb: {c: x, d: {e: 1}, f: 2}\ng: 3\n", true),
            ("a: [2, 1]\nb: {c: x, d: }\n", false),
            ("a: [1, 2]\nb: {d: }\n", false),
            ("a: [1, 2]\nb: {c: \"1\", d: }\n", false),
            ("a: {1: 2}\nb: {c: x, d: }\n", false),
            ("a: [1, 2]\n---\nb: {c: x, d: }\n", false),
            ("a: [1, 2]\nb: {c: x, d: \n", false),
        ] {
            assert_eq!(keeps(after, &before), kept, "{after}");
        }
    }

    #[test]
    fn a_grace_period_may_become_longer() {
        let before = Stream::parse("terminationGracePeriodSeconds: 3\n".to_owned());
        assert!(keeps("terminationGracePeriodSeconds: 30\n", &before));
    }
}
