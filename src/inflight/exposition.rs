//! Reads a metrics page as it streams: Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! A page is thousands of lines of which a handful matter, so the scan looks for the wanted names alone and parses
//! only the lines that begin with one of them. Nothing but the line under way is kept, whatever the page's size.
//!
//! A page has to be whole before it says anything: the sum of half of it would look like less work than there is. An
//! OpenMetrics page ends with `# EOF`. In the text format the last line has a line end, but some servers (granian) leave
//! it out; that is good enough where HTTP has told the length of the page and all of it came.

use std::fmt;
use std::str;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memchr3, memrchr};

/// The longest line that is parsed, in bytes. A longer line of another metric is passed over; a longer one of a
/// wanted metric is an error.
const LONGEST_LINE: usize = 64 * 1024;

/// The last line of an OpenMetrics page. Its line end may be missing.
const END: &[u8] = b"# EOF";

/// One line of a wanted metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The name as it stands on the page, suffixes such as `_total` included.
    pub name: &'a str,
    /// Label names and unescaped values, in the page's order.
    pub labels: &'a [(String, String)],
    /// The value; a timestamp or an exemplar after it is left out.
    pub value: f64,
}

/// Why a page says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A line of a wanted metric does not parse.
    Line {
        /// The line, shortened.
        line: String,
        /// What is wrong with it.
        wrong: &'static str,
    },
    /// The page ends before its end.
    CutOff(&'static str),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Line { line, wrong } => write!(f, "{wrong} in the line {line:?}"),
            Error::CutOff(how) => write!(f, "the page is cut off: {how}"),
        }
    }
}

/// Which lines are worth parsing.
#[derive(Debug, Clone)]
pub enum Names {
    /// Those of one metric: its name is looked for at the speed of memory.
    One(Box<Finder<'static>>),
    /// Those of several: each line's beginning is looked at, however many names there are.
    Several {
        /// The names, in order.
        names: Vec<String>,
        /// The bytes that a line worth a second look can begin with.
        first: Box<[bool; 256]>,
    },
    /// Every line; the reader of the samples chooses.
    Any,
}

impl Names {
    /// The lines of these metrics, and of all others where one of these cannot be looked for.
    pub fn of(names: impl IntoIterator<Item = String>) -> Self {
        let mut names: Vec<String> = names.into_iter().filter(|name| !name.is_empty()).collect();
        names.sort_unstable();
        names.dedup();
        // On the page these three are escaped, so that the name is not found as it is.
        if names.iter().any(|name| name.contains(['\\', '"', '\n'])) {
            return Names::Any;
        }
        match names.as_slice() {
            [name] => Names::One(Box::new(Finder::new(name).into_owned())),
            _ => {
                let mut first = Box::new([false; 256]);
                let begins = names.iter().filter_map(|name| name.bytes().next());
                for byte in begins.chain(*b" \t\r\x0c{") {
                    first[usize::from(byte)] = true;
                }
                Names::Several { names, first }
            }
        }
    }

    /// Whether samples of the metric `name` are asked for.
    fn wants(&self, name: &[u8]) -> bool {
        match self {
            Names::One(finder) => finder.needle() == name,
            Names::Several { names, .. } => names.iter().any(|wanted| wanted.as_bytes() == name),
            Names::Any => true,
        }
    }

    /// Whether a line, or its beginning, can be a sample of a wanted metric.
    fn begin(&self, line: &[u8]) -> bool {
        let line = line.trim_ascii_start();
        let named = |name: &[u8]| {
            let after = line.strip_prefix(name).map(<[u8]>::first);
            after.is_some_and(|next| next.is_none_or(|next| b" \t{".contains(next)))
        };
        match (self, line.first()) {
            // The name may stand, quoted, anywhere within the braces.
            (Names::Any, _) | (_, Some(b'{')) => true,
            (Names::One(finder), _) => named(finder.needle()),
            (Names::Several { names, .. }, _) => {
                let end = memchr3(b' ', b'\t', b'{', line).unwrap_or(line.len());
                let name = line[..end].trim_ascii_end();
                names
                    .binary_search_by(|wanted| wanted.as_bytes().cmp(name))
                    .is_ok()
            }
        }
    }
}

/// Takes a page in pieces of any size and hands out the samples of the wanted metrics.
#[derive(Debug)]
pub struct Scanner<'n> {
    names: &'n Names,
    open_metrics: bool,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    /// Within a line too long to keep, of a metric nobody asked for.
    skipping: bool,
    /// `# EOF` was read.
    ended: bool,
    end: Finder<'static>,
    labels: Vec<(String, String)>,
}

