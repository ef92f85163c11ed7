//! Where in a JSON document the value is: an RFC 6901 pointer.

/// Where in a document the value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(pub(super) Vec<Token>);

/// One step of a pointer's path: the name of an object's member, and the index of an array's if it can be one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    pub name: String,
    pub index: Option<u64>,
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
