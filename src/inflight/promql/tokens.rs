//! An expression word by word: where in the text it asks for something that is not to be had.
//!
//! The parser's tree knows no columns, and its syntax errors have none; its tokens do. So what is not supported is
//! found here, among the tokens, before the parser sees them. That keeps from the parser, too, what it cannot take,
//! such as a range of 1e300 seconds.

use std::ops::Range;

use lrpar::{Lexeme as _, Lexer as _};
use promql_parser::parser::lexer;
use promql_parser::parser::token::*;

use super::function::{Function, of_time};
use super::vector::{Aggregation, Operator, SetOperator};

/// Far more than an expression for a count needs, and far less than what could exhaust the stack.
const MOST_TOKENS: usize = 1000;
/// The same, in bytes.
const LONGEST: usize = 4096;

const NO_OTHER_MOMENT: &str = "one scrape knows no other moment";

/// A piece of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Token {
    id: TokenId,
    start: usize,
    end: usize,
}

/// The tokens of an expression, looked through from left to right.
#[derive(Debug)]
pub struct Tokens<'t> {
    text: &'t str,
    tokens: Vec<Token>,
    /// The next one.
    at: usize,
    /// The parentheses that are open: whether each is a function's or an aggregation's.
    open: Vec<bool>,
    /// Where selectors stand in the text.
    selectors: Vec<Range<usize>>,
}

/// Why an expression is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyntaxError {
    /// It is not supported here, in words.
    Unsupported(String),
    /// No expression goes on like this, in words.
    Unexpected(String),
}

impl<'t> Tokens<'t> {
    /// Cuts an expression into its tokens.
    ///
    /// # Errors
    /// Says which of its characters make no token.
    pub fn of(text: &'t str) -> Result<Self, String> {
        if text.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let tokens: Vec<Token> = match lexer(text) {
            Ok(lexer) => (lexer.iter().flatten())
                .map(|lexeme| Token {
                    id: lexeme.tok_id(),
                    start: lexeme.span().start(),
                    end: lexeme.span().end(),
                })
                .collect(),
            Err(wrong) => {
                let column = column(text, invalid_from(text, &wrong));
                return Err(format!("{wrong} at column {column}"));
            }
        };
        if tokens.len() > MOST_TOKENS {
            return Err(format!("it has more than {MOST_TOKENS} parts"));
        }
        Ok(Self {
            text,
            tokens,
            at: 0,
            open: Vec::new(),
            selectors: Vec::new(),
        })
    }

    /// Looks for the first thing that is not supported or does not belong, and gives where the selectors stand.
    ///
    /// # Errors
    /// When there is one.
    pub fn review(mut self) -> Result<Vec<Range<usize>>, SyntaxError> {
        // Whether an operand comes next; an operator or the end does otherwise.
        let mut operand = true;
        while let Some(id) = self.id(0) {
            operand = match (id, operand) {
                (T_EOF, false) => return Ok(self.selectors),
                (T_LEFT_PAREN, true) => self.open(false),
                (T_RIGHT_PAREN, false) => self.close(),
                (T_RIGHT_PAREN, true) if self.is_call() && self.before() == Some(T_LEFT_PAREN) => {
                    self.close()
                }
                (T_COMMA, false) if self.is_call() => self.pass(true),
                (T_ADD | T_SUB, true) => self.pass(true),
                (T_NUMBER, true) => self.pass(false),
                (T_LEFT_BRACE, true) => self.selector(self.at)?,
                (T_STRING, true) => return Err(self.unsupported(0, "a text is not a count")),
                (T_DURATION, true) => return Err(self.unsupported(0, "a duration is not a count")),
                (T_LEFT_BRACKET, false) => {
                    let wrong = format!("a range of time; {NO_OTHER_MOMENT}");
                    return Err(self.unsupported(0, &wrong));
                }
                (T_AT | T_OFFSET, false) => {
                    let wrong = format!("another time than now; {NO_OTHER_MOMENT}");
                    return Err(self.unsupported(0, &wrong));
                }
                (T_BY | T_WITHOUT, false) => self.list(false)?,
                (_, false) if TokenType::new(id).is_operator() => self.operator(id)?,
                (T_BOOL | T_ON | T_IGNORING | T_GROUP_LEFT | T_GROUP_RIGHT | T_ATAN2, true) => {
                    return Err(self.unexpected());
                }
                (_, true) if self.is_word() => self.word(id)?,
                _ => return Err(self.unexpected()),
            };
        }
        Ok(self.selectors)
    }