impl<'n> Scanner<'n> {
    /// A scanner for one page; `open_metrics` as its content type says.
    pub fn new(names: &'n Names, open_metrics: bool) -> Self {
        Self {
            names,
            open_metrics,
            pending: Vec::new(),
            skipping: false,
            ended: false,
            end: Finder::new(END),
            labels: Vec::new(),
        }
    }

    /// Takes the next piece of the page.
    ///
    /// # Errors
    /// When a line of a wanted metric does not parse.
    pub fn feed(&mut self, piece: &[u8], each: &mut dyn FnMut(Sample<'_>)) -> Result<(), Error> {
        let mut piece = piece;
        if self.skipping || !self.pending.is_empty() {
            let Some(end) = memchr(b'\n', piece) else {
                return self.keep(piece);
            };
            if self.skipping {
                self.skipping = false;
            } else {
                let mut line = std::mem::take(&mut self.pending);
                line.extend_from_slice(&piece[..=end]);
                self.lines(&line, each)?;
                line.clear();
                self.pending = line;
            }
            piece = &piece[end + 1..];
        }
        match memrchr(b'\n', piece) {
            Some(end) => {
                self.lines(&piece[..=end], each)?;
                self.keep(&piece[end + 1..])
            }
            None => self.keep(piece),
        }
    }

    /// Says that the page has ended; `whole`, that nothing of it can be missing.
    ///
    /// # Errors
    /// When it ended too early, or its last line does not parse.
    pub fn finish(mut self, whole: bool, each: &mut dyn FnMut(Sample<'_>)) -> Result<(), Error> {
        let last = std::mem::take(&mut self.pending);
        if self.open_metrics {
            match (self.ended, last.as_slice()) {
                (true, b"") if !self.skipping => Ok(()),
                (true, more) => Err(bad(more, "something after \"# EOF\"")),
                (false, END) => Ok(()),
                (false, _) => Err(Error::CutOff("OpenMetrics without its \"# EOF\"")),
            }
        } else if whole {
            self.line(&last, each)
        } else if self.skipping || !last.is_empty() {
            Err(Error::CutOff("its last line has no line end"))
        } else {
            Ok(())
        }
    }

    /// Keeps the beginning of a line until the rest of it comes.
    fn keep(&mut self, part: &[u8]) -> Result<(), Error> {
        if self.skipping {
            return Ok(());
        }
        let room = LONGEST_LINE.saturating_sub(self.pending.len());
        self.pending
            .extend_from_slice(&part[..part.len().min(room)]);
        if part.len() <= room {
            return Ok(());
        }
        if self.names.begin(&self.pending) {
            return Err(bad(&self.pending, "more than 64 KiB"));
        }
        self.pending.clear();
        self.skipping = true;
        Ok(())
    }

    /// Parses what is wanted in whole lines, the last line's end included.
    fn lines(&mut self, lines: &[u8], each: &mut dyn FnMut(Sample<'_>)) -> Result<(), Error> {
        if self.open_metrics {
            self.see_end(lines)?;
        }
        let names = self.names;
        match names {
            Names::One(finder) => {
                let mut at = 0;
                while let Some(found) = finder.find(&lines[at..]) {
                    let found = at + found;
                    let start = memrchr(b'\n', &lines[..found]).map_or(0, |end| end + 1);
                    let end = found + memchr(b'\n', &lines[found..]).unwrap_or(lines.len() - found);
                    // Within a line, the name may also be part of another name or of a label's value.
                    let before = lines[start..found].trim_ascii_start();
                    if before.is_empty() || before.starts_with(b"{") {
                        self.line(&lines[start..end], each)?;
                        at = end;
                    } else {
                        at = found + finder.needle().len();
                    }
                }
            }
            Names::Several { first, .. } => {
                let mut start = 0;
                for end in memchr_iter(b'\n', lines) {
                    let line = &lines[start..end];
                    start = end + 1;
                    let worth = line.first().is_some_and(|&byte| first[usize::from(byte)]);
                    if worth && names.begin(line) {
                        self.line(line, each)?;
                    }
                }
            }
            Names::Any => {
                let mut start = 0;
                for end in memchr_iter(b'\n', lines) {
                    self.line(&lines[start..end], each)?;
                    start = end + 1;
                }
            }
        }
        Ok(())
    }

    /// Looks for the end of an OpenMetrics page, after which nothing may come.
    fn see_end(&mut self, lines: &[u8]) -> Result<(), Error> {
        if self.ended {
            return Err(bad(lines, "something after \"# EOF\""));
        }
        for found in self.end.find_iter(lines) {
            let (before, after) = (&lines[..found], &lines[found + END.len()..]);
            let after = after.strip_prefix(b"\r").unwrap_or(after);
            if (before.is_empty() || before.ends_with(b"\n")) && after.starts_with(b"\n") {
                self.ended = true;
                return match after {
                    b"\n" => Ok(()),
                    more => Err(bad(&more[1..], "something after \"# EOF\"")),
                };
            }
        }
        Ok(())
    }

    /// Parses one line, without its end, if it is a sample of a wanted metric.
    fn line(&mut self, line: &[u8], each: &mut dyn FnMut(Sample<'_>)) -> Result<(), Error> {
        let trimmed = line.trim_ascii();
        if trimmed.is_empty() || trimmed.starts_with(b"#") || !self.names.begin(trimmed) {
            return Ok(());
        }
        let text = str::from_utf8(trimmed).map_err(|_| bad(line, "bytes that are not UTF-8"))?;
        let mut rest = Cursor { text };
        let name = sample(&mut rest, &mut self.labels).map_err(|wrong| bad(line, wrong))?;
        let name = match name {
            Some(name) => name,
            // Nobody can have asked for it, but whoever asks for every metric has asked for a good page.
            None if matches!(self.names, Names::Any) => return Err(bad(line, "no metric's name")),
            None => return Ok(()),
        };
        if !self.names.wants(name.as_bytes()) {
            return Ok(());
        }
        let value = value(&mut rest).map_err(|wrong| bad(line, wrong))?;
        each(Sample {
            name: &name,
            labels: &self.labels,
            value,
        });
        Ok(())
    }
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':'
}

fn bad(line: &[u8], wrong: &'static str) -> Error {
    let mut shown: String = String::from_utf8_lossy(line).chars().take(120).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    Error::Line {
        line: shown.trim_end().to_owned(),
        wrong,
    }
}

/// What is left of a line.
struct Cursor<'a> {
    text: &'a str,
}

impl<'a> Cursor<'a> {
    fn blanks(&mut self) {
        self.text = self.text.trim_start_matches([' ', '\t']);
    }

    fn eat(&mut self, symbol: char) -> bool {
        match self.text.strip_prefix(symbol) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    /// A metric's name.
    fn name(&mut self) -> &'a str {
        let end = self
            .text
            .bytes()
            .position(|b| !is_name_byte(b))
            .unwrap_or(self.text.len());
        let (name, rest) = self.text.split_at(end);
        self.text = rest;
        name
    }

    /// A label's name.
    fn label(&mut self) -> Result<&'a str, &'static str> {
        let name = self.name();
        match name.contains(':') || name.starts_with(|first: char| first.is_ascii_digit()) {
            true => Err("a label's name that is none"),
            false => Ok(name),
        }
    }

    /// What stands up to the next blank.
    fn word(&mut self) -> &'a str {
        let end = self.text.find([' ', '\t']).unwrap_or(self.text.len());
        let (word, rest) = self.text.split_at(end);
        self.text = rest;
        word
    }

    /// The rest of a quoted string whose opening quote has been read, unescaped.
    fn quoted(&mut self) -> Result<String, &'static str> {
        let mut value = String::new();
        let mut chars = self.text.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.text = &self.text[at + 1..];
                    return Ok(value);
                }
                // Any other escape stands for itself, backslash and all, as Prometheus has it.
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, c @ ('\\' | '"'))) => value.push(c),
                    Some((_, c)) => value.extend(['\\', c]),
                    None => break,
                },
                c => value.push(c),
            }
        }
        Err("a quoted string without its end")
    }
}

