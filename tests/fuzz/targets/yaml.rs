//! No text makes the reading of YAML panic; each value stands within the text; and JSON is read as serde_json reads it.

#![no_main]

use gracekeeper::podspec::document::Value;
use gracekeeper::podspec::{Node, Stream};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let stream = Stream::parse(text.to_owned());
    for error in &stream.errors {
        stream.place(error.at);
        assert!(!error.message.is_empty());
    }
    for comment in &stream.comments {
        assert!(
            text.get(comment.span.clone())
                .is_some_and(|it| it.starts_with('#'))
        );
    }
    for document in &stream.documents {
        stands_in(&document.root, text, document.has_aliases);
        let json = document.root.to_json();
        assert!(
            serde_json::from_str::<serde_json::Value>(&json).is_ok(),
            "{json}"
        );
    }
    // A scalar alone is another thing in YAML: a date, a word.
    if !text.trim_start().starts_with(['{', '[']) {
        return;
    }
    let Ok(json) = serde_json::from_str::<serde_json::Value>(text) else {
        return;
    };
    if let ([], [document]) = (&stream.errors[..], &stream.documents[..]) {
        let read = serde_json::from_str(&document.root.to_json()).ok();
        assert_eq!(read, Some(json), "{text}");
    }
});

/// A node and all in it stand in the text, and, where nothing is written once and used twice, within what has them.
fn stands_in(node: &Node, text: &str, has_aliases: bool) {
    assert!(text.get(node.span.clone()).is_some(), "{:?}", node.span);
    let values = match &node.value {
        Value::Mapping { entries, .. } => entries.iter().map(|entry| &*entry.value).collect(),
        _ => node.items().collect::<Vec<_>>(),
    };
    for value in values {
        let within = node.span.start <= value.span.start && value.span.end <= node.span.end;
        assert!(has_aliases || within, "{:?} {:?}", node.span, value.span);
        stands_in(value, text, has_aliases);
    }
}
