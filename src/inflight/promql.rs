//! The expression after a Prometheus source's `#`: PromQL over one scrape.
//!
//! Parsed by a real PromQL parser, evaluated here as Prometheus would. What is not supported is refused by name when
//! the configuration is read, never at the hour of a drain.
//!
//! A page streams past: of each series that a selector wants, its value goes into a total where the expression asks
//! for no more than that; else the series is kept until the page is whole. No memory is spent on any other.

mod selector;
mod tokens;
mod vector;

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;

use promql_parser::parser::{
    self, AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
};

use super::exposition::{Names, Sample};
use selector::Selector;
use tokens::{Objection, Tokens};
use vector::{Aggregation, Grouping, Labels, Operator, Series, SetOperator, Total};

/// The most series that one expression may want of a page.
const MOST_SERIES: usize = 100_000;
/// The most memory, roughly, that the labels of the series kept may take.
const MOST_MEMORY: usize = 16 * 1024 * 1024;

/// A parsed expression.
#[derive(Debug, Clone)]
pub struct Query {
    names: Names,
    wants: Vec<Want>,
    root: Node,
}

/// What a selector's series are wanted for.
#[derive(Debug, Clone)]
struct Want {
    selector: Selector,
    /// The one thing that is asked of them; none where they have to be kept.
    total: Option<Aggregation>,
}

/// A part of an expression. Nothing but a selector depends on the page, so all else that is a scalar is a number.
#[derive(Debug, Clone)]
enum Node {
    Number(f64),
    /// `vector(N)`.
    Constant(f64),
    /// What one of the query's wants gave.
    Selected(usize),
    Aggregate(Aggregation, Grouping, Box<Node>),
    Function(Function, Box<Node>),
    Arithmetic(Operator, Grouping, Box<(Node, Node)>),
    Set(SetOperator, Grouping, Box<(Node, Node)>),
}

/// What is done to each number of a vector.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Function {
    Abs,
    Ceil,
    Floor,
    Negate,
    Clamp(f64, f64),
    Round(f64),
    /// An operator, and the number on its left or on its right.
    From(f64, Operator),
    With(Operator, f64),
}

impl Query {
    /// Parses an expression.
    ///
    /// # Errors
    /// Says what of it is no PromQL, or is PromQL that is not supported here, and at which column.
    pub fn parse(text: &str) -> Result<Self, String> {
        let unexpected = match Tokens::of(text)?.review() {
            Ok(()) => None,
            Err(Objection::Refused(why)) => return Err(why),
            Err(Objection::Unexpected(what)) => Some(what),
        };
        // Where the parser has no words of its own, its columns are all there is to say.
        let parsed = parser::parse(text).map_err(|e| match unexpected {
            Some(what) if e == NO_WORDS => what,
            Some(what) => format!("{e}: {what}"),
            None => e,
        })?;
        let mut wants = Vec::new();
        let root = match Node::new(parsed, &mut wants)? {
            // The series that are left are summed, so that of a bare selector's nothing else is wanted.
            Node::Selected(only) => {
                wants[only].total.get_or_insert(Aggregation::Sum);
                Node::Selected(only)
            }
            root => root,
        };
        let known: Option<Vec<&[String]>> = (wants.iter())
            .map(|want| want.selector.names.as_deref())
            .collect();
        Ok(Self {
            names: known.map_or(Names::Any, |known| Names::of(known.concat())),
            wants,
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
            .wants
            .iter()
            .filter_map(|want| want.selector.names.as_ref());
        let mut names: Vec<&str> = names.flatten().map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names
    }

    /// Begins an evaluation over one scrape.
    pub fn begin(&self) -> Evaluation<'_> {
        Evaluation {
            query: self,
            found: (self.wants.iter())
                .map(|want| Found {
                    series: Vec::new(),
                    total: want.total.map(Total::new),
                    seen: HashSet::new(),
                })
                .collect(),
            hasher: RandomState::new(),
            memory: 0,
            failed: None,
        }
    }
}

/// All that the parser says of most errors.
const NO_WORDS: &str = "invalid promql query";

impl Node {
    fn new(parsed: Expr, wants: &mut Vec<Want>) -> Result<Self, String> {
        match parsed {
            Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
            Expr::Paren(inner) => Node::new(*inner.expr, wants),
            Expr::VectorSelector(parsed) => {
                wants.push(Want {
                    selector: Selector::new(parsed)?,
                    total: None,
                });
                Ok(Node::Selected(wants.len() - 1))
            }
            Expr::Unary(inner) => Ok(Node::new(*inner.expr, wants)?.through(Function::Negate)),
            Expr::Aggregate(parsed) => Node::aggregate(parsed, wants),
            Expr::Binary(parsed) => Node::binary(parsed, wants),
            Expr::Call(parsed) => Node::call(parsed, wants),
            Expr::StringLiteral(_)
            | Expr::MatrixSelector(_)
            | Expr::Subquery(_)
            | Expr::Extension(_) => Err(unsupported()),
        }
    }

