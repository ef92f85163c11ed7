//! Changes to a manifest as edits of its text: comments, order and whatever else is there stay as they are.
//!
//! What is added is written as YAML in blocks; where its place is inside braces or brackets, as in JSON, it becomes JSON
//! on one line.

use std::ops::Range;

use super::document::{Entry, Node, Stream, Value};
use super::lines;

/// Text that takes the place of some bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// The bytes; empty to insert.
    pub range: Range<usize>,
    /// What comes there.
    pub text: String,
}

/// The text with the edits made, in any order. None where two of them touch the same bytes.
pub fn apply(text: &str, edits: &[Edit]) -> Option<String> {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut result = String::with_capacity(text.len());
    let mut from = 0;
    for edit in edits {
        result += text.get(from..edit.range.start)?;
        result += &edit.text;
        from = edit.range.end;
    }
    result += text.get(from..)?;
    Some(result)
}

/// Where a new item comes in a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// Before all others.
    First,
    /// After all others.
    Last,
}

/// Sets a key of a mapping: the value of an entry that is there is replaced, else the entry comes after that of `after`,
/// or after the last. The value is YAML in blocks. None where the node is no mapping.
pub fn set_entry(
    text: &str,
    mapping: &Node,
    key: &str,
    value: &str,
    after: Option<&str>,
) -> Option<Edit> {
    let Value::Mapping { entries, flow, .. } = &mapping.value else {
        return None;
    };
    let is = |name: &str| entries.iter().rfind(|entry| entry.key.text() == Some(name));
    if let Some(entry) = is(key) {
        return Some(replace_value(text, mapping, entry, value));
    }
    let previous = after.and_then(is).or(entries.last());
    if *flow {
        // An item `a: 1` of a list in brackets is a mapping without braces, and has no place for more.
        let has_brace = text[mapping.span.start..].starts_with('{');
        return has_brace.then(|| add_flow_entry(text, mapping, previous, key, value));
    }
    let previous = previous?;
    let first = &entries.first()?.key.span;
    // A key that is written with a question mark, an anchor or a tag begins later than its entry, and one that is not
    // written nowhere. The dash of a list is no part of its entry.
    let before = &text[lines::start(text, first.start)..first.start];
    let is_led_by_more = !before.chars().all(|c| c.is_whitespace() || c == '-');
    if first.is_empty() || is_led_by_more {
        return None;
    }
    let indent = indent_of(text, first.start);
    let end = content_end(previous);
    let entry = block_entry(key, value, indent);
    Some(insert_line_after(text, end, &entry))
}

/// Adds an item to a list. The value is YAML in blocks. None where the node is no list.
pub fn add_item(text: &str, list: &Node, position: Position, value: &str) -> Option<Edit> {
    let Value::Sequence { items, flow } = &list.value else {
        return None;
    };
    if *flow {
        let json = json(value);
        let (at, new) = match (items.first(), items.last(), position) {
            (Some(first), _, Position::First) => (first.span.start, format!("{json}, ")),
            (_, Some(last), Position::Last) => (last.span.end, format!(", {json}")),
            _ => (list.span.start + 1, json),
        };
        return Some(insert(at, new));
    }
    let indent = indent_of(text, list.span.start);
    let item = indented(value, indent + 2);
    let item = format!("{}- {}", " ".repeat(indent), item.trim_start());
    match position {
        Position::First => Some(insert(
            list.span.start,
            with_line_breaks_of(
                text,
                format!("{}\n{}", item.trim_start(), " ".repeat(indent)),
            ),
        )),
        Position::Last => Some(insert_line_after(text, list.span.end, &item)),
    }
}

/// Puts other text in a scalar's place.
pub fn replace(node: &Node, with: impl Into<String>) -> Edit {
    Edit {
        range: node.span.clone(),
        text: with.into(),
    }
}

fn insert(at: usize, text: String) -> Edit {
    Edit {
        range: at..at,
        text,
    }
}

/// The other value of an entry.
fn replace_value(text: &str, mapping: &Node, entry: &Entry, value: &str) -> Edit {
    let flow = matches!(mapping.value, Value::Mapping { flow: true, .. });
    let colon = (text[entry.key.span.end..].find(':'))
        .map_or(entry.key.span.end, |at| entry.key.span.end + at + 1);
    let range = colon..content_end(entry).max(colon);
    let text_of_value = match flow {
        true => format!(" {}", json(value)),
        false => {
            let indent = indent_of(text, entry.key.span.start);
            after_colon(value, indent)
        }
    };
    Edit {
        range,
        text: with_line_breaks_of(text, text_of_value),
    }
}

