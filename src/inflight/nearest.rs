//! The series of a page that are most like what a selector names and the page lacks: the remedy of a wrong name or label.

use std::fmt::Write as _;

use super::exposition::Sample;

/// How many names the message has.
const MOST: usize = 3;

/// Names less alike than this are no help.
pub const ALIKE: f64 = 0.75;

/// The longest series that is shown, in characters.
const LONGEST: usize = 200;

/// The names on a page that are nearest to the wanted ones. Memory does not grow with the page.
#[derive(Debug)]
pub struct Nearest<'w> {
    wanted: Vec<&'w str>,
    /// The nearest first, with how alike they are.
    names: Vec<(f64, String)>,
    /// A series of a wanted name, which no matcher took.
    unmatched: Option<String>,
}

impl<'w> Nearest<'w> {
    /// Nothing has been seen yet.
    pub fn new(wanted: Vec<&'w str>) -> Self {
        Self {
            wanted,
            names: Vec::new(),
            unmatched: None,
        }
    }

    /// Takes one sample of the page.
    pub fn take(&mut self, sample: &Sample<'_>) {
        if self.wanted.contains(&sample.name) {
            self.unmatched.get_or_insert_with(|| written(sample));
            return;
        }
        if self.names.iter().any(|(_, name)| name == sample.name) {
            return;
        }
        let alike = (self.wanted.iter())
            .map(|wanted| strsim::jaro_winkler(wanted, sample.name))
            .fold(0.0, f64::max);
        let at = self.names.partition_point(|(other, _)| *other >= alike);
        if alike >= ALIKE && at < MOST {
            self.names.insert(at, (alike, sample.name.to_owned()));
            self.names.truncate(MOST);
        }
    }

    /// The message, if anything on the page is alike.
    pub fn message(self) -> Option<String> {
        if let Some(series) = self.unmatched {
            return Some(format!("it has {series}, which the matchers leave out"));
        }
        let names: Vec<_> = self.names.into_iter().map(|(_, name)| name).collect();
        (!names.is_empty()).then(|| format!("it has {}", names.join(", ")))
    }
}

/// A series as it would stand in a selector.
fn written(sample: &Sample<'_>) -> String {
    let mut text = sample.name.to_owned();
    for (n, (label, value)) in sample.labels.iter().enumerate() {
        let _ = write!(text, "{}{label}={value:?}", if n == 0 { '{' } else { ',' });
    }
    if !sample.labels.is_empty() {
        text.push('}');
    }
    if text.chars().count() > LONGEST {
        text = text.chars().take(LONGEST).chain(['…']).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(wanted: &str, page: &[(&str, &[(&str, &str)])]) -> Option<String> {
        let mut nearest = Nearest::new(vec![wanted]);
        for (name, labels) in page {
            let labels: Vec<_> = (labels.iter())
                .map(|(label, value)| ((*label).to_owned(), (*value).to_owned()))
                .collect();
            nearest.take(&Sample {
                name,
                labels: &labels,
                value: 1.0,
            });
        }
        nearest.message()
    }

    #[test]
    fn the_nearest_names_are_given_the_nearest_first() {
        let page: Vec<(&str, &[(&str, &str)])> = [
            "process_cpu_seconds_total",
            "http_requests_total",
            "http_requests_in_progress",
            "http_requests_in_progress",
            "http_request_duration_seconds_count",
            "http_requests_created",
        ]
        .map(|name| (name, &[][..]))
        .into();
        let message = message("http_requests_inprogress", &page).unwrap();
        assert!(
            message.starts_with("it has http_requests_in_progress, "),
            "{message}"
        );
        assert_eq!(message.matches(", ").count(), 2, "{message}");
        assert!(!message.contains("process"), "{message}");
    }

    #[test]
    fn a_series_that_the_matchers_leave_out_is_shown() {
        assert_eq!(
            message(
                "busy",
                &[
                    ("busier", &[]),
                    ("busy", &[("handler", "/metrics"), ("x", "")])
                ]
            )
            .unwrap(),
            r#"it has busy{handler="/metrics",x=""}, which the matchers leave out"#
        );
    }

    #[test]
    fn where_nothing_is_alike_there_is_no_message() {
        assert_eq!(
            message(
                "http_requests_inprogress",
                &[("up", &[]), ("go_goroutines", &[])]
            ),
            None
        );
    }
}