    fn aggregate(parsed: AggregateExpr, wants: &mut Vec<Want>) -> Result<Self, String> {
        let aggregation = tokens::aggregation(parsed.op.id()).ok_or_else(unsupported)?;
        let grouping = parsed.modifier.map_or(Grouping::By(Vec::new()), grouping);
        let inner = Node::new(*parsed.expr, wants)?;
        match (&inner, &grouping) {
            (&Node::Selected(only), Grouping::By(labels))
                if labels.is_empty() && wants[only].total.is_none() =>
            {
                wants[only].total = Some(aggregation);
                Ok(inner)
            }
            _ => Ok(Node::Aggregate(aggregation, grouping, Box::new(inner))),
        }
    }

    fn binary(parsed: BinaryExpr, wants: &mut Vec<Want>) -> Result<Self, String> {
        let matching = match parsed.modifier {
            None => Grouping::Without(Vec::new()),
            Some(BinModifier {
                card: VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany,
                matching,
                return_bool: false,
                ..
            }) => matching.map_or(Grouping::Without(Vec::new()), grouping),
            Some(_) => return Err(unsupported()),
        };
        let left = Node::new(*parsed.lhs, wants)?;
        let right = Node::new(*parsed.rhs, wants)?;
        if let Some(operator) = tokens::set_operator(parsed.op.id()) {
            return Ok(Node::Set(operator, matching, Box::new((left, right))));
        }
        let operator = tokens::operator(parsed.op.id()).ok_or_else(unsupported)?;
        Ok(match (left, right) {
            (left, Node::Number(right)) => left.through(Function::With(operator, right)),
            (Node::Number(left), right) => right.through(Function::From(left, operator)),
            both => Node::Arithmetic(operator, matching, Box::new(both)),
        })
    }

    fn call(parsed: Call, wants: &mut Vec<Want>) -> Result<Self, String> {
        let mut vector = None;
        let mut numbers = Vec::new();
        for argument in parsed.args.args {
            match Node::new(*argument, wants)? {
                Node::Number(number) => numbers.push(number),
                other => vector = Some(other),
            }
        }
        let function = match (parsed.func.name, numbers.as_slice()) {
            ("vector", &[number]) => return Ok(Node::Constant(number)),
            ("abs", []) => Function::Abs,
            ("ceil", []) => Function::Ceil,
            ("floor", []) => Function::Floor,
            ("clamp", &[min, max]) if min > max => {
                return Err(format!("clamp(...) has nothing between {min} and {max}"));
            }
            ("clamp", &[min, max]) => Function::Clamp(min, max),
            ("clamp_min", &[min]) => Function::Clamp(min, f64::INFINITY),
            ("clamp_max", &[max]) => Function::Clamp(f64::NEG_INFINITY, max),
            ("round", []) => Function::Round(1.0),
            ("round", &[nearest]) => Function::Round(nearest),
            _ => return Err(unsupported()),
        };
        Ok(vector.ok_or_else(unsupported)?.through(function))
    }

    fn through(self, function: Function) -> Self {
        match self {
            Node::Number(number) => Node::Number(function.apply(number)),
            vector => Node::Function(function, Box::new(vector)),
        }
    }

