//! A page that is one number.

use super::Error;

/// The longest page, in bytes: many times what a number takes, and white space around it.
pub const LONGEST: usize = 64;

/// Reads the number.
///
/// # Errors
/// When the page is anything else.
pub fn parse(page: &[u8]) -> Result<f64, Error> {
    let text = String::from_utf8_lossy(page.trim_ascii());
    if text.is_empty() {
        return Err(Error::CutOff("it is empty"));
    }
    text.parse()
        .map_err(|_| Error::Malformed(format!("{text:?} is not a number")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn white_space_around_the_number_does_not_matter() {
        for (page, value) in [
            ("3", 3.0),
            (" 0\r\n", 0.0),
            ("\n2.5\n\n", 2.5),
            ("1e2", 100.0),
        ] {
            assert_eq!(parse(page.as_bytes()).unwrap(), value);
        }
    }

    #[test]
    fn what_is_no_number_is_an_error() {
        for page in [
            "",
            " \n",
            "three",
            "3 requests",
            "1,000",
            "0x10",
            "3;",
            "<html>0</html>",
            "\u{0}",
        ] {
            let e = parse(page.as_bytes()).unwrap_err();
            assert!(matches!(e.kind(), "malformed" | "truncated"), "{page}: {e}");
        }
        assert!(parse(b"\xff").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(page in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = parse(&page);
        }
    }
}
