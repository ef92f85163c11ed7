//! The values of expressions: series, and the operations of Prometheus on them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::Error;
use crate::inflight::exposition::Sample;

/// The label that holds a series' name.
pub const NAME: &str = "__name__";

/// A set of labels, the metric's name among them, sorted by name. None is empty: that is the same as not there.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// The labels and the name of a sample.
    pub fn of(sample: &Sample<'_>) -> Self {
        let name = std::iter::once((NAME.to_owned(), sample.name.to_owned()));
        let mut labels: Vec<(String, String)> = (sample.labels.iter())
            .filter(|(_, value)| !value.is_empty())
            .cloned()
            .chain(name)
            .collect();
        labels.sort_unstable();
        Self(labels)
    }

    /// Roughly the memory they take.
    pub fn size(&self) -> usize {
        (self.0.iter())
            .map(|(label, value)| label.len() + value.len() + 64)
            .sum()
    }

    fn filtered(&self, keep: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|(label, _)| keep(label))
                .cloned()
                .collect(),
        )
    }

    fn unnamed(self) -> Self {
        let mut labels = self;
        labels.0.retain(|(label, _)| label != NAME);
        labels
    }
}

/// As PromQL writes it.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.iter().find(|(label, _)| label == NAME);
        f.write_str(name.map_or("", |(_, name)| name))?;
        f.write_str("{")?;
        let rest = self.0.iter().filter(|(label, _)| label != NAME);
        for (i, (label, value)) in rest.enumerate() {
            write!(f, "{}{label}={value:?}", if i > 0 { "," } else { "" })?;
        }
        f.write_str("}")
    }
}

/// A series and its value now.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub labels: Labels,
    pub value: f64,
}

/// The labels by which series are told apart: `by` and `on`, or `without` and `ignoring`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grouping {
    By(Vec<String>),
    Without(Vec<String>),
}

impl Grouping {
    fn key(&self, labels: &Labels) -> Labels {
        match self {
            Grouping::By(names) => labels.filtered(|label| names.iter().any(|n| n == label)),
            Grouping::Without(names) => {
                labels.filtered(|label| label != NAME && names.iter().all(|n| n != label))
            }
        }
    }
}

/// An aggregation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aggregation {
    Sum,
    Min,
    Max,
    Avg,
    Count,
}

/// An aggregation's value, in the making.
#[derive(Debug, Clone)]
pub struct Total {
    aggregation: Aggregation,
    count: u64,
    value: f64,
}

impl Total {
    /// The total of nothing so far.
    pub fn new(aggregation: Aggregation) -> Self {
        Self {
            aggregation,
            count: 0,
            value: 0.0,
        }
    }

    /// Takes one more value.
    pub fn add(&mut self, value: f64) {
        let first = self.count == 0;
        self.count += 1;
        match self.aggregation {
            Aggregation::Sum | Aggregation::Avg => self.value += value,
            // What is not a number is neither less nor more, and stays only where there is nothing else.
            Aggregation::Min if first || value < self.value || self.value.is_nan() => {
                self.value = value;
            }
            Aggregation::Max if first || value > self.value || self.value.is_nan() => {
                self.value = value;
            }
            Aggregation::Min | Aggregation::Max | Aggregation::Count => {}
        }
    }

    /// The value; none of nothing.
    pub fn value(&self) -> Option<f64> {
        let count = self.count as f64;
        (self.count > 0).then_some(match self.aggregation {
            Aggregation::Sum | Aggregation::Min | Aggregation::Max => self.value,
            Aggregation::Avg => self.value / count,
            Aggregation::Count => count,
        })
    }
}

