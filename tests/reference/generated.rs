//! Ten thousand generated pages, read by prometheus_client as well.

use super::python::Python;
use super::scan::{Page, ours};

/// Numbers that look random and are the same in each run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `end`, by the generator called SplitMix64.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % end as u64).unwrap()
    }

    pub fn percent(&mut self, chance: usize) -> bool {
        self.below(100) < chance
    }

    pub fn pick<'a, T: ?Sized>(&mut self, from: &[&'a T]) -> &'a T {
        from[self.below(from.len())]
    }
}

const NAMES: &[&str] = &[
    "m",
    "mm",
    "m_total",
    "m:rate",
    "_m",
    "M1",
    "n",
    "n_bucket",
    "n_created",
    "in_flight",
];
const LABELS: &[&str] = &["a", "b", "le", "_x", "A9", "m", "quantile"];
const PIECES: &[&str] = &[
    "x", "m", "1", " ", "  ", "\t", "{", "}", ",", "=", "#", " # {", "é", "☃", "\\\"", "\\\\",
    "\\n", "\\t", "\\d", "# EOF", "m 5", "'", "`", "\u{a0}", "\r",
];
const VALUES: &[&str] = &[
    "0",
    "1",
    "3.0",
    "-2",
    "+4",
    "1e3",
    "1.5E-7",
    "NaN",
    "nan",
    "+Inf",
    "-Inf",
    "Inf",
    ".5",
    "5.",
    "1e400",
    "-0",
    "12345678901234567890",
    "4.9e-324",
];
const COMMENTS: &[&str] = &[
    "",
    "   ",
    "#",
    "# ",
    "#x",
    "# m 5",
    "# HELP m What \\\\ it \\n is {\"",
    "# TYPE m gauge",
    "# TYPE n histogram",
    "# TYPE m_total counter",
    "# TYPE m counter",
    "# HELP n",
    "# EOF",
    "## m{a=\"b\"} 1",
];

fn label_value(random: &mut Random) -> String {
    (0..random.below(5)).map(|_| random.pick(PIECES)).collect()
}

/// A line of the text format, with whatever freedom it leaves.
fn line(random: &mut Random) -> String {
    if random.percent(15) {
        return random.pick(COMMENTS).to_owned();
    }
    let blanks = |random: &mut Random| match random.below(8) {
        0 => " ",
        1 => "\t",
        _ => "",
    };
    let name = random.pick(NAMES);
    let quoted = random.percent(10);
    let mut terms = Vec::new();
    if quoted {
        terms.push(format!("\"{name}\""));
    }
    let first = random.below(LABELS.len());
    for i in 0..random.below(4) {
        let label = LABELS[(first + i) % LABELS.len()];
        let label = match random.percent(10) {
            true => format!("\"{label}\""),
            false => label.to_owned(),
        };
        let value = label_value(random);
        terms.push(format!(
            "{}{label}{}={}\"{value}\"{}",
            blanks(random),
            blanks(random),
            blanks(random),
            blanks(random)
        ));
    }
    let mut line = blanks(random).to_owned();
    if !quoted {
        line.push_str(name);
    }
    let braces = !terms.is_empty() || random.percent(10);
    if braces {
        line.push_str(blanks(random));
        let comma = if !terms.is_empty() && random.percent(15) {
            ","
        } else {
            ""
        };
        line.push_str(&format!("{{{}{comma}{}}}", terms.join(","), blanks(random)));
    }
    // prometheus_client takes blanks or tabs before and after the value, but not some of each.
    let blank = random.pick(&[" ", " ", " ", "  ", "\t"]);
    if !braces || random.percent(95) {
        line.push_str(blank);
    }
    line.push_str(random.pick(VALUES));
    if random.percent(15) {
        line.push_str(blank);
        line.push_str(random.pick(&["1700000000000", "0", "-5"]));
    }
    if random.percent(5) {
        line.push_str(blank);
    }
    line
}

fn text(random: &mut Random) -> String {
    let end = if random.percent(10) { "\r\n" } else { "\n" };
    let mut page: String = (0..random.below(12)).map(|_| line(random) + end).collect();
    if random.percent(5) {
        page.truncate(page.trim_end_matches(['\r', '\n']).len());
    }
    page
}

