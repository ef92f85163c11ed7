//! YAML and JSON as a tree of nodes, each with the bytes it stands in.
//!
//! A file is a stream of documents. One that cannot be read gives an error with its place, and the documents after it
//! are still read. What aliases stand for is counted, so that a few lines cannot become a billion values.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, ScanError, Span, StructureStyle};

/// The most values that the aliases of one file may stand for.
const MOST_ALIASED: usize = 100_000;

/// A file: its documents, its comments, and what could not be read.
#[derive(Debug)]
pub struct Stream {
    /// The whole text.
    pub text: String,
    /// The documents that could be read, in order.
    pub documents: Vec<Document>,
    /// Every comment, in order.
    pub comments: Vec<Comment>,
    /// The documents that could not be read, in order.
    pub errors: Vec<SyntaxError>,
    /// Where each line begins.
    lines: Vec<usize>,
}

/// One document that is not empty.
#[derive(Debug)]
pub struct Document {
    /// Its root.
    pub root: Arc<Node>,
    /// Whether it has aliases. An edit of a value that is used twice would change both.
    pub has_aliases: bool,
}

/// A comment.
#[derive(Debug)]
pub struct Comment {
    /// What stands after the `#`.
    pub text: String,
    /// The bytes it stands in, the `#` included.
    pub span: Range<usize>,
    /// Whether nothing but blanks stands before it on its line.
    pub own_line: bool,
}

/// Why a document could not be read.
#[derive(Debug, Clone)]
pub struct SyntaxError {
    /// What is wrong.
    pub message: String,
    /// Where, in bytes.
    pub at: usize,
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// What it is.
    pub value: Value,
    /// The bytes it stands in: of a block collection, from its first key or dash to the end of its last value.
    pub span: Range<usize>,
    /// How many values it is made of, itself included.
    size: usize,
}

/// What a value is.
#[derive(Debug)]
pub enum Value {
    /// A string, number, boolean or null.
    Scalar {
        /// As it is read: quotes removed, escapes replaced.
        text: String,
        /// How it is written.
        style: ScalarStyle,
    },
    /// A list.
    Sequence {
        /// Its items.
        items: Vec<Arc<Node>>,
        /// Whether it is written in brackets.
        flow: bool,
    },
    /// A mapping.
    Mapping {
        /// Its entries as written. Where a key comes twice the last one counts, as for kubectl.
        entries: Vec<Entry>,
        /// What a merge key (`<<`) adds.
        merged: Vec<Entry>,
        /// Whether it is written in braces.
        flow: bool,
    },
}

/// A key and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The key.
    pub key: Arc<Node>,
    /// The value.
    pub value: Arc<Node>,
}

/// A line and a column, both from 1; columns are counted in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl Stream {
    /// Reads a file's text.
    pub fn parse(text: String) -> Self {
        let mut reader = Reader::default();
        reader.read(&text);
        let lines = std::iter::once(0)
            .chain(text.match_indices('\n').map(|(at, _)| at + 1))
            .collect();
        Self {
            documents: reader.documents,
            comments: reader.comments,
            errors: reader.errors,
            text,
            lines,
        }
    }

    /// The line and column of a byte.
    pub fn place(&self, at: usize) -> Place {
        let at = at.min(self.text.len());
        let line = self.lines.partition_point(|&start| start <= at).max(1);
        let start = self.lines.get(line - 1).copied().unwrap_or(0);
        let before = self.text.get(start..at).unwrap_or_default();
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }

    /// The text of a line, counted from 1, without its line break.
    pub fn line(&self, line: usize) -> &str {
        let start = line
            .checked_sub(1)
            .and_then(|index| self.lines.get(index))
            .copied()
            .unwrap_or(self.text.len());
        let rest = self.text.get(start..).unwrap_or_default();
        rest.lines().next().unwrap_or_default()
    }
}

