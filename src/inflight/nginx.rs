//! nginx's status page, as its module `stub_status` writes it:
//!
//! ```text
//! Active connections: 291
//! server accepts handled requests
//!  16630948 16630948 31070465
//! Reading: 6 Writing: 179 Waiting: 106
//! ```
//!
//! A request is in flight while nginx reads its head or writes its answer, an upstream's work included. A connection
//! that waits for a next request is idle. The request for the page itself is among those that are being answered.

use super::Error;

/// The longest page, in bytes: several times what the numbers can take.
pub const LONGEST: usize = 1024;

/// What the page counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Counts {
    /// Requests in flight, but for the one that asks.
    pub inflight: f64,
    /// Requests since nginx started, the one that asks included.
    pub requests: f64,
}

/// Reads the page.
///
/// # Errors
/// When the page is another, or not whole.
pub fn parse(page: &[u8]) -> Result<Counts, Error> {
    let page = std::str::from_utf8(page).map_err(|_| malformed("it is not UTF-8"))?;
    if !page.ends_with('\n') {
        // A page that does not begin as nginx's is another page, and not one that is cut off.
        return Err(
            match page.is_empty() || page.starts_with("Active connections:") {
                true => Error::CutOff("its last line has no line end"),
                false => malformed("it is no stub_status page"),
            },
        );
    }
    let mut lines = page.lines().map(|line| line.split_ascii_whitespace());
    let mut line = || lines.next().map(|words| words.collect::<Vec<_>>());
    let (Some(active), Some(head), Some(totals), Some(now), None) =
        (line(), line(), line(), line(), line())
    else {
        return Err(malformed("a stub_status page has four lines"));
    };
    let ["Active", "connections:", active] = active[..] else {
        return Err(malformed("no \"Active connections: N\" in line 1"));
    };
    number(active)?;
    // Some relatives of nginx add a column.
    let ["server", "accepts", "handled", "requests", ..] = head[..] else {
        return Err(malformed(
            "no \"server accepts handled requests\" in line 2",
        ));
    };
    if totals.len() + 1 != head.len() {
        return Err(malformed("line 3 has not the numbers that line 2 names"));
    }
    let totals = (totals.into_iter().map(number)).collect::<Result<Vec<_>, _>>()?;
    let [
        "Reading:",
        reading,
        "Writing:",
        writing,
        "Waiting:",
        waiting,
    ] = now[..]
    else {
        return Err(malformed(
            "no \"Reading: N Writing: N Waiting: N\" in line 4",
        ));
    };
    number(waiting)?;
    let all = number(reading)? + number(writing)?;
    if all < 1.0 {
        return Err(malformed(
            "it counts no request at all, not even the one for the page",
        ));
    }
    Ok(Counts {
        inflight: all - 1.0,
        requests: totals[2],
    })
}

fn number(word: &str) -> Result<f64, Error> {
    let digits = !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit());
    (digits.then(|| word.parse().ok()).flatten())
        .ok_or_else(|| Error::Malformed(format!("{word:?} is not a number of requests")))
}

fn malformed(wrong: &str) -> Error {
    Error::Malformed(wrong.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(reading: &str, writing: &str) -> String {
        format!(
            "Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070465 \n\
             Reading: {reading} Writing: {writing} Waiting: 106 \n"
        )
    }

    #[test]
    fn the_one_that_asks_is_not_counted() {
        for (reading, writing, count) in [("0", "1", 0.0), ("6", "179", 184.0), ("1", "0", 0.0)] {
            assert_eq!(
                parse(page(reading, writing).as_bytes()).unwrap().inflight,
                count
            );
        }
    }

    #[test]
    fn a_relatives_further_column_is_no_mistake() {
        let page = "Active connections: 1 \nserver accepts handled requests request_time\n 1 2 3 4\n\
                    Reading: 0 Writing: 2 Waiting: 0 \n";
        let counts = parse(page.as_bytes()).unwrap();
        assert_eq!((counts.inflight, counts.requests), (1.0, 3.0));
    }

    #[test]
    fn a_page_cut_off_anywhere_is_an_error() {
        let page = page("0", "1");
        for end in 0..page.len() {
            let e = parse(&page.as_bytes()[..end]).unwrap_err();
            assert!(matches!(e.kind(), "truncated" | "malformed"), "{end}: {e}");
        }
    }

    #[test]
    fn another_page_is_an_error() {
        for (page, part) in [
            (page("0", "0"), "no request at all"),
            (page("-1", "1"), "not a number"),
            (page("1.0", "1"), "not a number"),
            (page("x", "1"), "not a number"),
            (page("", "1"), "line 4"),
            (page("0", "1").replace("Active", "active"), "line 1"),
            (page("0", "1").replace("accepts ", ""), "line 2"),
            (page("0", "1").replace(" 31070465", ""), "line 3"),
            (page("0", "1") + "more\n", "four lines"),
            ("0\n".to_owned(), "four lines"),
            ("<html>".to_owned(), "no stub_status page"),
        ] {
            let e = parse(page.as_bytes()).unwrap_err();
            assert_eq!(e.kind(), "malformed", "{page}");
            assert!(e.to_string().contains(part), "{page}: {e}");
        }
        assert!(parse(b"\xff\n").is_err());
    }

    proptest! {
        #[test]
        fn parsing_never_panics(page in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&page);
        }

        #[test]
        fn no_change_of_a_page_panics(at in 0_usize..140, byte in any::<u8>()) {
            let mut page = page("3", "4").into_bytes();
            if let Some(place) = page.get_mut(at) {
                *place = byte;
            }
            let _ = parse(&page);
        }
    }
}
