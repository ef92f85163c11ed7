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
fn a_star_sums_what_every_member_has() {
    let puma = r#"{"workers": 2, "worker_status": [
        {"index": 0, "last_status": {"backlog": 0, "busy_threads": 2}},
        {"index": 1, "last_status": {"backlog": 1, "busy_threads": 3}}]}"#;
    for (pointer, document, value) in [
        ("/worker_status/*/last_status/busy_threads", puma, 5.0),
        ("/worker_status/*/last_status", puma, 4.0),
        ("/worker_status/*", puma, 4.0),
        ("/worker_status/*/last_status/*", puma, 6.0),
        ("/*", r#"{"a": 1, "b": 2, "c": [1, 1]}"#, 5.0),
        ("/*/*", r#"{"a": [1, true], "b": {"x": 4}}"#, 6.0),
        ("/*", r#"{"a": 1, "a": 1}"#, 2.0),
    ] {
        assert_eq!(read(pointer, document).unwrap(), value, "{pointer}");
    }
}

#[test]
fn a_star_that_matches_nothing_is_missing_and_so_is_a_member_without_the_rest() {
    for (document, part) in [
        (r#"{"workers": []}"#, "/workers is an empty array"),
        (r#"{"workers": {}}"#, "/workers is an empty object"),
        (r#"{"workers": 3}"#, "/workers is a number"),
        (
            r#"{"workers": [{"busy": 0}, {}]}"#,
            "/workers/1 is an empty object",
        ),
        (
            r#"{"workers": {"a": {"busy": 0}, "b": {"idle": 1}}}"#,
            "/workers/b has no busy; it has idle",
        ),
        (
            r#"{"workers": [{"busy": 0}, null]}"#,
            "/workers/1 is null, and has no busy",
        ),
    ] {
        let e = read("/workers/*/busy", document).unwrap_err();
        assert_eq!(e.kind(), "missing", "{document}: {e}");
        assert!(e.to_string().contains(part), "{document}: {e}");
    }
    for document in [
        r#"{"workers": [{"busy": 5}, {"busy": -5}]}"#,
        r#"{"workers": [{"busy": 0}, {"busy": null}]}"#,
        r#"{"workers": [{"busy": "0"}, {"busy": 0}]}"#,
    ] {
        assert_eq!(kind("/workers/*/busy", document), "no-count", "{document}");
    }
}

#[test]
fn where_the_pointer_leads_nowhere_the_members_are_named() {
    for (pointer, document, message) in [
        (
            "/workers/busy",
            r#"{"workers": {"total": 4, "running": 1}}"#,
            "/workers has no busy; it has total, running",
        ),
        (
            "/busy",
            r#"{"a": 1, "b": {"busy": 1}}"#,
            "the document has no busy; it has a, b",
        ),
        (
            "/w/2",
            r#"{"w": [1, 2]}"#,
            "/w is an array of 2, and has no 2",
        ),
        (
            "/w/0/busy",
            r#"{"w": [1, 2]}"#,
            "/w/0 is a number, and has no busy",
        ),
        (
            "/x",
            r#"{"1":1,"2":1,"3":1,"4":1,"5":1,"6":1,"7":1,"8":1,"9":1}"#,
            "the document has no x; it has 1, 2, 3, 4, 5, 6, 7, 8, …",
        ),
    ] {
        assert_eq!(read(pointer, document).unwrap_err().to_string(), message);
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

/// Every value that a pointer leads to, or why there are none.
fn targets<'v>(value: &'v Value, pointer: &str) -> Result<Vec<&'v Value>, &'static str> {
    let Some(rest) = pointer.strip_prefix('/') else {
        return Ok(vec![value]);
    };
    let (step, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let next: Vec<&Value> = match (step, value) {
        ("*", Value::Array(members)) => members.iter().collect(),
        ("*", Value::Object(members)) => members.values().collect(),
        ("*", _) => Vec::new(),
        _ => value.pointer(&format!("/{step}")).into_iter().collect(),
    };
    if next.is_empty() {
        return Err("missing");
    }
    let found: Result<Vec<_>, _> = next.into_iter().map(|value| targets(value, rest)).collect();
    Ok(found?.concat())
}

/// What a parser of whole documents finds.
fn expected(document: &Value, pointer: &str) -> Result<f64, &'static str> {
    let parts = targets(document, pointer);
    let sum = pointer.split('/').any(|step| step == "*");
    let mut total = 0.0;
    for part in parts? {
        total += match part {
            Value::Null | Value::String(_) => return Err("no-count"),
            Value::Bool(value) => f64::from(u8::from(*value)),
            Value::Number(number) if sum && number.as_f64().unwrap() < 0.0 => {
                return Err("no-count");
            }
            Value::Number(number) => number.as_f64().unwrap(),
            Value::Array(members) => members.len() as f64,
            Value::Object(members) => members.len() as f64,
        };
    }
    Ok(total)
}

proptest! {
    #[test]
    fn it_finds_what_a_parser_of_whole_documents_finds(
        document in document(),
        pointer in "(/(([a-c01]|~0|~1){0,2}|\\*)){0,3}",
        size in 1_usize..20,
    ) {
        let found = read_in(size, &pointer, document.to_string().as_bytes());
        let expected = expected(&document, &pointer);
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
