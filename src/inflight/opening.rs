//! What a page is, by its first bytes: a web page that asks for a login must not be read as metrics without a series.
//!
//! Many servers name a wrong Content-Type, so it decides only where the first bytes say nothing.

use super::exposition::line::is_sample;

/// How much of a page is looked at, in bytes.
const KEPT: usize = 1024;

/// The longest quote of a page in a message, in characters.
const LONGEST_QUOTE: usize = 80;

/// UTF-8's byte order mark.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// What a page should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Prometheus' text format or OpenMetrics.
    Metrics,
    /// A JSON document.
    Json,
    /// A number, or nginx's status page.
    Text,
}

/// The first bytes of a page and its Content-Type.
#[derive(Debug)]
pub struct Opening {
    content_type: String,
    kept: Vec<u8>,
    /// There is more of the page than is kept.
    more: bool,
}

impl Opening {
    /// Nothing of the page has come yet.
    pub fn new(content_type: Option<&[u8]>) -> Self {
        let content_type = String::from_utf8_lossy(content_type.unwrap_or_default());
        Self {
            content_type: content_type.to_ascii_lowercase(),
            kept: Vec::new(),
            more: false,
        }
    }

    /// Takes the next piece, and says whether that was the last one needed.
    pub fn take(&mut self, piece: &[u8]) -> bool {
        let before = self.kept.len();
        let room = KEPT - before;
        self.kept.extend_from_slice(&piece[..piece.len().min(room)]);
        self.more |= piece.len() > room;
        before < KEPT && self.kept.len() == KEPT
    }

    /// Why the page cannot be what is expected, if it cannot: what it is instead, and what to do.
    pub fn objection(&self, expected: Expected) -> Option<String> {
        if self.kept.starts_with(BOM) {
            let what = "it begins with a byte order mark (BOM), so that its first line cannot be read; write it as UTF-8 \
                        without one";
            return Some(what.to_owned());
        }
        let wanted = match expected {
            Expected::Metrics => "not metrics",
            Expected::Json => "not JSON",
            Expected::Text => "not a number",
        };
        let text = self.kept.trim_ascii_start();
        if text.starts_with(b"<") {
            let title = quote(&markup_text(text));
            return Some(format!(
                "it is a web page{title}, {wanted}; write the path of the app's own page, and USER:PASSWORD@ before the \
                 host if it asks for a login"
            ));
        }
        match expected {
            Expected::Metrics if self.is_json(text) => Some(format!(
                "it is JSON, {wanted}; write json+http:// with a JSON pointer as the selector, such as #/busy"
            )),
            Expected::Json | Expected::Text
                if text.starts_with(b"# HELP ") || text.starts_with(b"# TYPE ") =>
            {
                Some(format!(
                    "it is metrics, {wanted}; write prometheus+http:// with the metric as the selector, such as \
                     #http_requests_inprogress"
                ))
            }
            Expected::Text if matches!(text.first(), Some(b'{' | b'[')) => Some(format!(
                "it is JSON, {wanted}; write json+http:// with a JSON pointer as the selector, such as #/busy"
            )),
            _ => None,
        }
    }

    /// Why a page without any series that is asked for may not be metrics at all, if nothing shows that it is: then it
    /// says nothing, whatever the expression makes of no series.
    pub fn doubt(&self) -> Option<String> {
        let named = ["openmetrics-text", "version=0.0.4", "version=1.0.0"];
        if named
            .iter()
            .any(|format| self.content_type.contains(format))
        {
            return None;
        }
        let first = match self.first_line() {
            Line::Declaration => return None,
            Line::Sample(line) => line,
            Line::None => {
                return Some("it is empty, and its Content-Type is not that of metrics".to_owned());
            }
        };
        let plain = ["", "text/plain", "application/octet-stream"];
        let media_type = self.content_type.split(';').next().unwrap_or_default();
        (!plain.contains(&media_type.trim()) || !is_sample(first)).then(|| {
            let line = quote(&String::from_utf8_lossy(first));
            format!(
                "it begins{line}, which is not metrics; write the path of the app's metrics page"
            )
        })
    }

    /// The first line that is neither blank nor an ordinary comment.
    fn first_line(&self) -> Line<'_> {
        for line in self.kept.split(|&byte| byte == b'\n') {
            let line = line.trim_ascii();
            if line.starts_with(b"# HELP ") || line.starts_with(b"# TYPE ") || line == b"# EOF" {
                return Line::Declaration;
            }
            if !line.is_empty() && !line.starts_with(b"#") {
                return Line::Sample(line);
            }
        }
        match self.more {
            true => Line::Sample(&self.kept),
            false => Line::None,
        }
    }

    /// A line of metrics may begin with a brace too: `{"a name",label="value"} 1`.
    fn is_json(&self, text: &[u8]) -> bool {
        let Some(rest) = text.strip_prefix(b"{") else {
            return text.starts_with(b"[");
        };
        let rest = rest.trim_ascii_start();
        if rest.starts_with(b"}") {
            return true;
        }
        let Some(quoted) = rest.strip_prefix(b"\"") else {
            return false;
        };
        let mut escaped = false;
        let end = quoted.iter().position(|&byte| {
            let ends = byte == b'"' && !escaped;
            escaped = byte == b'\\' && !escaped;
            ends
        });
        let after = end.map(|end| quoted[end + 1..].trim_ascii_start());
        after.is_some_and(|after| after.starts_with(b":"))
    }
}

enum Line<'p> {
    /// `# HELP`, `# TYPE` or `# EOF`.
    Declaration,
    /// What should be a sample.
    Sample(&'p [u8]),
    None,
}

