//! Reads the documents of a file.
//!
//! A file is a stream of documents. One that cannot be read gives an error with its place, and the documents after it
//! are still read. What aliases stand for is counted, so that a few lines cannot become a billion values.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

use super::{Comment, Document, Entry, Node, SyntaxError, Value};
use crate::podspec::lines;

/// The most values that the aliases of one file may stand for.
const MOST_ALIASED: usize = 100_000;

/// Builds the trees from the parser's events.
#[derive(Default)]
pub struct Reader {
    pub documents: Vec<Document>,
    pub comments: Vec<Comment>,
    pub errors: Vec<SyntaxError>,
    open: Vec<Open>,
    root: Option<Arc<Node>>,
    has_aliases: bool,
    anchors: HashMap<usize, Arc<Node>>,
    aliased: usize,
}

/// A collection whose end has not come yet.
struct Open {
    start: usize,
    anchor: usize,
    flow: bool,
    mapping: bool,
    /// Items, or keys and values by turns.
    nodes: Vec<Arc<Node>>,
}

impl Reader {
    /// Reads a whole file.
    pub fn read(text: &str) -> Self {
        let mut reader = Self::default();
        reader.read_documents(text);
        reader
    }

    fn read_documents(&mut self, text: &str) {
        let options = granit_parser::options! { max_buffered_comment_events: 1_000_000 };
        let mut parser = Parser::new_from_str_with_options(text, options);
        loop {
            let next = match parser.next() {
                None => return,
                Some(Ok((event, span))) => self.take(event, &span, text),
                Some(Err(error)) => Err(syntax_error(&error, text)),
            };
            if let Err(error) = next {
                self.errors.push(error);
                self.begin_document();
                if !parser.proceed_next_document().unwrap_or(false) {
                    return;
                }
            }
        }
    }

    fn begin_document(&mut self) {
        self.open.clear();
        self.root = None;
        self.has_aliases = false;
        self.anchors.clear();
    }

    fn take(&mut self, event: Event<'_>, span: &Span, text: &str) -> Result<(), SyntaxError> {
        let range = span.byte_range().unwrap_or(0..0);
        match event {
            Event::DocumentStart(..) => self.begin_document(),
            Event::DocumentEnd => {
                let root = self.root.take().filter(|root| !root.is_null());
                self.documents.extend(root.map(|root| Document {
                    root,
                    has_aliases: self.has_aliases,
                }));
            }
            Event::Comment(comment, _) => {
                let line = lines::start(text, range.start);
                self.comments.push(Comment {
                    text: comment.into_owned(),
                    own_line: text[line..range.start].trim().is_empty(),
                    span: range,
                });
            }
            Event::Scalar(value, style, anchor, _) => {
                let range = match style {
                    ScalarStyle::Literal => block_scalar(text, range, '|', value.is_empty()),
                    ScalarStyle::Folded => block_scalar(text, range, '>', value.is_empty()),
                    _ => range,
                };
                let value = Value::Scalar {
                    text: value.into_owned(),
                    style,
                };
                self.add(value, range, 1, anchor);
            }
            Event::SequenceStart(style, anchor, _) => self.begin(range.start, anchor, style, false),
            Event::MappingStart(style, anchor, _) => self.begin(range.start, anchor, style, true),
            Event::SequenceEnd | Event::MappingEnd => return self.end(range.end, text),
            Event::Alias(anchor) => return self.alias(anchor, range.start),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, start: usize, anchor: usize, style: StructureStyle, mapping: bool) {
        self.open.push(Open {
            start,
            anchor,
            flow: matches!(style, StructureStyle::Flow),
            mapping,
            nodes: Vec::new(),
        });
    }

    fn end(&mut self, end: usize, text: &str) -> Result<(), SyntaxError> {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let key = open.nodes.iter().step_by(2).find(|key| key.is_mapping());
        if let Some(key) = key.filter(|_| open.mapping) {
            return Err(SyntaxError {
                message: "braces in braces: a mapping cannot be a key".to_owned(),
                at: key.span.start,
            });
        }
        let size = 1 + open.nodes.iter().map(|node| node.size).sum::<usize>();
        // A block collection ends for the parser where something else begins; for us where its last value ends.
        let last = open.nodes.iter().map(|node| node.span.end).max();
        let end = match open.flow {
            true => end,
            false => last.unwrap_or(end).max(open.start),
        };
        // One at its key's own indentation begins for the parser after its first dash.
        let start = match !open.mapping && !open.flow && !text[open.start..].starts_with('-') {
            true => text[..open.start].rfind('-').unwrap_or(open.start),
            false => open.start,
        };
        let value = match open.mapping {
            false => Value::Sequence {
                items: open.nodes,
                flow: open.flow,
            },
            true => mapping(open.nodes, open.flow),
        };
        self.add(value, start..end.max(start), size, open.anchor);
        Ok(())
    }

    fn add(&mut self, value: Value, span: Range<usize>, size: usize, anchor: usize) {
        let node = Arc::new(Node { value, span, size });
        if anchor != 0 {
            self.anchors.insert(anchor, Arc::clone(&node));
        }
        self.attach(node);
    }

    fn attach(&mut self, node: Arc<Node>) {
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.root = Some(node),
        }
    }

