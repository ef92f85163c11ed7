//! One value of a JSON document, found by an RFC 6901 pointer as the document streams by.
//!
//! Nothing is kept but the current token, whatever the document's size. A document has to be whole before it says
//! anything: what follows the value is read too, and a mistake in it is an error.
//!
//! A number counts as itself, `true` as 1 and `false` as 0, an array or object as its members. A string or `null` is no
//! count, not even of nothing. A name on the pointer's path that stands twice in its object is an error, since parsers
//! do not agree on which of the two is meant; members that are counted are counted as they stand.

mod pointer;

use json_event_parser::{JsonEvent, LowLevelJsonParser, LowLevelJsonParserResult};

use super::Error;
pub use pointer::Pointer;
use pointer::Token;

/// The longest name, string or number, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// How deep arrays and objects may be nested.
const DEEPEST: usize = 128;

/// Takes a document in pieces of any size.
pub struct Reader<'p> {
    parser: LowLevelJsonParser,
    /// What no whole token has been made of yet.
    pending: Vec<u8>,
    search: Search<'p>,
}

impl Pointer {
    /// Begins to read a document.
    pub fn begin(&self) -> Reader<'_> {
        Reader {
            parser: LowLevelJsonParser::new().with_max_stack_size(DEEPEST),
            pending: Vec::new(),
            search: Search {
                path: &self.0,
                open: Vec::new(),
                depth: 0,
                members: 0.0,
                begun: false,
                found: None,
            },
        }
    }
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

/// The search for the value: how far along the pointer's path it is.
struct Search<'p> {
    path: &'p [Token],
    /// The open arrays and objects on the path, the one whose members are counted included.
    open: Vec<Container>,
    /// How many arrays and objects are open, on the path or not.
    depth: usize,
    /// How many members the value has, if it is an array or object.
    members: f64,
    /// The document has brought a value.
    begun: bool,
    found: Option<Result<f64, Error>>,
}

/// An open array or object on the path.
enum Container {
    /// How many of its members have begun.
    Array(u64),
    /// Whether the current member is the next step, and whether there was one.
    Object { here: bool, was: bool },
}

/// Where a value stands.
#[derive(PartialEq)]
enum Position {
    /// It is the one that is looked for.
    Target,
    /// That one may be in it.
    OnThePath,
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
                self.scalar(|| number.map_err(|_| malformed("a number that is not valid")));
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
            && let Some(token) = self.path.get(step - 1)
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
    fn position(&mut self) -> Position {
        self.begun = true;
        let step = self.open.len();
        if self.depth != step {
            return Position::Elsewhere;
        }
        if step > self.path.len() {
            self.members += 1.0;
            return Position::Elsewhere;
        }
        let on_the_path = match self.open.last_mut() {
            None => true,
            Some(Container::Object { here, .. }) => *here,
            Some(Container::Array(members)) => {
                let index = *members;
                *members += 1;
                self.path[step - 1].index == Some(index)
            }
        };
        match (on_the_path, step == self.path.len()) {
            (false, _) => Position::Elsewhere,
            (true, false) => Position::OnThePath,
            (true, true) => Position::Target,
        }
    }

    fn scalar(&mut self, value: impl FnOnce() -> Result<f64, Error>) {
        if self.position() == Position::Target {
            self.found = Some(value());
        }
    }

    fn open(&mut self, container: Container) {
        if self.position() != Position::Elsewhere {
            self.open.push(container);
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.depth == self.open.len() {
            self.open.pop();
            if self.open.len() == self.path.len() {
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
mod tests;