/// Aggregates each group of series into one.
pub fn aggregate(
    aggregation: Aggregation,
    grouping: &Grouping,
    vector: Vec<Series>,
) -> Vec<Series> {
    // In order, so that a page always comes to the same number, to the last bit.
    let mut totals: BTreeMap<Labels, Total> = BTreeMap::new();
    for series in vector {
        totals
            .entry(grouping.key(&series.labels))
            .or_insert_with(|| Total::new(aggregation))
            .add(series.value);
    }
    (totals.into_iter())
        .filter_map(|(labels, total)| total.value().map(|value| Series { labels, value }))
        .collect()
}

/// An arithmetic operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
}

impl Operator {
    /// The operator's result for two numbers.
    pub fn apply(self, left: f64, right: f64) -> f64 {
        match self {
            Operator::Add => left + right,
            Operator::Subtract => left - right,
            Operator::Multiply => left * right,
            Operator::Divide => left / right,
        }
    }
}

impl fmt::Display for Operator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Operator::Add => "+",
            Operator::Subtract => "-",
            Operator::Multiply => "*",
            Operator::Divide => "/",
        })
    }
}

/// Applies an operator to each pair of series whose labels match, one to one.
///
/// # Errors
/// When a series has several partners.
pub fn combine(
    operator: Operator,
    matching: &Grouping,
    left: Vec<Series>,
    right: Vec<Series>,
) -> Result<Vec<Series>, Error> {
    if left.is_empty() || right.is_empty() {
        return Ok(Vec::new());
    }
    let mut partners: HashMap<Labels, (f64, bool)> = HashMap::new();
    for series in right {
        let key = matching.key(&series.labels);
        if partners.insert(key, (series.value, false)).is_some() {
            return Err(Error::Ambiguous(format!(
                "more than one series on the right of {operator} matches {}",
                matching.key(&series.labels)
            )));
        }
    }
    let mut results = Vec::new();
    for series in left {
        let key = matching.key(&series.labels);
        let Some((partner, taken)) = partners.get_mut(&key) else {
            continue;
        };
        if std::mem::replace(taken, true) {
            return Err(Error::Ambiguous(format!(
                "more than one series on the left of {operator} matches {key}"
            )));
        }
        results.push(Series {
            labels: key.unnamed(),
            value: operator.apply(series.value, *partner),
        });
    }
    distinct(results)
}

/// A set operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetOperator {
    And,
    Or,
    Unless,
}

/// Chooses among the series of two vectors by whether their labels match.
pub fn choose(
    operator: SetOperator,
    matching: &Grouping,
    left: Vec<Series>,
    right: Vec<Series>,
) -> Vec<Series> {
    let keys = |side: &[Series]| -> HashSet<Labels> {
        side.iter()
            .map(|series| matching.key(&series.labels))
            .collect()
    };
    let (mut left, mut right) = (left, right);
    match operator {
        SetOperator::And => {
            let there = keys(&right);
            left.retain(|series| there.contains(&matching.key(&series.labels)));
        }
        SetOperator::Unless => {
            let there = keys(&right);
            left.retain(|series| !there.contains(&matching.key(&series.labels)));
        }
        SetOperator::Or => {
            let there = keys(&left);
            right.retain(|series| !there.contains(&matching.key(&series.labels)));
            left.append(&mut right);
        }
    }
    left
}

/// Applies a function to each value. The result is no longer the metric it was made of.
///
/// # Errors
/// When series can no longer be told apart without their names.
pub fn map(vector: Vec<Series>, function: impl Fn(f64) -> f64) -> Result<Vec<Series>, Error> {
    let mapped = vector.into_iter().map(|series| Series {
        labels: series.labels.unnamed(),
        value: function(series.value),
    });
    distinct(mapped.collect())
}

fn distinct(vector: Vec<Series>) -> Result<Vec<Series>, Error> {
    let mut seen = HashSet::new();
    match vector.iter().find(|series| !seen.insert(&series.labels)) {
        Some(twice) => Err(Error::Ambiguous(format!(
            "more than one series is {} without its metric's name",
            twice.labels
        ))),
        None => Ok(vector),
    }
}
