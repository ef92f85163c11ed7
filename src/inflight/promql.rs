//! The expression after a Prometheus source's `#`: PromQL over one scrape.
//!
//! Parsed by a real PromQL parser, evaluated here as Prometheus would. What is not supported is refused by name when
//! the configuration is read, never during a drain.
//!
//! A page streams past: of each series that a selector wants, its value goes into a total where the expression asks
//! for no more than that; else the series is kept until the page is whole. No memory is spent on any other.

mod function;
mod node;
mod selector;
mod tokens;
mod vector;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::ops::Range;

use promql_parser::parser;

use super::exposition::{Names, Sample};
use node::Node;
use selector::Selector;
use tokens::{SyntaxError, Tokens};
use vector::{Aggregation, Labels, Series, Total};

/// The most series that one expression may want of a page.
const MOST_SERIES: usize = 100_000;
/// The most memory, roughly, that the labels of the series kept may take.
const MOST_MEMORY: usize = 16 * 1024 * 1024;

/// All that the parser says of most errors.
const NO_WORDS: &str = "invalid promql query";

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Query {
    /// As it was written.
    text: String,
    /// Where its selectors stand in the text.
    spans: Vec<Range<usize>>,
    names: Names,
    selections: Vec<Selection>,
    root: Node,
}

/// A selector of the expression, and what the expression asks of its series.
#[derive(Debug, Clone)]
struct Selection {
    selector: Selector,
    /// The one aggregation that is asked for; none where the series have to be kept.
    total: Option<Aggregation>,
}

impl Query {
    /// Parses an expression.
    ///
    /// # Errors
    /// Says what of it is no PromQL, or is PromQL that is not supported here, and at which column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (spans, unexpected) = match Tokens::of(text)?.review() {
            Ok(spans) => (spans, None),
            Err(SyntaxError::Unsupported(why)) => return Err(why),
            Err(SyntaxError::Unexpected(what)) => (Vec::new(), Some(what)),
        };
        // Where the parser has no words of its own, its columns are all there is to say.
        let parsed = parser::parse(text).map_err(|e| match unexpected {
            Some(what) if e == NO_WORDS => what,
            Some(what) => format!("{e}: {what}"),
            None => e,
        })?;
        let mut selections = Vec::new();
        let root = match Node::new(parsed, &mut selections)? {
            // The series that are left are summed, so that of a bare selector's nothing else is wanted.
            Node::Selected(only) => {
                selections[only].total.get_or_insert(Aggregation::Sum);
                Node::Selected(only)
            }
            root => root,
        };
        let known: Option<Vec<&[String]>> = (selections.iter())
            .map(|selection| selection.selector.names.as_deref())
            .collect();
        Ok(Self {
            text: text.to_owned(),
            spans,
            names: known.map_or(Names::Any, |known| Names::of(known.concat())),
            selections,
            root,
        })
    }

    /// Which lines of a page the expression needs.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// The names of the metrics it needs; those that only a pattern names are not known.
    pub fn wanted(&self) -> Vec<&str> {
        let names = self
            .selections
            .iter()
            .filter_map(|selection| selection.selector.names.as_ref());
        let mut names: Vec<&str> = names.flatten().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// The expression that takes series which are not there yet as 0; none where it may do so already, or where a zero
    /// more would be another value.
    pub fn with_zeros(&self) -> Option<String> {
        let other = ["vector", "count", "avg", "min", "unless", "and"];
        let mut words = (self.text).split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        if self.spans.is_empty() || words.any(|word| other.contains(&word)) {
            return None;
        }
        let mut written = String::new();
        let mut end = 0;
        for span in &self.spans {
            let (before, selector) = (&self.text[end..span.start], &self.text[span.clone()]);
            let alone = self.text[..span.start].trim_end().ends_with('(')
                && self.text[span.end..].trim_start().starts_with(')');
            written += before;
            written += &match alone {
                true => format!("{selector} or vector(0)"),
                false => format!("sum({selector} or vector(0))"),
            };
            end = span.end;
        }
        Some(written + &self.text[end..])
    }

    /// Begins an evaluation over one scrape.
    pub fn begin(&self) -> Evaluation<'_> {
        Evaluation {
            query: self,
            matches: (self.selections.iter())
                .map(|selection| Matches {
                    series: Vec::new(),
                    total: selection.total.map(Total::new),
                    seen: HashSet::new(),
                })
                .collect(),
            hasher: RandomState::new(),
            memory: 0,
            failed: None,
            parts: Parts::default(),
        }
    }
}

/// An expression's value, in the making.
#[derive(Debug)]
pub struct Evaluation<'q> {
    query: &'q Query,
    matches: Vec<Matches>,
    hasher: RandomState,
    memory: usize,
    failed: Option<Error>,
    parts: Parts,
}

