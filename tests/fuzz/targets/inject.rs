//! Any manifest: what was in a pod is in it after injection, a second injection changes nothing, and what is taken out
//! again leaves what was there before.

#![no_main]

use gracekeeper::inject::inject_text;
use gracekeeper::podspec::Stream;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

const SIDECAR: &[(&str, &str)] = &[("image", "registry/gracekeeper:1"), ("token", "secret")];
const HOOK: &[(&str, &str)] = &[("mode", "hook"), ("image", "registry/gracekeeper:1")];

/// Injection may change these, and does not know afterwards what they were.
const CHANGED: &[&str] = &[
    "terminationGracePeriodSeconds",
    "traffic.sidecar.istio.io/excludeInboundPorts",
    "config.linkerd.io/skip-inbound-ports",
];

fuzz_target!(|text: &str| {
    // A document that cannot be read and has no pods is left as it is.
    if !Stream::parse(text.to_owned()).errors.is_empty() {
        return;
    }
    for settings in [SIDECAR, HOOK] {
        let Ok(injected) = inject_text(text, settings, false) else {
            continue;
        };
        let again = inject_text(&injected, settings, false);
        assert_eq!(again.as_ref(), Ok(&injected), "{text}");
        // What calls itself ours is taken for ours.
        if injected == text || text.contains("gracekeeper") || text.contains("prestop") {
            continue;
        }
        let (before, after) = (values(text), values(&injected));
        assert_eq!(before.len(), after.len(), "{injected}");
        for (before, after) in before.iter().zip(&after) {
            assert!(keeps(after, before), "{text}\n---\n{injected}");
        }
        let taken_out = inject_text(&injected, settings, true);
        let left: Vec<_> = values(&taken_out.expect("it was understood before"))
            .iter()
            .map(less)
            .collect();
        let was: Vec<_> = before.iter().map(less).collect();
        assert_eq!(left, was, "{text}\n---\n{injected}");
    }
});

/// The documents of a text, each as JSON.
fn values(text: &str) -> Vec<Value> {
    let stream = Stream::parse(text.to_owned());
    assert!(stream.errors.is_empty(), "{:?}\n{text}", stream.errors);
    let documents = stream.documents.iter();
    documents
        .map(|document| serde_json::from_str(&document.root.to_json()).expect("JSON is written"))
        .collect()
}

/// Whether all of one value is in the other: each entry, and each item in its order.
fn keeps(all: &Value, part: &Value) -> bool {
    match (all, part) {
        (Value::Object(all), Value::Object(part)) => part.iter().all(|(key, part)| {
            CHANGED.contains(&key.as_str()) || all.get(key).is_some_and(|all| keeps(all, part))
        }),
        (Value::Array(all), Value::Array(part)) => {
            let mut all = all.iter();
            part.iter().all(|part| all.any(|all| keeps(all, part)))
        }
        (_, Value::Null) => true,
        (all, part) => all == part,
    }
}

/// A value without what may change, and without what says nothing.
fn less(value: &Value) -> Value {
    let says_nothing = |value: &Value| match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(entries) => (entries.iter())
            .filter(|(key, _)| !CHANGED.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), less(value)))
            .filter(|(_, value)| !says_nothing(value))
            .collect(),
        Value::Array(items) => items.iter().map(less).collect(),
        other => other.clone(),
    }
}