/// The first line of an answer's body that says something, for people: of a web page its title, or its first text.
pub fn first_words(body: &[u8]) -> String {
    let text = body.strip_prefix(BOM).unwrap_or(body).trim_ascii_start();
    match text.starts_with(b"<") {
        true => markup_text(text),
        false => {
            let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
            String::from_utf8_lossy(line.trim_ascii()).into_owned()
        }
    }
}

/// A text in quotes, shortened and with a blank before it; nothing of nothing.
pub fn quote(text: &str) -> String {
    let shown: String = text.chars().take(LONGEST_QUOTE).collect();
    match (shown.is_empty(), shown.len() < text.len()) {
        (true, _) => String::new(),
        (false, false) => format!(" {shown:?}"),
        (false, true) => format!(" {:?}", shown + "…"),
    }
}

/// The title of a web page, or its first text.
fn markup_text(page: &[u8]) -> String {
    let page = String::from_utf8_lossy(page);
    let lower = page.to_ascii_lowercase();
    let title = lower.find("<title").and_then(|at| {
        let from = at + lower[at..].find('>')? + 1;
        let to = lower[from..]
            .find("</")
            .map_or(page.len(), |end| from + end);
        Some(page[from..to].trim()).filter(|title| !title.is_empty())
    });
    let mut texts = page.split('<').filter_map(|part| part.split_once('>'));
    let first = || texts.find_map(|(_, text)| Some(text.trim()).filter(|text| !text.is_empty()));
    let text = title.or_else(first).unwrap_or_default();
    text.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn opening(content_type: &str, page: &[u8]) -> Opening {
        let mut opening = Opening::new(Some(content_type.as_bytes()));
        for piece in page.chunks(7) {
            opening.take(piece);
        }
        opening
    }

    fn objection(expected: Expected, page: &str) -> Option<String> {
        opening("text/plain", page.as_bytes()).objection(expected)
    }

    #[test]
    fn a_web_page_is_neither_metrics_nor_json_nor_a_number() {
        let page =
            "\n<!DOCTYPE html><HTML><head><TITLE>\n Sign  in </TITLE></head><body>inprogress 0";
        for expected in [Expected::Metrics, Expected::Json, Expected::Text] {
            let message = objection(expected, page).unwrap();
            assert!(message.contains("a web page \"Sign in\", not"), "{message}");
        }
        let message = objection(Expected::Metrics, "<html><h1>Bad <b>x</b></h1></html>").unwrap();
        assert!(message.contains("web page \"Bad\""), "{message}");
    }

    #[test]
    fn each_kind_is_told_from_the_others() {
        for (page, metrics, json, text) in [
            ("{\"busy\": 3}", true, false, true),
            (" [1]", true, false, true),
            ("{}", true, false, true),
            ("{\"a\\\":\",b=\"c\"} 1\n", false, false, true),
            ("{\"a\" : 1}", true, false, true),
            ("# HELP m m\nm 1\n", false, true, true),
            ("m 1\n", false, false, false),
            ("3", false, false, false),
            ("", false, false, false),
            ("\u{feff}m 1\n", true, true, true),
        ] {
            for (expected, refused) in [
                (Expected::Metrics, metrics),
                (Expected::Json, json),
                (Expected::Text, text),
            ] {
                let objection = objection(expected, page);
                assert_eq!(objection.is_some(), refused, "{page:?} {objection:?}");
            }
        }
    }

    #[test]
    fn without_a_wanted_series_something_has_to_show_that_a_page_is_metrics() {
        const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
        let long = format!("# {}\nm 1\n", "x".repeat(2000));
        for (content_type, page, is_doubtful) in [
            (PROMETHEUS, "", false),
            (
                "application/openmetrics-text; version=1.0.0",
                "# EOF\n",
                false,
            ),
            ("text/plain", "# TYPE m gauge\n", false),
            ("text/html; charset=utf-8", "# HELP m m\nm 1\n", false),
            ("text/plain", "# a comment\n\nm{a=\"b\"} 1\n", false),
            ("", "m 1\n", false),
            ("text/plain", "", true),
            ("text/plain", "ok\n", true),
            ("text/plain", "Please sign in\n", true),
            ("text/html", "Error 503\n", true),
            ("application/json", "503\n", true),
            ("text/plain", &long, true),
        ] {
            let doubt = opening(content_type, page.as_bytes()).doubt();
            assert_eq!(
                doubt.is_some(),
                is_doubtful,
                "{content_type} {page:?} {doubt:?}"
            );
        }
    }

    #[test]
    fn the_first_words_of_a_body_are_shown() {
        for (body, words) in [
            ("\nInvalid Host header\nmore", "Invalid Host header"),
            ("<h1>Bad Request (400)</h1>", "Bad Request (400)"),
            ("<html><title>Not Found</title><h1>x", "Not Found"),
            ("", ""),
        ] {
            assert_eq!(first_words(body.as_bytes()), words);
        }
        assert_eq!(quote(""), "");
        assert_eq!(quote("a\"b"), " \"a\\\"b\"");
        assert!(quote(&"é".repeat(200)).ends_with("é…\""));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(page in prop::collection::vec(any::<u8>(), 0..200), text in "[<>{}\"/a-zT\\\\: é#]{0,60}") {
            for page in [&page[..], text.as_bytes()] {
                let opening = opening("text/plain", page);
                for expected in [Expected::Metrics, Expected::Json, Expected::Text] {
                    let _ = opening.objection(expected);
                }
                let _ = (opening.doubt(), quote(&first_words(page)));
            }
        }
    }
}
