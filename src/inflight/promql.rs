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
        let unexpected = match Tokens::of(text)?.review() {
            Ok(()) => None,
            Err(SyntaxError::Unsupported(why)) => return Err(why),
            Err(SyntaxError::Unexpected(what)) => Some(what),
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
        if let Some(failed) = self.failed {
            return Err(failed);
        }
        let series = self.query.root.evaluate(&mut self.matches)?;
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
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ambiguous(what) => f.write_str(what),
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