fn add_flow_entry(
    text: &str,
    mapping: &Node,
    previous: Option<&Entry>,
    key: &str,
    value: &str,
) -> Edit {
    let Value::Mapping { entries, .. } = &mapping.value else {
        return insert(mapping.span.start, String::new());
    };
    let first = entries.first();
    // Keys in YAML's braces need no quotes; JSON's do.
    let plain = first.is_some_and(|entry| !text[entry.key.span.start..].starts_with(['"', '\'']));
    let key = match plain {
        true => key.to_owned(),
        false => format!("\"{key}\""),
    };
    let new = format!("{key}: {}", json(value));
    match (first, previous) {
        (Some(first), Some(previous)) => {
            // As the first entry is set off from the brace, so is the new one from what is before it.
            let gap = &text[mapping.span.start + 1..first.key.span.start];
            let gap = if gap.trim().is_empty() && gap.contains(lines::BREAKS) {
                gap
            } else {
                " "
            };
            insert(content_end(previous), format!(",{gap}{new}"))
        }
        _ => insert(mapping.span.start + 1, new),
    }
}

/// Where an entry's text ends.
fn content_end(entry: &Entry) -> usize {
    entry.value.span.end.max(entry.key.span.end)
}

/// A new line after the line that this byte ends in, so that a comment on it stays where it is.
fn insert_line_after(text: &str, at: usize, line: &str) -> Edit {
    let line = with_line_breaks_of(text, format!("\n{line}"));
    insert(lines::end(text, at), line)
}

/// `key: value` or the key and the value below it, at that indentation.
fn block_entry(key: &str, value: &str, indent: usize) -> String {
    format!("{}{key}:{}", " ".repeat(indent), after_colon(value, indent))
}

/// What stands after a key's colon.
fn after_colon(value: &str, indent: usize) -> String {
    let value = value.trim_end();
    let stream = Stream::parse(value.to_owned());
    let is_block = stream.documents.first().is_some_and(|document| {
        matches!(
            document.root.value,
            Value::Mapping { flow: false, .. } | Value::Sequence { flow: false, .. }
        )
    });
    match is_block {
        true => format!("\n{}", indented(value, indent + 2)),
        false => format!(" {}", value.trim_start()),
    }
}

/// Each line with that many blanks before it.
fn indented(value: &str, indent: usize) -> String {
    let lines: Vec<String> = (value.trim_end().lines())
        .map(|line| match line.trim().is_empty() {
            true => String::new(),
            false => format!("{}{line}", " ".repeat(indent)),
        })
        .collect();
    lines.join("\n")
}

/// How far from the beginning of its line a byte is, in characters.
fn indent_of(text: &str, at: usize) -> usize {
    text[lines::start(text, at)..at].chars().count()
}

/// YAML as JSON on one line.
fn json(value: &str) -> String {
    let stream = Stream::parse(value.to_owned());
    (stream.documents.first()).map_or_else(|| "null".to_owned(), |document| document.root.to_json())
}

