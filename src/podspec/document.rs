//! YAML and JSON as a tree of nodes, each with the bytes it stands in.

mod reader;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::ScalarStyle;

use reader::Reader;

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
        let reader = Reader::read(&text);
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
    fn block_scalars_know_their_bytes_wherever_they_begin() {
        for (text, shown) in [
            ("a: > # x > y\n  z\n", "> # x > y\n  z"),
            ("a: >\n\n  > x\n", ">\n\n  > x"),
            ("b: >\n  x\na: >-", ">-"),
            ("b: >\n  x\na: >-\n", ">-"),
            ("b: |\n  x\na: | # |\n", "| # |"),
            ("a: |+2 # end\n\n# not this\nb: 1\n", "|+2 # end"),
            ("a > b: 1\na: !!str >\n  x\n", ">\n  x"),
            ("a: |\r\n  x\r\nb: 1\r\n", "|\r\n  x"),
        ] {
            let span = root(text).get("a").unwrap().span.clone();
            assert_eq!(&text[span], shown, "{text:?}");
        }
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
