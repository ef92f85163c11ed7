//! Where in a JSON document the value is: an RFC 6901 pointer, and `*` for every member of an array or object.

/// Where in a document the value is, or the values that are summed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(pub(super) Vec<Step>);

/// One step of a pointer's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// One member: its name in an object, and its index in an array if it can be one.
    Member { name: String, index: Option<u64> },
    /// `*`: every member.
    Every,
}

impl Pointer {
    /// Parses a pointer such as `/workers/0/busy` or `/workers/*/busy`. The empty one is the whole document.
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
            .map(Step::parse)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether several values may be summed.
    pub fn is_sum(&self) -> bool {
        self.0.contains(&Step::Every)
    }
}

impl Step {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Step::Every);
        }
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
        Ok(Step::Member { name, index })
    }
}
