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
    match (found, whole.pointer(text)) {
        (Ok(found), Some(Value::Number(number))) => assert_eq!(Some(found), number.as_f64()),
        (Ok(found), Some(&Value::Bool(value))) => assert_eq!(found, f64::from(u8::from(value))),
        (Ok(found), Some(Value::Array(members))) => assert_eq!(found, members.len() as f64),
        // It keeps one of two members of the same name.
        (Ok(found), Some(Value::Object(members))) => assert!(found >= members.len() as f64),
        (Err(Error::NoCount(_)), Some(Value::Null | Value::String(_))) => {}
        (Err(Error::Missing(_)), None) => {}
        (Err(Error::Malformed(why)), _) if why.ends_with("stands twice in one object") => {}
        (found, expected) => panic!("{found:?} and not {expected:?}"),
    }
});

fn read(pointer: &Pointer, document: &[u8], size: usize) -> Result<f64, Error> {
    let mut reader = pointer.begin();
    for piece in document.chunks(size) {
        reader.feed(piece)?;
    }
    reader.finish()
}