    /// A metric, a function or an aggregation, as far as its opening parenthesis.
    fn word(&mut self, id: TokenId) -> Result<bool, SyntaxError> {
        let called = self.id(1) == Some(T_LEFT_PAREN);
        let grouped = matches!(self.id(1), Some(T_BY | T_WITHOUT));
        if TokenType::new(id).is_aggregator() && (called || grouped) {
            if aggregation(id).is_none() {
                return Err(self.unsupported(
                    0,
                    "an aggregation that is not supported; there are sum, min, max, avg and count",
                ));
            }
            self.pass(true);
            if grouped {
                self.list(true)?;
            }
            // Without its parenthesis, nothing that could be an operand follows.
            return match self.id(0) {
                Some(T_LEFT_PAREN) => Ok(self.open(true)),
                _ => Err(self.unexpected()),
            };
        }
        if called {
            let name = self.text(0).to_owned();
            if !Function::NAMES.contains(&name.as_str()) {
                let column = self.column(0);
                let wrong = match of_time(&name) {
                    true => format!("a function of time; {NO_OTHER_MOMENT}"),
                    false => format!(
                        "not a function that is supported; there are {}",
                        Function::NAMES.join(", ")
                    ),
                };
                return Err(SyntaxError::Unsupported(format!(
                    "{name}(...) at column {column}: {wrong}"
                )));
            }
            self.pass(true);
            return Ok(self.open(true));
        }
        let name = self.at;
        self.pass(false);
        self.selector(name)
    }

    /// The rest of a selector that began with that token.
    fn selector(&mut self, first: usize) -> Result<bool, SyntaxError> {
        if self.id(0) == Some(T_LEFT_BRACE) {
            self.matchers()?;
        }
        if let (Some(first), Some(last)) = (self.tokens.get(first), self.tokens.get(self.at - 1)) {
            self.selectors.push(first.start..last.end);
        }
        Ok(false)
    }

    /// What stands between braces.
    fn matchers(&mut self) -> Result<bool, SyntaxError> {
        while let Some(id) = self.id(0) {
            match id {
                T_RIGHT_BRACE => return Ok(self.pass(false)),
                T_LOR => {
                    return Err(
                        self.unsupported(0, "a choice between matchers, which is not supported")
                    );
                }
                T_EOF => break,
                _ => self.pass(false),
            };
        }
        Err(self.unexpected())
    }

    /// An operator between two operands, and how to match them.
    fn operator(&mut self, id: TokenId) -> Result<bool, SyntaxError> {
        if TokenType::new(id).is_comparison_operator() {
            return Err(self.unsupported(0, "comparisons are not supported"));
        }
        if operator(id).is_none() && set_operator(id).is_none() {
            let wrong = "an operator that is not supported; there are + - * / and or unless";
            return Err(self.unsupported(0, wrong));
        }
        self.pass(true);
        if let Some(T_ON | T_IGNORING) = self.id(0) {
            self.list(true)?;
        }
        match self.id(0) {
            Some(T_GROUP_LEFT | T_GROUP_RIGHT) => Err(self.unsupported(
                0,
                "matching several series to one is not supported; aggregate them first",
            )),
            Some(T_FILL | T_FILL_LEFT | T_FILL_RIGHT) => {
                Err(self.unsupported(0, "filling in for missing series is not supported"))
            }
            _ => Ok(true),
        }
    }

