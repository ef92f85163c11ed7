//! The value of a JSON document, found by a pointer as the document streams by.
//!
//! Nothing is kept but the current token and a few names, whatever the document's size. A document has to be whole before
//! it says anything: what follows the value is read too, and a mistake in it is an error.
//!
//! A number counts as itself, `true` as 1 and `false` as 0, an array or object as its members. A string or `null` is no
//! count, not even zero. A name on the pointer's path that stands twice in its object is an error, since parsers
//! do not agree on which of the two is meant; members that are counted are counted as they stand.
//!
//! Where the pointer has a `*`, what all members have at its end is summed. Each of them has to have it, and there has to
//! be one: a worker that says nothing yet is unknown, and not idle.

mod pointer;

use json_event_parser::{JsonEvent, LowLevelJsonParser, LowLevelJsonParserResult};

use super::Error;
pub use pointer::Pointer;
use pointer::Step;

/// The longest name, string or number, in bytes.
const LONGEST_TOKEN: usize = 64 * 1024;

/// How deep arrays and objects may be nested.
const DEEPEST: usize = 128;

/// How many names of members a message has, and how long each may be in characters.
const MOST_NAMES: usize = 8;
const LONGEST_NAME: usize = 40;

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
                sum: None,
                failed: None,
                missing: None,
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
        self.search.value()
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
    path: &'p [Step],
    /// The open arrays and objects on the path, the one whose members are counted included.
    open: Vec<Container>,
    /// How many arrays and objects are open, on the path or not.
    depth: usize,
    /// How many members the current value has, if it is an array or object.
    members: f64,
    /// The document has brought a value.
    begun: bool,
    /// The values found so far.
    sum: Option<f64>,
    /// The first value that is no count.
    failed: Option<Error>,
    /// The first place where the path leads nowhere, in words.
    missing: Option<String>,
}

/// An open array or object on the path.
enum Container {
    /// How many of its members have begun.
    Array(u64),
    Object(Object),
}

#[derive(Default)]
struct Object {
    /// The current member is the next step.
    here: bool,
    /// There was a member that is the next step.
    was: bool,
    /// The current member's name, as far as a message shows it.
    current: String,
    /// The names of its first members.
    names: Vec<String>,
}

/// Where a value stands.
#[derive(PartialEq)]
enum Position {
    /// It is one that is looked for.
    Target,
    /// A target may be in it.
    OnThePath,
    Elsewhere,
}