    /// The series it comes to; a number is a series without labels.
    fn evaluate(&self, found: &mut [Found]) -> Result<Vec<Series>, Error> {
        match self {
            Node::Number(value) | Node::Constant(value) => Ok(vec![Series {
                labels: Labels::default(),
                value: *value,
            }]),
            Node::Selected(which) => Ok(found[*which].take()),
            Node::Aggregate(aggregation, grouping, inner) => {
                let inner = inner.evaluate(found)?;
                Ok(vector::aggregate(*aggregation, grouping, inner))
            }
            Node::Function(function, inner) => {
                vector::map(inner.evaluate(found)?, |value| function.apply(value))
            }
            Node::Arithmetic(operator, matching, sides) => {
                let (left, right) = (sides.0.evaluate(found)?, sides.1.evaluate(found)?);
                vector::combine(*operator, matching, left, right)
            }
            Node::Set(operator, matching, sides) => {
                let (left, right) = (sides.0.evaluate(found)?, sides.1.evaluate(found)?);
                Ok(vector::choose(*operator, matching, left, right))
            }
        }
    }
}

/// What the tokens should have told; the parser and they are tested to agree.
fn unsupported() -> String {
    "it has something that is not supported".to_owned()
}

fn grouping(parsed: LabelModifier) -> Grouping {
    match parsed {
        LabelModifier::Include(labels) => Grouping::By(labels.labels),
        LabelModifier::Exclude(labels) => Grouping::Without(labels.labels),
    }
}

impl Function {
    /// The functions that there are, as they are written.
    const NAMES: [&str; 8] = [
        "abs",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "floor",
        "round",
        "vector",
    ];

    fn apply(self, value: f64) -> f64 {
        match self {
            Function::Abs => value.abs(),
            Function::Ceil => value.ceil(),
            Function::Floor => value.floor(),
            Function::Negate => -value,
            // In Rust, but not in Prometheus, the lesser of a number and none is the number.
            Function::Clamp(min, max) if value.is_nan() || min.is_nan() || max.is_nan() => f64::NAN,
            Function::Clamp(min, max) => value.min(max).max(min),
            // As Prometheus does it, half of the way goes up.
            Function::Round(nearest) => {
                let inverse = 1.0 / nearest;
                (value * inverse + 0.5).floor() / inverse
            }
            Function::From(left, operator) => operator.apply(left, value),
            Function::With(operator, right) => operator.apply(value, right),
        }
    }
}

/// Whether a function of that name needs to know the time or the past.
fn of_time(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        "changes",
        "day_of_month",
        "day_of_week",
        "day_of_year",
        "days_in_month",
        "delta",
        "deriv",
        "double_exponential_smoothing",
        "end",
        "holt_winters",
        "hour",
        "idelta",
        "increase",
        "irate",
        "minute",
        "month",
        "predict_linear",
        "rate",
        "resets",
        "start",
        "start_timestamp",
        "step",
        "time",
        "timestamp",
        "year",
    ];
    name.ends_with("_over_time") || NAMES.contains(&name)
}

/// An expression's value, in the making.
#[derive(Debug)]
pub struct Evaluation<'q> {
    query: &'q Query,
    found: Vec<Found>,
    hasher: RandomState,
    memory: usize,
    failed: Option<Error>,
}

/// What one selector has found.
#[derive(Debug)]
struct Found {
    series: Vec<Series>,
    total: Option<Total>,
    /// A hash of each series, so that none counts twice: a page that has one twice cannot be believed.
    seen: HashSet<u64>,
}

impl Found {
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
        for (want, found) in self.query.wants.iter().zip(&mut self.found) {
            if !want.selector.matches(sample) {
                continue;
            }
            let hash = *hash.get_or_insert_with(|| identity(&self.hasher, sample));
            if !found.seen.insert(hash) {
                let twice = Labels::of(sample);
                self.failed = Some(Error::Ambiguous(format!("the page has {twice} twice")));
            } else if found.seen.len() > MOST_SERIES {
                self.failed = Some(Error::TooMany);
            } else if let Some(total) = &mut found.total {
                total.add(sample.value);
            } else {
                let labels = Labels::of(sample);
                self.memory += labels.size();
                if self.memory > MOST_MEMORY {
                    self.failed = Some(Error::TooMany);
                }
                found.series.push(Series {
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
        let series = self.query.root.evaluate(&mut self.found)?;
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
    /// Which series belong together cannot be told: what cannot, in words.
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
