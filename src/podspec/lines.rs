//! Lines as YAML has them: a line feed ends one, a carriage return does, and both together do.

/// What a line ends with.
pub const BREAKS: [char; 2] = ['\n', '\r'];

/// Where the line begins that this byte is in.
pub fn start(text: &str, at: usize) -> usize {
    text[..at].rfind(BREAKS).map_or(0, |at| at + 1)
}

/// Where the line ends that this byte is in, before what ends it.
pub fn end(text: &str, at: usize) -> usize {
    text[at..].find(BREAKS).map_or(text.len(), |n| at + n)
}

/// Where the line after that begins, or the text ends.
pub fn next(text: &str, at: usize) -> usize {
    let end = end(text, at);
    let rest = &text[end..];
    end + match rest.starts_with("\r\n") {
        true => 2,
        false => rest.len().min(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_line_ends_once() {
        let text = "a\nbc\r\nd\re";
        let lines = [(0, 1, 2), (2, 4, 6), (6, 7, 8), (8, 9, 9)];
        for (begins, ends, follows) in lines {
            for at in begins..=ends {
                let seen = (start(text, at), end(text, at), next(text, at));
                assert_eq!(seen, (begins, ends, follows), "{at}");
            }
        }
    }
}
