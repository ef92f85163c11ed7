//! Changes made to the text of a manifest, so that comments, order and fields of others stay as they are.

use serde_json::Value;

use super::plan::{Change, Step};
use crate::podspec::document::Entry;
use crate::podspec::document::Value as Kind;
use crate::podspec::edit::{self, Edit};
use crate::podspec::{Node, Object, Pod, Stream, lines};

/// The documents of a file, each with the line that separates it from the one before.
pub fn documents(text: &str) -> Vec<&str> {
    // JSON has no such lines, and within a YAML document none begins with these three characters.
    let mut starts = vec![0];
    starts.extend((text.match_indices("---").map(|(at, _)| at)).filter(|&at| {
        let rest = &text[at + 3..];
        text[..at].ends_with(lines::BREAKS)
            && (rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
    }));
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| &text[start..end])
        .collect()
}

/// The pod of that number among all pods of a document.
pub fn pod(stream: &Stream, number: usize) -> Option<Pod<'_>> {
    let objects = stream
        .documents
        .iter()
        .flat_map(|document| Object::all(&document.root));
    objects.flat_map(Pod::all).nth(number)
}

/// Makes a change to the pod of that number. None where there is no such place.
pub fn changed(text: &str, number: usize, change: &Change) -> Option<String> {
    let stream = Stream::parse(text.to_owned());
    let pod = pod(&stream, number)?;
    let holder = holder(pod.object.node, pod.spec)?;
    let edit = match change {
        Change::Set { path, value } => set(text, holder, path, value)?,
        Change::Add {
            path,
            value,
            position,
        } => match at(holder, path) {
            Some(list) if list.is_sequence() => {
                edit::add_item(text, list, *position, &yaml(value))?
            }
            // What is no list stays as it is.
            Some(other) if !other.is_null() => return None,
            _ => set(text, holder, path, &Value::Array(vec![value.clone()]))?,
        },
    };
    edit::apply(text, &[edit])
}

/// Takes out an entry of a mapping or an item of a list, and what contained nothing else, up to an item of a list: a
/// container is never ours. None where it is not there.
pub fn without(text: &str, number: usize, path: &[Step]) -> Option<String> {
    let stream = Stream::parse(text.to_owned());
    let pod = pod(&stream, number)?;
    let holder = holder(pod.object.node, pod.spec)?;
    let mut path = path;
    loop {
        let (last, parents) = path.split_last()?;
        let parent = at(holder, parents)?;
        at(parent, std::slice::from_ref(last))?;
        let alone = parent.entries().count() + parent.items().count() == 1;
        let is_all_of_item = (parents.split_last()).is_some_and(|(_, above)| {
            let entries = |item: &Node| item.entries().count();
            matches!(above, [.., Step::Index(_)]) && at(holder, above).map(entries) == Some(1)
        });
        if !alone || parents.is_empty() || is_all_of_item {
            return edit::apply(text, &[removal(text, parent, last)?]);
        }
        path = parents;
    }
}

/// The mapping that has a pod's `metadata` and `spec`.
fn holder<'a>(node: &'a Node, spec: &Node) -> Option<&'a Node> {
    if node.get("spec").is_some_and(|it| std::ptr::eq(it, spec)) {
        return Some(node);
    }
    let below = node
        .entries()
        .map(|entry| &*entry.value)
        .chain(node.items());
    below.into_iter().find_map(|it| holder(it, spec))
}

fn at<'a>(node: &'a Node, path: &[Step]) -> Option<&'a Node> {
    path.iter().try_fold(node, |node, step| match step {
        Step::Key(key) => node.get(key),
        Step::Index(index) => node.items().nth(*index),
    })
}

/// Sets an entry; the mappings that are missing on the way to it are part of the new value.
fn set(text: &str, holder: &Node, path: &[Step], value: &Value) -> Option<Edit> {
    let mut value = value.clone();
    let mut path = path;
    loop {
        let (Step::Key(key), parents) = path.split_last()? else {
            return None;
        };
        match at(holder, parents) {
            Some(parent) if parent.is_mapping() => {
                let yaml = yaml(&value);
                return edit::set_entry(text, parent, key, &yaml, None);
            }
            // A place that says nothing is one to fill.
            Some(parent) if !parent.is_null() => return None,
            _ => {
                value = Value::Object([(key.clone(), value)].into_iter().collect());
                path = parents;
            }
        }
    }
}

/// Takes out what is at a step of a collection that has more.
fn removal(text: &str, parent: &Node, step: &Step) -> Option<Edit> {
    // Where each member begins and ends; an item of a list in blocks begins with its dash.
    let (members, flow): (Vec<(usize, usize)>, bool) = match &parent.value {
        Kind::Mapping { entries, flow, .. } => {
            let span = |it: &Entry| (it.key.span.start, it.value.span.end.max(it.key.span.end));
            (entries.iter().map(span).collect(), *flow)
        }
        Kind::Sequence { items, flow: true } => (
            items
                .iter()
                .map(|it| (it.span.start, it.span.end))
                .collect(),
            true,
        ),
        Kind::Sequence { items, .. } => {
            let dash = |at: usize| text[..at].rfind('-').unwrap_or(at);
            (
                items
                    .iter()
                    .map(|it| (dash(it.span.start), it.span.end))
                    .collect(),
                false,
            )
        }
        Kind::Scalar { .. } => return None,
    };
    let index = match step {
        Step::Index(index) => *index,
        Step::Key(key) => match &parent.value {
            Kind::Mapping { entries, .. } => entries
                .iter()
                .position(|it| it.key.text() == Some(key.as_str()))?,
            _ => return None,
        },
    };
    let (start, end) = *members.get(index)?;
    let range = match (members.get(index + 1), flow) {
        // Up to the next one, which takes its place.
        (Some((next, _)), true) => start..*next,
        (None, true) => members.get(index.checked_sub(1)?)?.1..end,
        (_, false) => {
            let (line, rest) = (lines::start(text, start), lines::next(text, end));
            match (text[line..start].trim().is_empty(), members.get(index + 1)) {
                (true, _) => line..rest,
                // It stands on the line of a dash, which the next one needs.
                (false, Some((next, _))) => start..*next,
                (false, None) => return None,
            }
        }
    };
    Some(Edit {
        range,
        text: String::new(),
    })
}

/// A value as YAML in blocks.
pub fn yaml(value: &Value) -> String {
    let mut text = String::new();
    write(value, 0, &mut text);
    text
}

fn write(value: &Value, indent: usize, into: &mut String) {
    let blanks = " ".repeat(indent);
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (key, value) in map {
                let colon = format!("{blanks}{}:", scalar(key));
                write_after(&colon, value, indent + 2, into);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for item in items {
                let mut text = String::new();
                write(item, indent + 2, &mut text);
                // The first line follows the dash.
                *into += &format!("{blanks}- {}", text.trim_start());
            }
        }
        other => *into += &format!("{blanks}{}\n", inline(other)),
    }
}

fn write_after(colon: &str, value: &Value, indent: usize, into: &mut String) {
    let nested = match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => false,
    };
    match nested {
        true => {
            *into += &format!("{colon}\n");
            write(value, indent, into);
        }
        false => *into += &format!("{colon} {}\n", inline(value)),
    }
}

fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// A string as YAML: plain where every reader takes it for a string, else as JSON has it.
fn scalar(text: &str) -> String {
    let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    let safe = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
        && !words.contains(&text.to_ascii_lowercase().as_str());
    match safe {
        true => text.to_owned(),
        false => Value::from(text).to_string(),
    }
}