/// Reads a sample's name and labels.
fn sample(
    rest: &mut Cursor<'_>,
    labels: &mut Vec<(String, String)>,
) -> Result<Option<String>, &'static str> {
    labels.clear();
    let bare = rest.name();
    if bare.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("a name that begins with a digit");
    }
    if !rest.text.is_empty() && !rest.text.starts_with([' ', '\t', '{']) {
        return Err("no blank after the metric's name");
    }
    let mut name = (!bare.is_empty()).then(|| bare.to_owned());
    rest.blanks();
    if rest.eat('{') {
        loop {
            rest.blanks();
            if rest.eat('}') {
                break;
            }
            let (label, quoted) = if rest.eat('"') {
                (rest.quoted()?, true)
            } else {
                (rest.label()?.to_owned(), false)
            };
            rest.blanks();
            if rest.eat('=') {
                if label.is_empty() {
                    return Err("a label without a name");
                }
                if label == "__name__" {
                    return Err("a second name");
                }
                rest.blanks();
                if !rest.eat('"') {
                    return Err("a label's value without its quote");
                }
                let value = rest.quoted()?;
                labels.push((label, value));
            } else if quoted && name.is_none() {
                name = Some(label); // {"a name in UTF-8", label="value"}
            } else {
                return Err("a label without its \"=\"");
            }
            rest.blanks();
            if !rest.eat(',') && !rest.text.starts_with('}') {
                return Err("no comma between two labels");
            }
        }
    } else if name.is_none() {
        return Err("no metric's name");
    }
    let mut seen: Vec<&str> = labels.iter().map(|(label, _)| label.as_str()).collect();
    seen.sort_unstable();
    if seen.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err("a label twice");
    }
    Ok(name)
}

