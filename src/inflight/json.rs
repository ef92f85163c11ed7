//! One value of a JSON document, found by an RFC 6901 pointer as the document streams by.
//!
//! Nothing is kept but the token under way, whatever the document's size. A document has to be whole before it says
//! anything: what follows the value is read too, and a mistake in it is an error.
//!
//! A number counts as itself, `true` as 1 and `false` as 0, an array or object as its members. A string or `null` is no
//! count, not even of nothing. A name on the pointer's way that stands twice in its object is an error, since parsers
//! do not agree on which of the two is meant; members that are counted are counted as they stand.

use json_event_parser::{JsonEvent, LowLevelJsonParser, LowLevelJsonParserResult};

use super::Error;

/// The longest name, string or number, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// How deep arrays and objects may be nested.
const DEEPEST: usize = 128;

/// Where in a document the value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<Token>);

/// One step of a pointer's way: the name of an object's member, and the index of an array's if it can be one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    name: String,
    index: Option<u64>,
}

impl Pointer {
    /// Parses a pointer such as `/workers/0/busy`. The empty one is the whole document.
    ///
    /// # Errors
    /// Says what is wrong and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let Some(rest) = text.strip_prefix('/') else {
            return Err(format!("a JSON pointer begins with /; write #/{text}"));
        };
        rest.split('/')
            .map(Token::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Begins to read a document.
    pub fn begin(&self) -> Reader<'_> {
        Reader {
            parser: LowLevelJsonParser::new().with_max_stack_size(DEEPEST),
            pending: Vec::new(),
            search: Search {
                way: &self.0,
                open: Vec::new(),
                depth: 0,
                members: 0.0,
                begun: false,
                found: None,
            },
        }
    }
}

impl Token {
    fn parse(text: &str) -> Result<Self, String> {
        let mut name = String::with_capacity(text.len());
        let mut parts = text.split('~');
        name.extend(parts.next());
        for part in parts {
            let (meant, rest) = match part.split_at_checked(1) {
                Some(("0", rest)) => ('~', rest),
                Some(("1", rest)) => ('/', rest),
                _ => {
                    return Err(format!(
                        "in {text:?}, ~ is not followed by 0 or 1; write ~0 for ~ itself, and ~1 for / within a name"
                    ));
                }
            };
            name.push(meant);
            name.push_str(rest);
        }
        let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
        let index = match digits && (name == "0" || !name.starts_with('0')) {
            true => name.parse().ok(),
            false => None,
        };
        Ok(Self { name, index })
    }
}

/// Takes a document in pieces of any size.
pub struct Reader<'p> {
    parser: LowLevelJsonParser,
    /// What no whole token has been made of yet.
    pending: Vec<u8>,
    search: Search<'p>,
}

impl Reader<'_> {
    /// Takes the next piece.
    ///
    /// # Errors
    /// When the document is no JSON.
    pub fn feed(&mut self, piece: &[u8]) -> Result<(), Error> {
        self.pending.extend_from_slice(piece);
        self.parse(false)?;
        if self.pending.len() > LONGEST_TOKEN {
            return Err(malformed("a name, string or number of more than 64 KiB"));
        }
        Ok(())
    }

    /// Says that the document has ended, and gives the value.
    ///
    /// # Errors
    /// When the document ended too early, or has no such value.
    pub fn finish(mut self) -> Result<f64, Error> {
        let nothing_more = self.pending.trim_ascii().is_empty();
        let ended = self.parse(true);
        if !self.search.is_whole() && (nothing_more || self.search.depth > 0) {
            return Err(Error::CutOff("the JSON document has no end"));
        }
        ended?;
        self.search.found.ok_or(Error::Missing(
            "the document has nothing where the pointer points",
        ))?
    }

    fn parse(&mut self, ending: bool) -> Result<(), Error> {
        let mut at = 0;
        loop {
            let LowLevelJsonParserResult {
                consumed_bytes,
                event,
            } = self.parser.parse_next(&self.pending[at..], ending);
            at += consumed_bytes;
            match event {
                None | Some(Ok(JsonEvent::Eof)) => break,
                Some(Ok(event)) => self.search.take(&event)?,
                Some(Err(e)) => return Err(malformed(&e.to_string())),
            }
        }
        self.pending.drain(..at);
        Ok(())
    }
}

