use super::*;
use proptest::prelude::*;
use serde_json::Value;

/// Reads a document in pieces of this size.
fn read_in(size: usize, pointer: &str, document: &[u8]) -> Result<f64, Error> {
    let pointer = Pointer::parse(pointer).unwrap();
    let mut reader = pointer.begin();
    for piece in document.chunks(size) {
        reader.feed(piece)?;
    }
    reader.finish()
}

fn read(pointer: &str, document: &str) -> Result<f64, Error> {
    let whole = read_in(usize::MAX, pointer, document.as_bytes());
    for size in [1, 2, 7] {
        let pieces = read_in(size, pointer, document.as_bytes());
        assert_eq!(
            format!("{pieces:?}"),
            format!("{whole:?}"),
            "in pieces of {size}"
        );
    }
    whole
}

fn kind(pointer: &str, document: &str) -> &'static str {
    read(pointer, document).unwrap_err().kind()
}

const DOCUMENT: &str = r#"
    {"busy": 3, "text": "7", "nothing": null, "up": true, "down": false, "a/b": 1, "m~n": 2, "": 9, "é\n": 4,
     "workers": [{"busy": 5}, {"idle": {"busy": 100}, "busy": 6, "more": [1, [2, 3], {"x": 1, "y": 2}]}],
     "01": {"-": 8}, "deep": {"workers": [{"busy": 99}]}, "list": [], "big": 1e3, "small": -0.5e-1}"#;

#[test]
fn a_number_counts_as_itself() {
    for (pointer, value) in [
        ("/busy", 3.0),
        ("/workers/0/busy", 5.0),
        ("/workers/1/busy", 6.0),
        ("/workers/1/more/1/1", 3.0),
        ("/a~1b", 1.0),
        ("/m~0n", 2.0),
        ("/", 9.0),
        ("/é\n", 4.0),
        ("/01/-", 8.0),
        ("/big", 1000.0),
        ("/small", -0.05),
        ("/up", 1.0),
        ("/down", 0.0),
    ] {
        assert_eq!(read(pointer, DOCUMENT).unwrap(), value, "{pointer}");
    }
    assert_eq!(read("", " 12 \n").unwrap(), 12.0);
    assert_eq!(read("", "12").unwrap(), 12.0);
}

#[test]
fn an_array_or_object_counts_its_members() {
    for (pointer, value) in [
        ("", 15.0),
        ("/workers", 2.0),
        ("/workers/1", 3.0),
        ("/workers/1/more", 3.0),
        ("/workers/1/more/2", 2.0),
        ("/list", 0.0),
    ] {
        assert_eq!(read(pointer, DOCUMENT).unwrap(), value, "{pointer}");
    }
    assert_eq!(read("", "[[1,2],[3]]").unwrap(), 2.0);
}

#[test]
fn strings_and_null_are_unknown_and_not_zero() {
    assert_eq!(kind("/text", DOCUMENT), "no-count");
    assert_eq!(kind("/nothing", DOCUMENT), "no-count");
}

#[test]
fn what_is_not_there_is_missing() {
    for pointer in [
        "/nowhere",
        "/busy/0",
        "/text/0",
        "/nothing/x",
        "/workers/2",
        "/workers/00",
        "/workers/01/busy",
        "/workers/-",
        "/workers/+1",
        "/workers/99999999999999999999999",
        "/workers/busy",
        "/list/0",
        "/workers/0/idle/busy",
        "//",
    ] {
        assert_eq!(kind(pointer, DOCUMENT), "missing", "{pointer}");
    }
}

#[test]
fn a_document_cut_off_anywhere_says_nothing() {
    let document = DOCUMENT.trim();
    for end in 0..document.len() {
        let e = read_in(10, "/busy", &document.as_bytes()[..end]).unwrap_err();
        assert_eq!(e.kind(), "truncated", "{end}: {e}");
    }
    assert_eq!(kind("/busy", " "), "truncated");
}