/// Reads a sample's value and checks what may follow it: a timestamp, an exemplar.
fn value(rest: &mut Cursor<'_>) -> Result<f64, &'static str> {
    rest.blanks();
    let value = number(rest.word()).ok_or("a value that is not a number")?;
    rest.blanks();
    if !rest.text.is_empty() && !rest.text.starts_with('#') {
        number(rest.word()).ok_or("a timestamp that is not a number")?;
        rest.blanks();
    }
    if rest.text.is_empty() || rest.text.starts_with("# {") {
        Ok(value)
    } else {
        Err("something after the value")
    }
}

/// A number as Go's `strconv.ParseFloat` writes it, which is what the formats refer to.
fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Found = Vec<(String, Vec<(String, String)>, f64)>;

    fn names<const N: usize>(names: [&str; N]) -> Names {
        Names::of(names.map(str::to_owned))
    }

    fn scan_in(pieces: &[&[u8]], names: &Names, open_metrics: bool) -> Result<Found, Error> {
        let mut found = Vec::new();
        let mut scanner = Scanner::new(names, open_metrics);
        for piece in pieces {
            scanner.feed(piece, &mut |s| {
                found.push((s.name.to_owned(), s.labels.to_vec(), s.value))
            })?;
        }
        scanner.finish(false, &mut |_| ())?;
        Ok(found)
    }

    fn scan(page: &str, name: &str) -> Result<Found, Error> {
        scan_in(&[page.as_bytes()], &names([name]), false)
    }

    fn values(page: &str, name: &str) -> Vec<f64> {
        scan(page, name).unwrap().into_iter().map(|s| s.2).collect()
    }

    #[test]
    fn only_the_named_metric_counts() {
        let page = "# HELP busy busy things\n# TYPE busy gauge\nbusy 3\nbusy_total 7\nnot_busy 9\nbusy:rate 1\n\
                    other{x=\"busy 5\"} 4\n  busy{a=\"b\"} 2\n";
        assert_eq!(values(page, "busy"), [3.0, 2.0]);
        assert_eq!(values(page, "busy_total"), [7.0]);
    }

    #[test]
    fn created_and_total_are_names_of_their_own() {
        let page = "jobs_total 5\njobs_created 1.7e9\njobs 1\n";
        assert_eq!(values(page, "jobs"), [1.0]);
        assert_eq!(values(page, "jobs_total"), [5.0]);
    }

    #[test]
    fn label_values_are_unescaped() {
        let found = scan("m{a=\"x\\\\y\\\"z\\n\",b=\"} 9 #\",} 1\n", "m").unwrap();
        let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(found[0].1, [label("a", "x\\y\"z\n"), label("b", "} 9 #")]);
        assert_eq!(found[0].2, 1.0);
    }

    #[test]
    fn timestamps_and_exemplars_are_no_values() {
        assert_eq!(values("m 1 1700000000000\n", "m"), [1.0]);
        assert_eq!(
            values("m{le=\"1\"} 17 # {trace=\"m 5\"} 0.3 1.7e9\n", "m"),
            [17.0]
        );
        assert_eq!(values("m 2 1700000000.5 # {} 0.3\n", "m"), [2.0]);
    }

    #[test]
    fn special_numbers_are_read() {
        let found = values("m NaN\nm +Inf\nm -Inf\nm 1e3\n", "m");
        assert!(found[0].is_nan());
        assert_eq!(found[1..], [f64::INFINITY, f64::NEG_INFINITY, 1000.0]);
    }

    #[test]
    fn windows_line_ends_are_line_ends() {
        assert_eq!(values("m 1\r\nm{a=\"b\"} 2\r\n", "m"), [1.0, 2.0]);
        let wanted = names(["m"]);
        assert!(scan_in(&[b"m 1\r\n# EOF\r\n"], &wanted, true).is_ok());
    }

    #[test]
    fn a_quoted_name_is_found() {
        assert_eq!(
            values("{\"m\",a=\"b\"} 4\n{a=\"m\", \"other\"} 5\n", "m"),
            [4.0]
        );
    }

    #[test]
    fn a_page_cut_off_is_an_error_and_not_a_smaller_sum() {
        let page = "m{a=\"1\"} 12\nm{a=\"2\"} 34\nz 1\n";
        for end in 1..page.len() {
            let whole_lines = page.as_bytes()[end - 1] == b'\n';
            assert_eq!(
                scan(&page[..end], "m").is_ok(),
                whole_lines,
                "{:?}",
                &page[..end]
            );
        }
        let wanted = names(["m"]);
        let open = "m 12\nz 1\n# EOF";
        for end in 1..open.len() {
            let cut = scan_in(&[&open.as_bytes()[..end]], &wanted, true);
            assert!(matches!(cut, Err(Error::CutOff(_))), "{:?}", &open[..end]);
        }
        // The last line end is optional in OpenMetrics.
        assert!(scan_in(&[open.as_bytes()], &wanted, true).is_ok());
        assert!(scan_in(&[open.as_bytes(), b"\n"], &wanted, true).is_ok());
    }

    #[test]
    fn a_page_that_is_known_to_be_whole_needs_no_last_line_end() {
        let wanted = names(["m"]);
        let read = |page: &str, open_metrics: bool| {
            let mut sum = 0.0;
            let mut scanner = Scanner::new(&wanted, open_metrics);
            scanner.feed(page.as_bytes(), &mut |s| sum += s.value)?;
            scanner.finish(true, &mut |s| sum += s.value)?;
            Ok::<f64, Error>(sum)
        };
        assert_eq!(read("m{a=\"1\"} 12\nm{a=\"2\"} 34", false), Ok(46.0));
        assert_eq!(read("m 12\nn{a=\"2", false), Ok(12.0));
        assert_eq!(read("m 12\n", false), Ok(12.0));
        assert!(matches!(
            read("m 12\nm{a=\"2", false),
            Err(Error::Line { .. })
        ));
        assert!(matches!(read("m 12\n", true), Err(Error::CutOff(_))));
    }

    #[test]
    fn nothing_may_follow_the_end_of_an_open_metrics_page() {
        let wanted = names(["m"]);
        for more in ["m 1\n", "m 1\n# EOF\n", "# EOF\n", "\n", "x"] {
            let whole = format!("m 1\n# EOF\n{more}");
            assert!(
                scan_in(&[whole.as_bytes()], &wanted, true).is_err(),
                "{more:?}"
            );
            let pieces: [&[u8]; 2] = [b"m 1\n# EOF\n", more.as_bytes()];
            assert!(scan_in(&pieces, &wanted, true).is_err(), "{more:?}");
        }
        assert_eq!(values("# EOF\nm 1\n", "m"), [1.0]); // Text 0.0.4: a comment.
        let page: &[u8] =
            b"m{a=\"# EOF\"} 1\n## EOF\n # EOF\n# EOF x\nm{a=\"\\n# EOF\"} 1\n# EOF\n";
        assert_eq!(scan_in(&[page], &wanted, true).unwrap().len(), 2);
    }

    #[test]
    fn a_bad_line_of_another_metric_harms_nobody() {
        assert_eq!(values("other{ 3\n\u{fe0f}\nm 1\n", "m"), [1.0]);
        assert_eq!(values("m-2 5\nm.x 5\nm+3\nm\u{a0}4\nm 1\n", "m"), [1.0]);
    }

    #[test]
    fn a_bad_line_of_the_wanted_metric_is_an_error() {
        for line in [
            "m",
            "m x",
            "m{a=} 1",
            "m{a=\"b} 1",
            "m{a=\"b\" c=\"d\"} 1",
            "m 1 2 3",
            "m{=\"b\"} 1",
            "m 1 x",
            "m{a=\"1\",b=\"2\",a=\"3\"} 1",
            "m{__name__=\"m\"} 1",
            "m{1a=\"1\"} 1",
            "m{a:b=\"1\"} 1",
        ] {
            assert!(
                matches!(scan(&format!("{line}\n"), "m"), Err(Error::Line { .. })),
                "{line}"
            );
        }
    }

    #[test]
    fn of_several_names_each_line_counts_once() {
        let page = "# TYPE a gauge\na 1\naa 2\nb{x=\"a\"} 3\n\tb 4\n{\"a\",x=\"b\"} 5\n{x=\"b\"} 6\nab 7\n";
        let wanted = names(["b", "a", "b"]);
        let found = scan_in(&[page.as_bytes()], &wanted, false).unwrap();
        let found: Vec<(&str, f64)> = found.iter().map(|s| (s.0.as_str(), s.2)).collect();
        assert_eq!(found, [("a", 1.0), ("b", 3.0), ("b", 4.0), ("a", 5.0)]);
    }

    #[test]
    fn of_several_names_a_bad_line_is_an_error_as_it_is_of_one() {
        for wanted in [names(["m"]), names(["m", "n"])] {
            for line in ["m", "m\r", "\x0cm x", "\rm", " m{", "m\tx"] {
                let page = format!("{line}\n");
                assert!(
                    scan_in(&[page.as_bytes()], &wanted, false).is_err(),
                    "{line:?}"
                );
            }
            for line in ["m-1", "m\u{a0}1", "mm x", "#m x", "m}"] {
                let page = format!("{line}\n");
                assert!(
                    scan_in(&[page.as_bytes()], &wanted, false).is_ok(),
                    "{line:?}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_is_escaped_on_the_page_is_found() {
        let wanted = names(["a\"b"]);
        let found = scan_in(&[b"{\"a\\\"b\"} 5\n"], &wanted, false).unwrap();
        assert_eq!(found[0].0, "a\"b");
    }

    #[test]
    fn a_line_without_end_costs_no_memory() {
        let wanted = names(["m"]);
        let mut scanner = Scanner::new(&wanted, false);
        for _ in 0..1000 {
            scanner.feed(&[b'x'; 10_000], &mut |_| ()).unwrap();
            assert!(scanner.pending.capacity() <= 2 * LONGEST_LINE);
        }
        scanner
            .feed(b"\nm 5\n", &mut |s| assert_eq!(s.value, 5.0))
            .unwrap();
        scanner.finish(false, &mut |_| ()).unwrap();

        let mut scanner = Scanner::new(&wanted, false);
        let fed: Result<Vec<()>, Error> = (0..100)
            .map(|_| scanner.feed(b"m{aaaaaaaaa", &mut |_| ()))
            .collect();
        assert!(fed.is_ok());
        assert!((0..10).any(|_| scanner.feed(&[b'a'; 10_000], &mut |_| ()).is_err()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), open in any::<bool>()) {
            let _ = scan_in(&[&bytes], &names(["m"]), open);
            let _ = scan_in(&[&bytes], &Names::Any, open);
            let _ = scan_in(&[&bytes], &names(["m", "n"]), open);
        }

        #[test]
        fn pieces_of_any_size_read_as_the_whole(
            lines in proptest::collection::vec("(m|mm|n|# TYPE m|\\{\"m\"\\})(\\{a=\"[mx\\\\\\\\\"]{0,3}\"\\})? ?[0-9]{0,2}( 1)?\r?", 0..12),
            size in 1_usize..20,
            open in any::<bool>(),
        ) {
            let page = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "# EOF\n";
            let pieces: Vec<&[u8]> = page.as_bytes().chunks(size).collect();
            let several = names(["m", "n"]);
            for wanted in [names(["m"]), several, Names::Any] {
                prop_assert_eq!(scan_in(&pieces, &wanted, open), scan_in(&[page.as_bytes()], &wanted, open));
            }
        }

        #[test]
        fn looking_for_a_name_finds_what_reading_every_line_finds(
            lines in proptest::collection::vec("( m|m|mm|n|\\{\"m\"\\})(\\{m=\"[mx ]{0,3}\"\\})? [0-9]{1,2}", 0..12),
        ) {
            let page = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            let every = scan_in(&[page.as_bytes()], &Names::Any, false);
            prop_assume!(every.is_ok());
            let every: Found = every.unwrap().into_iter().filter(|s| s.0 == "m").collect();
            let several = names(["m", "x"]);
            prop_assert_eq!(scan_in(&[page.as_bytes()], &several, false), Ok(every.clone()));
            prop_assert_eq!(scan(&page, "m"), Ok(every));
        }
    }
}