/// An OpenMetrics page, which leaves no freedom.
fn open_metrics(random: &mut Random) -> String {
    let mut page = String::new();
    for i in 0..random.below(5) {
        let name = format!("{}_{i}", random.pick(NAMES));
        let kind = match random.pick(&[
            "gauge",
            "counter",
            "unknown",
            "histogram",
            "stateset",
            "info",
        ]) {
            // The metric's name becomes a label's, in which there are no colons.
            "stateset" if name.contains(':') => "gauge",
            kind => kind,
        };
        page.push_str(&format!("# TYPE {name} {kind}\n"));
        if random.percent(30) {
            page.push_str(&format!(
                "# HELP {name} {}\n",
                random.pick(&["x", "a \\n b", "\\\"q\\\" # EOF"])
            ));
        }
        let timestamp = if random.percent(20) {
            " 1700000000.123"
        } else {
            ""
        };
        let exemplar = |random: &mut Random| match random.percent(25) {
            true => format!(
                " # {{t=\"{}\"}} 0.5 1.7e9",
                random.pick(&["", "x", "} # {", "m 5"])
            ),
            false => String::new(),
        };
        for series in 0..random.below(4) {
            let label = format!("a=\"{}{series}\"", label_value(random).replace('\r', ""));
            match kind {
                "counter" => page.push_str(&format!(
                    "{name}_total{{{label}}} {}{timestamp}{}\n",
                    random.below(1000),
                    exemplar(random)
                )),
                "histogram" => page.push_str(&format!(
                    "{name}_bucket{{{label},le=\"1.0\"}} 2{timestamp}{}\n{name}_bucket{{{label},le=\"+Inf\"}} 5{timestamp}\n\
                     {name}_count{{{label}}} 5{timestamp}\n{name}_sum{{{label}}} 3.5{timestamp}\n",
                    exemplar(random)
                )),
                "stateset" => page.push_str(&format!(
                    "{name}{{{label},{name}=\"on\"}} {}{timestamp}\n",
                    series % 2
                )),
                "info" => page.push_str(&format!("{name}_info{{{label}}} 1{timestamp}\n")),
                _ => page.push_str(&format!(
                    "{name}{{{label}}} {}{timestamp}\n",
                    random.pick(VALUES)
                )),
            }
        }
    }
    page + "# EOF\n"
}

/// Spoils a page in one place.
fn spoilt(random: &mut Random, page: &str) -> String {
    let mut characters: Vec<char> = page.chars().collect();
    if characters.is_empty() {
        return String::new();
    }
    let at = random.below(characters.len());
    let more: Vec<char> = "\"{},=\\#\n x1-".chars().collect();
    match random.below(4) {
        0 => characters.truncate(at),
        1 => drop(characters.remove(at)),
        2 => characters.insert(at, more[random.below(more.len())]),
        _ => characters.swap(at, 0),
    }
    characters.into_iter().collect()
}

/// Reads pages with both, and gives how many each of them, both and none could read.
fn compare(seed: u64, pages: usize, make: impl Fn(&mut Random) -> (String, bool)) -> [usize; 4] {
    let mut random = Random::new(seed);
    let mut python = Python::start();
    let (mut both, mut we, mut they, mut none) = (0, 0, 0, 0);
    for i in 0..pages {
        let (content, open_metrics) = make(&mut random);
        let page = Page {
            name: format!("page {i}"),
            content: content.clone().into_bytes(),
            open_metrics,
        };
        match (ours(&page), python.read(&page)) {
            (Ok(ours), Ok(theirs)) => {
                assert_eq!(ours, theirs, "{content:?}");
                both += 1;
            }
            // The types of metrics are nothing to us, and neither are lines that only begin like one of them.
            (Ok(_), Err(why)) if why.contains("Invalid metric type") || why == "ValueError: " => {
                we += 1
            }
            (Ok(ours), Err(why)) => panic!("only we read {content:?}, as {ours:?}: {why}"),
            (Err(_), Ok(_)) => they += 1,
            (Err(_), Err(_)) => none += 1,
        }
    }
    [both, we, they, none]
}

#[test]
fn generated_pages_in_the_text_format_read_as_prometheus_client_reads_them() {
    assert_eq!(
        compare(1, 4000, |random| (text(random), false)),
        [4000, 0, 0, 0]
    );
}

#[test]
fn generated_pages_in_open_metrics_read_as_prometheus_client_reads_them() {
    assert_eq!(
        compare(2, 2500, |random| (open_metrics(random), true)),
        [2500, 0, 0, 0]
    );
}

#[test]
fn generated_pages_that_were_spoilt_are_refused_or_read_as_prometheus_client_reads_them() {
    let [both, we, they, none] = compare(3, 2500, |random| {
        let page = text(random);
        (spoilt(random, &page), false)
    });
    // It is laxer than the format, and to refuse what was spoilt is never wrong.
    assert!(
        both > 1000 && none > 500 && we + they < 200,
        "{both} {we} {they} {none}"
    );
}

#[test]
fn generated_pages_in_open_metrics_that_were_cut_off_are_refused() {
    let [both, we, they, none] = compare(4, 1000, |random| {
        let page = open_metrics(random);
        let whole = page.trim_end().len();
        let ends: Vec<usize> = page
            .char_indices()
            .map(|(at, _)| at)
            .filter(|&at| at < whole)
            .collect();
        (page[..ends[random.below(ends.len())]].to_owned(), true)
    });
    assert_eq!([both, we, they, none], [0, 0, 0, 1000]);
}