    /// A word and the list of labels in parentheses after it.
    fn list(&mut self, operand: bool) -> Result<bool, SyntaxError> {
        self.pass(operand);
        if self.id(0) != Some(T_LEFT_PAREN) {
            return Err(self.unexpected());
        }
        while let Some(id) = self.id(0) {
            match id {
                T_RIGHT_PAREN => return Ok(self.pass(operand)),
                T_EOF => break,
                _ => self.pass(operand),
            };
        }
        Err(self.unexpected())
    }

    fn open(&mut self, call: bool) -> bool {
        self.open.push(call);
        self.pass(true)
    }

    fn close(&mut self) -> bool {
        self.open.pop();
        self.pass(false)
    }

    /// Within the parentheses of a function or an aggregation.
    fn is_call(&self) -> bool {
        self.open.last() == Some(&true)
    }

    /// Goes on to the next token, before which an operand is due or not.
    fn pass(&mut self, operand: bool) -> bool {
        self.at += 1;
        operand
    }

    /// A token from the next one on.
    fn id(&self, ahead: usize) -> Option<TokenId> {
        self.tokens.get(self.at + ahead).map(|token| token.id)
    }

    fn before(&self) -> Option<TokenId> {
        let at = self.at.checked_sub(1)?;
        self.tokens.get(at).map(|token| token.id)
    }

    fn text(&self, ahead: usize) -> &'t str {
        let token = self.tokens.get(self.at + ahead);
        token
            .and_then(|token| self.text.get(token.start..token.end))
            .unwrap_or_default()
    }

    fn is_word(&self) -> bool {
        let first = self.text(0).chars().next();
        first.is_some_and(|c| c.is_alphabetic() || c == '_' || c == ':')
    }

    fn column(&self, ahead: usize) -> usize {
        let token = self.tokens.get(self.at + ahead);
        column(self.text, token.map_or(self.text.len(), |t| t.start))
    }

    fn unsupported(&self, ahead: usize, why: &str) -> SyntaxError {
        let (text, column) = (self.text(ahead), self.column(ahead));
        SyntaxError::Unsupported(format!("{text} at column {column}: {why}"))
    }

    fn unexpected(&self) -> SyntaxError {
        let column = self.column(0);
        SyntaxError::Unexpected(match self.text(0) {
            "" => format!("it ends too early, at column {column}"),
            text => format!("unexpected {text} at column {column}"),
        })
    }
}

/// The aggregation that a token names.
pub fn aggregation(id: TokenId) -> Option<Aggregation> {
    match id {
        T_SUM => Some(Aggregation::Sum),
        T_MIN => Some(Aggregation::Min),
        T_MAX => Some(Aggregation::Max),
        T_AVG => Some(Aggregation::Avg),
        T_COUNT => Some(Aggregation::Count),
        _ => None,
    }
}

/// The arithmetic operator that a token names.
pub fn operator(id: TokenId) -> Option<Operator> {
    match id {
        T_ADD => Some(Operator::Add),
        T_SUB => Some(Operator::Subtract),
        T_MUL => Some(Operator::Multiply),
        T_DIV => Some(Operator::Divide),
        _ => None,
    }
}

/// The set operator that a token names.
pub fn set_operator(id: TokenId) -> Option<SetOperator> {
    match id {
        T_LAND => Some(SetOperator::And),
        T_LOR => Some(SetOperator::Or),
        T_LUNLESS => Some(SetOperator::Unless),
        _ => None,
    }
}

/// Where the text becomes invalid in this way: every beginning of it that is longer is invalid too.
fn invalid_from(text: &str, wrong: &str) -> usize {
    let ends = text
        .char_indices()
        .rev()
        .map(|(start, c)| (start, start + c.len_utf8()));
    let mut invalid = text.len();
    for (start, end) in ends {
        match lexer(&text[..end]) {
            Err(e) if e == wrong => invalid = start,
            _ => break,
        }
    }
    invalid
}

/// Counted from one, in characters.
fn column(text: &str, at: usize) -> usize {
    text[..at].chars().count() + 1
}
