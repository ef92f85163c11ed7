//! Reads a metrics page as it streams: Prometheus text 0.0.4 and OpenMetrics 1.0.
//!
//! A page is thousands of lines of which a handful matter, so the scan looks for the wanted names alone and parses
//! only the lines that begin with one of them. Nothing but the current line is kept, whatever the page's size.
//!
//! A page has to be whole before it says anything: the sum of half of it would look like less work than there is. An
//! OpenMetrics page ends with `# EOF`. In the text format the last line has a line end, but some servers (granian) leave
//! it out; that is no error where HTTP says how long the page is and all of it came.

pub(super) mod line;
mod names;

use std::fmt;
use std::str;

use memchr::memmem::Finder;
use memchr::{memchr, memchr_iter, memrchr};

use line::Cursor;
pub use names::Names;

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

/// Why a page gives no samples.
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

/// Takes a page in pieces of any size and hands out the samples of the wanted metrics.
#[derive(Debug)]
pub struct Scanner<'n> {
    names: &'n Names,
    open_metrics: bool,
    /// The beginning of a line whose end has not come yet.
    pending: Vec<u8>,
    /// Within a line too long to keep, of a metric that is not wanted.
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
            self.find_end(lines)?;
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
    fn find_end(&mut self, lines: &[u8]) -> Result<(), Error> {
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
        let mut rest = Cursor::new(text);
        let name = line::sample(&mut rest, &mut self.labels).map_err(|wrong| bad(line, wrong))?;
        let name = match name {
            Some(name) => name,
            // No selector names it; but where every line is read, every line has to be valid.
            None if matches!(self.names, Names::Any) => return Err(bad(line, "no metric's name")),
            None => return Ok(()),
        };
        if !self.names.wants(name.as_bytes()) {
            return Ok(());
        }
        let value = line::value(&mut rest).map_err(|wrong| bad(line, wrong))?;
        each(Sample {
            name: &name,
            labels: &self.labels,
            value,
        });
        Ok(())
    }
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

#[cfg(test)]
mod tests;