impl Search<'_> {
    fn take(&mut self, event: &JsonEvent<'_>) -> Result<(), Error> {
        match event {
            JsonEvent::ObjectKey(name) => return self.name(name),
            JsonEvent::StartArray => self.open(Container::Array(0)),
            JsonEvent::StartObject => self.open(Container::Object(Object::default())),
            JsonEvent::EndArray | JsonEvent::EndObject => self.close(),
            JsonEvent::Number(text) => {
                let number = text.parse();
                self.scalar("a number", || {
                    number.map_err(|_| malformed("a number that is not valid"))
                });
            }
            JsonEvent::Boolean(value) => {
                self.scalar("true or false", || Ok(f64::from(u8::from(*value))));
            }
            JsonEvent::Null => self.scalar("null", || Err(Error::NoCount("null".to_owned()))),
            JsonEvent::String(_) => {
                self.scalar("a string", || Err(Error::NoCount("a string".to_owned())));
            }
            JsonEvent::Eof => {}
        }
        Ok(())
    }

    /// The name of the member that comes next.
    fn name(&mut self, name: &str) -> Result<(), Error> {
        let step = self.open.len();
        if let Some(Container::Object(object)) = self.open.last_mut()
            && self.depth == step
            && let Some(next) = self.path.get(step - 1)
        {
            object.here = match next {
                Step::Member { name: wanted, .. } => wanted == name,
                Step::Every => true,
            };
            if object.here && object.was && *next != Step::Every {
                return Err(malformed(&format!("{name:?} stands twice in one object")));
            }
            object.was |= object.here;
            object.current = name.chars().take(LONGEST_NAME).collect();
            if object.names.len() <= MOST_NAMES {
                object.names.push(object.current.clone());
            }
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
            Some(Container::Object(object)) => object.here,
            Some(Container::Array(members)) => {
                let at = *members;
                *members += 1;
                match &self.path[step - 1] {
                    Step::Member { index, .. } => *index == Some(at),
                    Step::Every => true,
                }
            }
        };
        match (on_the_path, step == self.path.len()) {
            (false, _) => Position::Elsewhere,
            (true, false) => Position::OnThePath,
            (true, true) => Position::Target,
        }
    }

    fn scalar(&mut self, what: &str, value: impl FnOnce() -> Result<f64, Error>) {
        match self.position() {
            Position::Target => self.found(value()),
            Position::OnThePath => {
                let step = self.step(self.open.len());
                self.miss(format!(
                    "{} is {what}, and has no {step}",
                    self.place(self.open.len())
                ));
            }
            Position::Elsewhere => {}
        }
    }

    fn open(&mut self, container: Container) {
        match self.position() {
            Position::Elsewhere => {}
            Position::OnThePath => self.open.push(container),
            Position::Target => {
                self.members = 0.0;
                self.open.push(container);
            }
        }
        self.depth += 1;
    }

    fn close(&mut self) {
        if self.depth == self.open.len()
            && let Some(closed) = self.open.pop()
        {
            match self.open.len() == self.path.len() {
                true => self.found(Ok(self.members)),
                false => self.check_step(&closed),
            }
        }
        self.depth -= 1;
    }

    /// Notes whether an array or object on the path that has ended had the member that is the next step.
    fn check_step(&mut self, closed: &Container) {
        let step = self.open.len();
        let place = self.place(step);
        let missing = match (closed, &self.path[step]) {
            (Container::Array(0), Step::Every) => format!("{place} is an empty array"),
            (Container::Array(_), Step::Every) => return,
            (Container::Array(members), Step::Member { index, .. }) => {
                if index.is_some_and(|index| index < *members) {
                    return;
                }
                format!(
                    "{place} is an array of {members}, and has no {}",
                    self.step(step)
                )
            }
            (Container::Object(object), _) if object.was => return,
            (Container::Object(object), _) if object.names.is_empty() => {
                format!("{place} is an empty object")
            }
            (Container::Object(object), _) => {
                let some = object.names.len().min(MOST_NAMES);
                let more = if object.names.len() > some {
                    ", …"
                } else {
                    ""
                };
                let names = object.names[..some].join(", ");
                format!("{place} has no {}; it has {names}{more}", self.step(step))
            }
        };
        self.miss(missing);
    }

    fn miss(&mut self, what: String) {
        self.missing.get_or_insert(what);
    }

    fn found(&mut self, value: Result<f64, Error>) {
        match value {
            // What is summed hides what each part is, so each is checked.
            Ok(value) if self.path.contains(&Step::Every) && value < 0.0 => {
                self.failed
                    .get_or_insert(Error::NoCount(format!("{value}, one of those summed")));
            }
            Ok(value) => *self.sum.get_or_insert(0.0) += value,
            Err(e) => {
                self.failed.get_or_insert(e);
            }
        }
    }

    /// The pointer to the value that so many steps lead to, for people.
    fn place(&self, steps: usize) -> String {
        let keys = self
            .open
            .iter()
            .take(steps)
            .map(|container| match container {
                Container::Array(members) => members.saturating_sub(1).to_string(),
                Container::Object(object) => object.current.clone(),
            });
        let place: String = keys.map(|key| format!("/{key}")).collect();
        match place.is_empty() {
            true => "the document".to_owned(),
            false => place,
        }
    }

    /// That step of the path, for people.
    fn step(&self, at: usize) -> &str {
        match self.path.get(at) {
            Some(Step::Member { name, .. }) => name,
            Some(Step::Every) | None => "members",
        }
    }

    /// Whether the document's one value has ended.
    fn is_whole(&self) -> bool {
        self.begun && self.depth == 0
    }

    fn value(self) -> Result<f64, Error> {
        match (self.missing, self.failed, self.sum) {
            (Some(missing), ..) => Err(Error::Missing(missing)),
            (None, Some(failed), _) => Err(failed),
            (None, None, Some(sum)) => Ok(sum),
            (None, None, None) => Err(Error::Missing(
                "the document has nothing where the pointer points".to_owned(),
            )),
        }
    }
}

fn malformed(wrong: &str) -> Error {
    Error::Malformed(wrong.to_owned())
}

#[cfg(test)]
mod tests;
