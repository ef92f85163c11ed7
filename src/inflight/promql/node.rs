//! An expression as a tree: built from what the parser gives, evaluated over the series of one page.

use promql_parser::parser::{
    AggregateExpr, BinModifier, BinaryExpr, Call, Expr, LabelModifier, VectorMatchCardinality,
};

use super::function::Function;
use super::selector::Selector;
use super::vector::{self, Aggregation, Grouping, Labels, Operator, Series, SetOperator};
use super::{Error, Matches, Parts, Selection, tokens};

/// A part of an expression. Nothing but a selector depends on the page, so all else that is a scalar is a number.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Number(f64),
    /// `vector(N)`.
    Constant(f64),
    /// What one of the query's selections gave.
    Selected(usize),
    Aggregate(Aggregation, Grouping, Box<Node>),
    Function(Function, Box<Node>),
    Arithmetic(Operator, Grouping, Box<(Node, Node)>),
    Set(SetOperator, Grouping, Box<(Node, Node)>),
}

impl Node {
    pub(super) fn new(parsed: Expr, selections: &mut Vec<Selection>) -> Result<Self, String> {
        match parsed {
            Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
            Expr::Paren(inner) => Node::new(*inner.expr, selections),
            Expr::VectorSelector(parsed) => {
                selections.push(Selection {
                    selector: Selector::new(parsed)?,
                    total: None,
                });
                Ok(Node::Selected(selections.len() - 1))
            }
            Expr::Unary(inner) => Ok(Node::new(*inner.expr, selections)?.through(Function::Negate)),
            Expr::Aggregate(parsed) => Node::aggregate(parsed, selections),
            Expr::Binary(parsed) => Node::binary(parsed, selections),
            Expr::Call(parsed) => Node::call(parsed, selections),
            Expr::StringLiteral(_)
            | Expr::MatrixSelector(_)
            | Expr::Subquery(_)
            | Expr::Extension(_) => Err(unsupported()),
        }
    }

    fn aggregate(parsed: AggregateExpr, selections: &mut Vec<Selection>) -> Result<Self, String> {
        let aggregation = tokens::aggregation(parsed.op.id()).ok_or_else(unsupported)?;
        let grouping = parsed.modifier.map_or(Grouping::By(Vec::new()), grouping);
        let inner = Node::new(*parsed.expr, selections)?;
        match (&inner, &grouping) {
            (&Node::Selected(only), Grouping::By(labels))
                if labels.is_empty() && selections[only].total.is_none() =>
            {
                selections[only].total = Some(aggregation);
                Ok(inner)
            }
            _ => Ok(Node::Aggregate(aggregation, grouping, Box::new(inner))),
        }
    }

    fn binary(parsed: BinaryExpr, selections: &mut Vec<Selection>) -> Result<Self, String> {
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
        let left = Node::new(*parsed.lhs, selections)?;
        let right = Node::new(*parsed.rhs, selections)?;
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

    fn call(parsed: Call, selections: &mut Vec<Selection>) -> Result<Self, String> {
        let mut vector = None;
        let mut numbers = Vec::new();
        for argument in parsed.args.args {
            match Node::new(*argument, selections)? {
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

    /// The series it comes to; a number is a series without labels. What goes into sums and differences is checked.
    pub(super) fn evaluate(
        &self,
        matches: &mut [Matches],
        parts: &mut Parts,
    ) -> Result<Vec<Series>, Error> {
        match self {
            Node::Number(value) | Node::Constant(value) => Ok(vec![Series {
                labels: Labels::default(),
                value: *value,
            }]),
            Node::Selected(which) => Ok(matches[*which].take()),
            Node::Aggregate(aggregation, grouping, inner) => {
                let series = inner.evaluate(matches, parts)?;
                if *aggregation != Aggregation::Count && !inner.is_reversed() {
                    parts.check_all(&series);
                }
                Ok(vector::aggregate(*aggregation, grouping, series))
            }
            Node::Function(function, inner) => {
                vector::map(inner.evaluate(matches, parts)?, |value| {
                    function.apply(value)
                })
            }
            Node::Arithmetic(operator, matching, sides) => {
                let mut operand = |node: &Node| {
                    let series = node.evaluate(matches, parts)?;
                    if let Node::Selected(_) = node {
                        parts.check_all(&series);
                    }
                    Ok::<_, Error>(series)
                };
                let (left, right) = (operand(&sides.0)?, operand(&sides.1)?);
                vector::combine(*operator, matching, left, right)
            }
            Node::Set(operator, matching, sides) => {
                let left = sides.0.evaluate(matches, parts)?;
                let right = sides.1.evaluate(matches, parts)?;
                Ok(vector::choose(*operator, matching, left, right))
            }
        }
    }

    /// Whether the user turned its sign round, so that a negative part is meant to be.
    fn is_reversed(&self) -> bool {
        match self {
            Node::Constant(value) => *value < 0.0,
            Node::Function(function, inner) => function.reverses() || inner.is_reversed(),
            Node::Set(_, _, sides) => sides.0.is_reversed() || sides.1.is_reversed(),
            Node::Number(_) | Node::Selected(_) | Node::Aggregate(..) | Node::Arithmetic(..) => {
                false
            }
        }
    }
}

/// The review of the tokens should have refused it already; tests check that both agree.
pub fn unsupported() -> String {
    "it has something that is not supported".to_owned()
}

fn grouping(parsed: LabelModifier) -> Grouping {
    match parsed {
        LabelModifier::Include(labels) => Grouping::By(labels.labels),
        LabelModifier::Exclude(labels) => Grouping::Without(labels.labels),
    }
}