impl Node {
    /// The value of a key, where this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &*entry.value)
    }

    /// The key and its value, where this is a mapping that has it.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        let Value::Mapping {
            entries, merged, ..
        } = &self.value
        else {
            return None;
        };
        let named = |entry: &&Entry| entry.key.text() == Some(key);
        entries
            .iter()
            .rfind(named)
            .or_else(|| merged.iter().find(named))
    }

    /// The value at the end of a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Node> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    /// The keys and values of a mapping, those that a merge key adds included; none of anything else.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let (entries, merged): (&[_], &[_]) = match &self.value {
            Value::Mapping {
                entries, merged, ..
            } => (entries, merged),
            _ => (&[], &[]),
        };
        entries.iter().chain(merged)
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> impl Iterator<Item = &Node> {
        let items: &[_] = match &self.value {
            Value::Sequence { items, .. } => items,
            _ => &[],
        };
        items.iter().map(|item| &**item)
    }

    /// The text of a scalar that is not null.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The text of the scalar at a key.
    pub fn text_at(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// A whole number, as written without quotes.
    pub fn number(&self) -> Option<i64> {
        match &self.value {
            Value::Scalar {
                text,
                style: ScalarStyle::Plain,
            } => text.replace('_', "").parse().ok(),
            _ => None,
        }
    }

    /// The whole number at a key.
    pub fn number_at(&self, key: &str) -> Option<i64> {
        self.get(key)?.number()
    }

    /// Whether it is true, as YAML 1.1 (and kubectl) read it.
    pub fn is_true(&self) -> bool {
        match &self.value {
            Value::Scalar {
                text,
                style: ScalarStyle::Plain,
            } => ["true", "yes", "on", "y"].contains(&text.to_ascii_lowercase().as_str()),
            _ => false,
        }
    }

    /// Whether there is nothing, or the word for nothing.
    pub fn is_null(&self) -> bool {
        match &self.value {
            Value::Scalar {
                text,
                style: ScalarStyle::Plain,
            } => ["", "~", "null", "Null", "NULL"].contains(&text.as_str()),
            _ => false,
        }
    }

    /// Whether it is a mapping.
    pub fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Mapping { .. })
    }

    /// Whether it is a list.
    pub fn is_sequence(&self) -> bool {
        matches!(self.value, Value::Sequence { .. })
    }

    /// The value as JSON, on one line; keys stay in order.
    pub fn to_json(&self) -> String {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "null".to_owned(),
            Value::Scalar {
                text,
                style: ScalarStyle::Plain,
            } if is_json_word(text) => text.clone(),
            Value::Scalar { text, .. } => quoted(text),
            Value::Sequence { items, .. } => {
                let items: Vec<_> = items.iter().map(|item| item.to_json()).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Mapping { .. } => {
                let entries: Vec<_> = (self.entries())
                    .map(|entry| {
                        let key = entry.key.text().unwrap_or_default();
                        format!("{}: {}", quoted(key), entry.value.to_json())
                    })
                    .collect();
                format!("{{{}}}", entries.join(", "))
            }
        }
    }
}

