//! What is done to each number of a vector, and which functions of PromQL that makes possible.

use super::vector::Operator;

/// What is done to each number of a vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Function {
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

impl Function {
    /// The functions that there are, as they are written.
    pub const NAMES: [&str; 8] = [
        "abs",
        "ceil",
        "clamp",
        "clamp_max",
        "clamp_min",
        "floor",
        "round",
        "vector",
    ];

    /// Whether it turns the sign of a number round.
    pub fn reverses(self) -> bool {
        match self {
            Function::Negate | Function::From(_, Operator::Subtract) => true,
            Function::With(Operator::Multiply | Operator::Divide, number)
            | Function::From(number, Operator::Multiply | Operator::Divide) => number < 0.0,
            _ => false,
        }
    }

    pub fn apply(self, value: f64) -> f64 {
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
pub fn of_time(name: &str) -> bool {
    pub const NAMES: [&str; 25] = [
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