/// The way to the value, as far as it has been found.
struct Search<'p> {
    way: &'p [Token],
    /// The open arrays and objects on the way, the one whose members are counted included.
    open: Vec<Container>,
    /// How many arrays and objects are open, on the way or not.
    depth: usize,
    /// How many members the value has, if it is an array or object.
    members: f64,
    /// The document has brought a value.
    begun: bool,
    found: Option<Result<f64, Error>>,
}

/// An open array or object on the way.
enum Container {
    /// How many of its members have begun.
    Array(u64),
    /// Whether the member under way is the next step, and whether there was one.
    Object { here: bool, was: bool },
}

/// Where a value stands.
#[derive(PartialEq)]
enum Place {
    /// It is the one that is looked for.
    There,
    /// That one may be in it.
    OnTheWay,
    Elsewhere,
}

impl Search<'_> {
    fn take(&mut self, event: &JsonEvent<'_>) -> Result<(), Error> {
        match event {
            JsonEvent::ObjectKey(name) => return self.name(name),
            JsonEvent::StartArray => self.open(Container::Array(0)),
            JsonEvent::StartObject => self.open(Container::Object {
                here: false,
                was: false,
            }),
            JsonEvent::EndArray | JsonEvent::EndObject => self.close(),
            JsonEvent::Number(text) => {
                let number = text.parse();
                self.scalar(|| number.map_err(|_| malformed("a number that is none")));
            }
            JsonEvent::Boolean(value) => self.scalar(|| Ok(f64::from(u8::from(*value)))),
            JsonEvent::Null => self.scalar(|| Err(Error::NoCount("null".to_owned()))),
            JsonEvent::String(_) => self.scalar(|| Err(Error::NoCount("a string".to_owned()))),
            JsonEvent::Eof => {}
        }
        Ok(())
    }

    /// The name of the member that comes next.
    fn name(&mut self, name: &str) -> Result<(), Error> {
        let step = self.open.len();
        if let Some(Container::Object { here, was }) = self.open.last_mut()
            && self.depth == step
            && let Some(token) = self.way.get(step - 1)
        {
            *here = token.name == name;
            if *here && *was {
                return Err(malformed(&format!("{name:?} stands twice in one object")));
            }
            *was |= *here;
        }
        Ok(())
    }

    /// Says where the value that begins now stands.
    fn place(&mut self) -> Place {
        self.begun = true;
        let step = self.open.len();
        if self.depth != step {
            return Place::Elsewhere;
        }
        if step > self.way.len() {
            self.members += 1.0;
            return Place::Elsewhere;
        }
        let on_the_way = match self.open.last_mut() {
            None => true,
            Some(Container::Object { here, .. }) => *here,
            Some(Container::Array(members)) => {
                let index = *members;
                *members += 1;
                self.way[step - 1].index == Some(index)
            }
        };
        match (on_the_way, step == self.way.len()) {
            (false, _) => Place::Elsewhere,
            (true, false) => Place::OnTheWay,
            (true, true) => Place::There,
        }
    }

    fn scalar(&mut self, value: impl FnOnce() -> Result<f64, Error>) {
        if self.place() == Place::There {
            self.found = Some(value());
        }
    }

    fn open(&mut self, container: Container) {
        if self.place() != Place::Elsewhere {
            self.open.push(container);
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.depth == self.open.len() {
            self.open.pop();
            if self.open.len() == self.way.len() {
                self.found = Some(Ok(self.members));
            }
        }
        self.depth -= 1;
    }

    /// Whether the document's one value has ended.
    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0
    }
}

fn malformed(wrong: &str) -> Error {
    Error::Malformed(wrong.to_owned())
}

#[cfg(test)]
mod tests {
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
}