#[test]
fn what_is_no_json_is_malformed_even_after_the_value() {
    for document in [
        "nonsense",
        "<html>",
        "{\"busy\": 01}",
        "{\"busy\": .5}",
        "{\"busy\": NaN}",
        "{\"busy\": 3,}",
        "{\"busy\": 3]",
        "{\"busy\": 3} 4",
        "{\"busy\": 3} x",
        "{\"busy\": 3}{}",
        "{busy: 3}",
        "{'busy': 3}",
        "{\"busy\": 3, \"x\": \"\u{1}\"}",
        "{\"busy\": 3, \"x\": \"\\ud800 and more\"}",
        "{\"busy\": 3} // so it is",
    ] {
        assert_eq!(kind("/busy", document), "malformed", "{document}");
    }
    let bytes = b"{\"busy\": 3, \"x\": \"\xff\"}";
    assert_eq!(read_in(4, "/busy", bytes).unwrap_err().kind(), "malformed");
}

#[test]
fn a_name_on_the_way_that_stands_twice_is_an_error() {
    for document in [
        r#"{"a": {"b": 1}, "a": {"b": 2}}"#,
        r#"{"a": {"b": 1, "b": 1}}"#,
        r#"{"a": 1, "\u0061": {"b": 1}}"#,
    ] {
        assert_eq!(kind("/a/b", document), "malformed", "{document}");
    }
    assert_eq!(
        read("/a", r#"{"b": 1, "b": 2, "a": {"c": 1, "c": 1}}"#).unwrap(),
        2.0
    );
}

#[test]
fn nothing_grows_without_bound() {
    let long = format!(
        "{{\"x\": \"{}\", \"busy\": 3}}",
        "x".repeat(2 * LONGEST_TOKEN)
    );
    assert_eq!(
        read_in(4096, "/busy", long.as_bytes()).unwrap_err().kind(),
        "malformed"
    );
    let deep = "[".repeat(DEEPEST + 2);
    assert_eq!(
        read_in(4096, "/busy", deep.as_bytes()).unwrap_err().kind(),
        "malformed"
    );
    let pointer = Pointer::parse("/busy").unwrap();
    let mut reader = pointer.begin();
    reader.feed(b"{\"busy\": 3, \"x\": [0").unwrap();
    for _ in 0..10_000 {
        reader
            .feed(b", {\"some\": \"more\", \"of\": [1, 2, 3.5]}    ")
            .unwrap();
    }
    assert!(
        reader.pending.capacity() < 1024,
        "{}",
        reader.pending.capacity()
    );
    reader.feed(b"]}").unwrap();
    assert_eq!(reader.finish().unwrap(), 3.0);
}

#[test]
fn a_wrong_pointer_is_refused_with_a_remedy() {
    for (pointer, part) in [
        ("busy", "write #/busy"),
        ("#/busy", "begins with /"),
        ("/a~", "~0 for ~"),
        ("/a~2b", "~0 for ~"),
        ("/~~0", "~0 for ~"),
        ("/~é", "~0 for ~"),
    ] {
        let refusal = Pointer::parse(pointer).unwrap_err();
        assert!(refusal.contains(part), "{pointer}: {refusal}");
    }
}

fn document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[a-c~/]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-c~/01]{0,2}", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn it_finds_what_a_parser_of_whole_documents_finds(
        document in document(),
        pointer in "(/([a-c01]|~0|~1){0,2}){0,3}",
        size in 1_usize..20,
    ) {
        let found = read_in(size, &pointer, document.to_string().as_bytes());
        let expected = match document.pointer(&pointer) {
            None => Err("missing"),
            Some(Value::Null | Value::String(_)) => Err("no-count"),
            Some(Value::Bool(value)) => Ok(f64::from(u8::from(*value))),
            Some(Value::Number(number)) => Ok(number.as_f64().unwrap()),
            Some(Value::Array(members)) => Ok(members.len() as f64),
            Some(Value::Object(members)) => Ok(members.len() as f64),
        };
        prop_assert_eq!(found.map_err(|e| e.kind()), expected);
    }

    #[test]
    fn reading_never_panics(
        pointer in "(/\\PC{0,3}){0,3}",
        document in "[\\[\\]{}:,\"\\\\ eu0-9a-f~/.+-]{0,60}",
        bytes in prop::collection::vec(any::<u8>(), 0..40),
        size in 1_usize..20,
    ) {
        if let Ok(pointer) = Pointer::parse(&pointer) {
            for document in [document.as_bytes(), &bytes] {
                let mut reader = pointer.begin();
                if document.chunks(size).all(|piece| reader.feed(piece).is_ok()) {
                    let _ = reader.finish();
                }
            }
        }
    }
}