/// Whether a plain scalar is the same number or boolean in JSON.
fn is_json_word(text: &str) -> bool {
    matches!(text, "true" | "false") || serde_json::from_str::<serde_json::Number>(text).is_ok()
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// Builds the trees from the parser's events.
#[derive(Default)]
struct Reader {
    documents: Vec<Document>,
    comments: Vec<Comment>,
    errors: Vec<SyntaxError>,
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
    fn read(&mut self, text: &str) {
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
                let line = text[..range.start].rfind('\n').map_or(0, |at| at + 1);
                self.comments.push(Comment {
                    text: comment.into_owned(),
                    own_line: text[line..range.start].trim().is_empty(),
                    span: range,
                });
            }
            Event::Scalar(value, style, anchor, _) => {
                let range = match style {
                    ScalarStyle::Literal => block_scalar(text, range, '|'),
                    ScalarStyle::Folded => block_scalar(text, range, '>'),
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

/// The bytes of a block scalar: for the parser it begins after its first line and reaches to what comes next.
fn block_scalar(text: &str, range: Range<usize>, indicator: char) -> Range<usize> {
    let start = text[..range.start].rfind(indicator).unwrap_or(range.start);
    let end = range.start + text[range.clone()].trim_end().len();
    start..end
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn root(text: &str) -> Arc<Node> {
        let mut stream = Stream::parse(text.to_owned());
        assert!(stream.errors.is_empty(), "{:?}", stream.errors);
        stream.documents.remove(0).root
    }

    #[test]
    fn each_value_knows_its_bytes() {
        let text = "a:\n  - b: 1 # one\n    c: [x, \"y\"]\n\n# end\nd: |\n  text\n\ne: {f: g}\n";
        let root = root(text);
        let shown = |path: &[&str]| &text[root.at(path).unwrap().span.clone()];
        assert_eq!(shown(&["a"]), "- b: 1 # one\n    c: [x, \"y\"]");
        assert_eq!(shown(&["d"]), "|\n  text");
        assert_eq!(shown(&["e"]), "{f: g}");
        let item = root.get("a").unwrap().items().next().unwrap();
        assert_eq!(&text[item.get("b").unwrap().span.clone()], "1");
    }

    #[test]
    fn lines_and_columns_are_counted_from_one_and_in_characters() {
        let stream = Stream::parse("ä: 1\nüü: x\n".to_owned());
        let x = stream.text.find('x').unwrap();
        assert_eq!(stream.place(x), Place { line: 2, column: 5 });
        assert_eq!(stream.place(0), Place { line: 1, column: 1 });
        assert_eq!(stream.line(2), "üü: x");
    }

    #[test]
    fn json_is_read_with_tabs_and_escapes_too() {
        let root = root("{\n\t\"a\": [1, true, null, \"\\u00e4\\/\"],\n\t\"b\": {}\n}\n");
        assert_eq!(root.to_json(), r#"{"a": [1, true, null, "ä/"], "b": {}}"#);
    }

    #[test]
    fn a_broken_document_is_named_and_the_others_are_read() {
        let stream = Stream::parse("a: 1\n---\nb: [1, 2\n---\nc: 3\n".to_owned());
        assert_eq!(stream.documents.len(), 2);
        assert_eq!(stream.errors.len(), 1);
        assert!(stream.place(stream.errors[0].at).line >= 3);
    }

    #[test]
    fn aliases_and_merge_keys_stand_for_their_values() {
        let root = root("base: &b {x: 1, y: 2}\nuse:\n  <<: *b\n  y: 3\n");
        let used = root.get("use").unwrap();
        assert_eq!(used.number_at("x"), Some(1));
        assert_eq!(used.number_at("y"), Some(3));
    }

    #[test]
    fn a_billion_laughs_are_an_error() {
        let mut text = "l0: &l0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let aliases = vec![format!("*l{}", level - 1); 10].join(", ");
            text += &format!("l{level}: &l{level} [{aliases}]\n");
        }
        let stream = Stream::parse(text);
        assert!(stream.documents.is_empty());
        assert!(stream.errors[0].message.contains("100000 values"));
    }

    #[test]
    fn an_alias_of_itself_is_an_error() {
        let stream = Stream::parse("a: &a [*a]\n".to_owned());
        assert_eq!(stream.errors.len(), 1);
    }

    #[test]
    fn many_comments_in_a_row_are_no_error() {
        let text = format!(
            "{}a:\n{}  - b\n",
            "# c\n".repeat(500),
            "  # d\n".repeat(500)
        );
        let stream = Stream::parse(text);
        assert!(stream.errors.is_empty(), "{:?}", stream.errors);
        assert_eq!(stream.comments.len(), 1000);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-c:\\-\\[\\]{}&*!|>'\"#%@?,\n\t ä]{0,60}") {
            let stream = Stream::parse(text);
            for document in &stream.documents {
                document.root.to_json();
            }
            for error in &stream.errors {
                stream.place(error.at);
            }
        }
    }
}