    fn alias(&mut self, anchor: usize, at: usize) -> Result<(), SyntaxError> {
        // An alias inside its own anchor has no value yet.
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(SyntaxError {
                message: "this alias stands inside what it stands for".to_owned(),
                at,
            });
        };
        self.has_aliases = true;
        self.aliased = self.aliased.saturating_add(node.size);
        if self.aliased > MOST_ALIASED {
            return Err(SyntaxError {
                message: format!(
                    "the aliases up to here stand for more than {MOST_ALIASED} values; write the values out, or use fewer"
                ),
                at,
            });
        }
        self.attach(node);
        Ok(())
    }
}

/// The bytes of a block scalar: for the parser it begins after its first line and reaches to what comes next, but with its
/// first line where the text ends with that.
fn block_scalar(text: &str, range: Range<usize>, indicator: char, is_empty: bool) -> Range<usize> {
    let start = match is_empty && text[range.start..].starts_with(indicator) {
        true => range.start,
        false => indicator_before(text, range.start, indicator).unwrap_or(range.start),
    };
    start..start + text[start..range.end].trim_end().len()
}

/// Where the last line before this place that says something has its indicator: after it there are signs of how the
/// scalar is read, and a comment.
fn indicator_before(text: &str, at: usize, indicator: char) -> Option<usize> {
    let mut end = text[..at].rfind(lines::BREAKS)?;
    let (starts, line) = loop {
        let starts = lines::start(text, end);
        let line = &text[starts..end];
        if !line.trim().is_empty() && !line.trim_start().starts_with('#') {
            break (starts, line);
        }
        end = starts.checked_sub(1)?;
    };
    let is_it = |at: usize| {
        let is_sign = |sign: char| sign.is_ascii_digit() || "+-".contains(sign);
        let rest = line[at + indicator.len_utf8()..].trim_start_matches(is_sign);
        let before = line[..at].chars().next_back();
        before.is_none_or(char::is_whitespace)
            && (rest.trim().is_empty()
                || rest.starts_with(char::is_whitespace) && rest.trim_start().starts_with('#'))
    };
    let mut places = line.match_indices(indicator).map(|(place, _)| place);
    places
        .find(|&place| is_it(place))
        .map(|place| starts + place)
}

/// A mapping of keys and values by turns, with what its merge keys add.
fn mapping(nodes: Vec<Arc<Node>>, flow: bool) -> Value {
    let mut entries = Vec::with_capacity(nodes.len() / 2);
    let mut merged: Vec<Entry> = Vec::new();
    let mut nodes = nodes.into_iter();
    while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
        let is_merge_key =
            matches!(&key.value, Value::Scalar { text, style: ScalarStyle::Plain } if text == "<<");
        if !is_merge_key {
            entries.push(Entry { key, value });
            continue;
        }
        let sources: Vec<&Node> = match value.is_sequence() {
            true => value.items().collect(),
            false => vec![&value],
        };
        merged.extend(sources.into_iter().flat_map(Node::entries).cloned());
    }
    Value::Mapping {
        entries,
        merged,
        flow,
    }
}

fn syntax_error(error: &ScanError, text: &str) -> SyntaxError {
    let marker = error.marker();
    let at = marker
        .byte_offset()
        .or_else(|| text.char_indices().nth(marker.index()).map(|(at, _)| at))
        .unwrap_or(text.len());
    SyntaxError {
        message: error.info(),
        at,
    }
}