/// With the line breaks that the file has.
fn with_line_breaks_of(text: &str, new: String) -> String {
    match (
        text.contains("\r\n"),
        text.contains(lines::BREAKS) && !text.contains('\n'),
    ) {
        (true, _) => new.replace('\n', "\r\n"),
        (_, true) => new.replace('\n', "\r"),
        _ => new,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, path: &[&str], edit: impl Fn(&Node) -> Option<Edit>) -> String {
        let stream = Stream::parse(text.to_owned());
        let node = stream.documents[0].root.at(path).unwrap();
        let changed = apply(text, &[edit(node).unwrap()]).unwrap();
        let again = Stream::parse(changed.clone());
        assert!(again.errors.is_empty(), "{:?}\n{changed}", again.errors);
        changed
    }

    #[test]
    fn an_entry_comes_after_the_one_named_and_comments_stay() {
        let text = "spec:\n  # about a\n  a: 1 # one\n  # about b\n  b:\n    - x # item\n# end\n";
        let add = |after| {
            edited(text, &["spec"], |node| {
                set_entry(text, node, "new", "c:\n  d: 2\n", after)
            })
        };
        assert_eq!(
            add(Some("a")),
            "spec:\n  # about a\n  a: 1 # one\n  new:\n    c:\n      d: 2\n  # about b\n  b:\n    - x # item\n# end\n"
        );
        assert_eq!(
            add(None),
            "spec:\n  # about a\n  a: 1 # one\n  # about b\n  b:\n    - x # item\n  new:\n    c:\n      d: 2\n# end\n"
        );
    }

    #[test]
    fn a_value_that_is_there_is_replaced() {
        let text = "a: 1 # one\nb:\n  - x\nc:\n";
        let set = |key, value| edited(text, &[], |node| set_entry(text, node, key, value, None));
        assert_eq!(set("a", "2"), "a: 2 # one\nb:\n  - x\nc:\n");
        assert_eq!(set("b", "[y]"), "a: 1 # one\nb: [y]\nc:\n");
        assert_eq!(set("c", "d: 1"), "a: 1 # one\nb:\n  - x\nc:\n  d: 1\n");
    }

    #[test]
    fn inside_braces_what_is_added_is_json() {
        let text = "{\n  \"a\": 1,\n  \"b\": {}\n}\n";
        let add = |path: &[&str]| {
            edited(text, path, |node| {
                set_entry(text, node, "new", "c:\n  - d\n", None)
            })
        };
        assert_eq!(
            add(&[]),
            "{\n  \"a\": 1,\n  \"b\": {},\n  \"new\": {\"c\": [\"d\"]}\n}\n"
        );
        assert_eq!(
            add(&["b"]),
            "{\n  \"a\": 1,\n  \"b\": {\"new\": {\"c\": [\"d\"]}}\n}\n"
        );
        let text = "a: {b: 1}\n";
        assert_eq!(
            edited(text, &["a"], |node| set_entry(text, node, "c", "x y", None)),
            "a: {b: 1, c: \"x y\"}\n"
        );
    }

    #[test]
    fn items_come_first_or_last() {
        let value = "name: n\nimage: i\n";
        for (text, first, last) in [
            (
                "l:\n- name: a\n  image: b # c\nz: 1\n",
                "l:\n- name: n\n  image: i\n- name: a\n  image: b # c\nz: 1\n",
                "l:\n- name: a\n  image: b # c\n- name: n\n  image: i\nz: 1\n",
            ),
            (
                "l: [a]\n",
                "l: [{\"name\": \"n\", \"image\": \"i\"}, a]\n",
                "l: [a, {\"name\": \"n\", \"image\": \"i\"}]\n",
            ),
            (
                "l: []\n",
                "l: [{\"name\": \"n\", \"image\": \"i\"}]\n",
                "l: [{\"name\": \"n\", \"image\": \"i\"}]\n",
            ),
        ] {
            for (position, expected) in [(Position::First, first), (Position::Last, last)] {
                let changed = edited(text, &["l"], |node| add_item(text, node, position, value));
                assert_eq!(changed, expected);
            }
        }
    }

    #[test]
    fn the_line_breaks_of_the_file_are_kept() {
        let text = "a:\r\n  b: 1\r\n";
        let changed = edited(text, &["a"], |node| {
            set_entry(text, node, "c", "d: 2", None)
        });
        assert_eq!(changed, "a:\r\n  b: 1\r\n  c:\r\n    d: 2\r\n");
        // A carriage return ends a line by itself.
        let text = "a:\r  b: 1 # one\rc: 2\n";
        let changed = edited(text, &["a"], |node| set_entry(text, node, "d", "3", None));
        assert_eq!(changed, "a:\r  b: 1 # one\n  d: 3\rc: 2\n");
    }

    #[test]
    fn where_an_entry_begins_elsewhere_than_its_key_nothing_is_set() {
        for text in [
            "a:\n  ? b\n  : 1\n",
            "a:\n  ? \nc: 1\n",
            "a:\n  : 1\n",
            "a:\n  &x b: 1\n",
            "a:\n  !!str b: 1\n",
            "a: [b: 1]\n",
        ] {
            let stream = Stream::parse(text.to_owned());
            let a = stream.documents[0].root.get("a").unwrap();
            let a = a.items().next().unwrap_or(a);
            assert!(a.is_mapping(), "{text}");
            assert!(set_entry(text, a, "d", "2", None).is_none(), "{text}");
        }
    }

    #[test]
    fn edits_that_touch_the_same_bytes_are_refused() {
        let edit = |range| Edit {
            range,
            text: String::new(),
        };
        assert_eq!(apply("abc", &[edit(0..2), edit(1..3)]), None);
        assert_eq!(
            apply("abc", &[edit(2..3), edit(0..1)]).as_deref(),
            Some("b")
        );
    }
}