/// What goes into sums, each part of which has to be a count of its own: 5 and -5 are not no work.
#[derive(Debug, Default)]
struct Parts {
    /// The first part that is no count, and its value.
    impossible: Option<String>,
}

impl Parts {
    fn check(&mut self, value: f64, labels: impl FnOnce() -> Labels) {
        if self.impossible.is_none() && (value < 0.0 || value.is_nan()) {
            self.impossible = Some(format!("{} with {value}", labels()));
        }
    }

    fn check_all(&mut self, vector: &[Series]) {
        for series in vector {
            self.check(series.value, || series.labels.clone());
        }
    }
}

/// The series of the page that one selector matches.
#[derive(Debug)]
struct Matches {
    series: Vec<Series>,
    total: Option<Total>,
    /// A hash of each series, so that none counts twice: a page that has one twice cannot be believed.
    seen: HashSet<u64>,
}

impl Matches {
    fn take(&mut self) -> Vec<Series> {
        let total = self.total.take().and_then(|total| total.value());
        let total = total.map(|value| Series {
            labels: Labels::default(),
            value,
        });
        let mut series = std::mem::take(&mut self.series);
        series.extend(total);
        series
    }
}

impl Evaluation<'_> {
    /// Takes one sample of the scrape.
    pub fn take(&mut self, sample: &Sample<'_>) {
        if self.failed.is_some() {
            return;
        }
        let mut hash = None;
        for (selection, matches) in self.query.selections.iter().zip(&mut self.matches) {
            if !selection.selector.matches(sample) {
                continue;
            }
            let hash = *hash.get_or_insert_with(|| identity(&self.hasher, sample));
            if !matches.seen.insert(hash) {
                let twice = Labels::of(sample);
                self.failed = Some(Error::Ambiguous(format!("the page has {twice} twice")));
            } else if matches.seen.len() > MOST_SERIES {
                self.failed = Some(Error::TooMany);
            } else if let Some(total) = &mut matches.total {
                if selection.total != Some(Aggregation::Count) {
                    self.parts.check(sample.value, || Labels::of(sample));
                }
                total.add(sample.value);
            } else {
                let labels = Labels::of(sample);
                self.memory += labels.size();
                if self.memory > MOST_MEMORY {
                    self.failed = Some(Error::TooMany);
                }
                matches.series.push(Series {
                    labels,
                    value: sample.value,
                });
            }
        }
    }

    /// The value once the scrape is whole: the sum of the series that the expression comes to; none where there are
    /// none.
    ///
    /// # Errors
    /// When the page and the expression allow of more than one value, or the page is too big.
    pub fn finish(mut self) -> Result<Option<f64>, Error> {
        self.evaluate()
    }

    /// As [`finish`](Self::finish), but of a sum each part has to be a count of its own.
    ///
    /// # Errors
    /// As [`finish`](Self::finish), and when a part is negative or not a number.
    pub fn count(mut self) -> Result<Option<f64>, Error> {
        let value = self.evaluate()?;
        match self.parts.impossible {
            Some(part) => Err(Error::Impossible(part)),
            None => Ok(value),
        }
    }

    fn evaluate(&mut self) -> Result<Option<f64>, Error> {
        if let Some(failed) = self.failed.take() {
            return Err(failed);
        }
        let series = (self.query.root).evaluate(&mut self.matches, &mut self.parts)?;
        if series.len() > 1 {
            self.parts.check_all(&series);
        }
        let mut sum = Total::new(Aggregation::Sum);
        for series in series {
            sum.add(series.value);
        }
        Ok(sum.value())
    }
}

/// A hash of a sample's name and labels, in whatever order they come.
fn identity(hasher: &RandomState, sample: &Sample<'_>) -> u64 {
    let labels = sample.labels.iter().filter(|(_, value)| !value.is_empty());
    labels.fold(hasher.hash_one(sample.name), |sum, label| {
        sum.wrapping_add(hasher.hash_one(label))
    })
}

/// Why an expression has no value on a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// It is not clear which series belong together: which ones, in words.
    Ambiguous(String),
    /// More series, or longer ones, than are kept.
    TooMany,
    /// A part of it can be no count: which one, and its value.
    Impossible(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ambiguous(what) => f.write_str(what),
            Error::Impossible(part) => write!(
                f,
                "a part of it, {part}, is not a count, so that the whole is none; if that part means nothing, write \
                 clamp_min(..., 0) around it"
            ),
            Error::TooMany => write!(
                f,
                "the selector matches more series than can be kept, which is {MOST_SERIES} or {} MiB",
                MOST_MEMORY / 1024 / 1024
            ),
        }
    }
}

#[cfg(test)]
mod tests;
