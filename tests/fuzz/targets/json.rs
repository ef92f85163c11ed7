//! A value of a JSON document is the same in whatever pieces it comes, and the one that serde_json finds in the whole.
//!
//! The input is a byte for the size of the pieces, a pointer, a zero byte, and a document.

#![no_main]

use gracekeeper::inflight::Error;
use gracekeeper::inflight::json::Pointer;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|input: &[u8]| {
    let Some((&size, rest)) = input.split_first() else {
        return;
    };
    let mut halves = rest.splitn(2, |&byte| byte == 0);
    let (Some(pointer), Some(document)) = (halves.next(), halves.next()) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(pointer) else {
        return;
    };
    let Ok(pointer) = Pointer::parse(text) else {
        return;
    };
    let found = read(&pointer, document, usize::MAX);
    let in_pieces = read(&pointer, document, 1 + usize::from(size));
    assert_eq!(format!("{in_pieces:?}"), format!("{found:?}"));

    // It is stricter than we are: numbers have to fit, and there may be no more than 127 levels.
    let Ok(whole) = serde_json::from_slice::<Value>(document) else {
        return;
    };
    match (found, targets(&whole, text)) {
        (Ok(found), Some(targets)) => {
            let least: f64 = targets.iter().map(|value| least(value)).sum();
            let exact = !whole_has_objects(&whole);
            assert!(found >= least || (found - least).abs() <= least.abs() * 1e-9);
            assert!(!exact || (found - least).abs() <= least.abs() * 1e-9);
        }
        // It keeps one of two members of the same name, and a star meets both.
        (Err(_), _) if whole_has_objects(&whole) && text.contains('*') => {}
        (Err(Error::NoCount(_)), Some(targets)) => assert!(targets.iter().any(|value| {
            matches!(value, Value::Null | Value::String(_)) || value.as_f64().is_some_and(|n| n < 0.0)
        })),
        (Err(Error::Missing(_)), None) => {}
        (Err(Error::Malformed(why)), _) if why.ends_with("stands twice in one object") => {}
        (found, expected) => panic!("{found:?} and not {expected:?}"),
    }
});

/// The values that a pointer leads to; none where one of its ways ends too early.
fn targets<'v>(value: &'v Value, pointer: &str) -> Option<Vec<&'v Value>> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return Some(vec![value]);
    };
    let (step, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let next: Vec<&Value> = match (step, value) {
        ("*", Value::Array(members)) => members.iter().collect(),
        ("*", Value::Object(members)) => members.values().collect(),
        ("*", _) => Vec::new(),
        _ => value.pointer(&format!("/{step}")).into_iter().collect(),
    };
    let found: Option<Vec<_>> = next.iter().map(|value| targets(value, rest)).collect();
    found.map(|found| found.concat()).filter(|_| !next.is_empty())
}

/// What a value counts as, at least: an object may have had more members.
fn least(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        &Value::Bool(value) => f64::from(u8::from(value)),
        Value::Array(members) => members.len() as f64,
        Value::Object(members) => members.len() as f64,
        Value::Null | Value::String(_) => f64::NAN,
    }
}

/// Whether a member may have stood twice.
fn whole_has_objects(value: &Value) -> bool {
    match value {
        Value::Object(_) => true,
        Value::Array(members) => members.iter().any(whole_has_objects),
        _ => false,
    }
}

fn read(pointer: &Pointer, document: &[u8], size: usize) -> Result<f64, Error> {
    let mut reader = pointer.begin();
    for piece in document.chunks(size) {
        reader.feed(piece)?;
    }
    reader.finish()
}
