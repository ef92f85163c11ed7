//! A rehearsal as text: the table, the timelines in characters, the verdict, the advice, and what to paste.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::record::{Rehearsal, Run};
use super::super::verdict::grouped;

/// How wide a timeline is, in characters.
const WIDTH: usize = 72;

/// Heights of a bar, from nothing up.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The text; `page` is where the page was written.
pub fn text(rehearsal: &Rehearsal, page: Option<&Path>) -> String {
    let mut text = String::from("\n");
    text += &table(&rehearsal.runs);
    let spans = rehearsal.runs.iter().map(Run::span);
    let (from, to) = spans.fold((0.0, 0.0), |(from, to): (f64, f64), span| {
        (from.min(span.0), to.max(span.1))
    });
    text += &format!(
        "\nRequests in flight. D: the pod is deleted, T: SIGTERM, G: gone; x: requests were lost. {:.1} s a character\n",
        (to - from) / WIDTH as f64
    );
    for run in &rehearsal.runs {
        text += &timeline(run, from, to);
    }
    text += &format!("\n{}.\n", rehearsal.verdict);
    if let Some(doubt) = &rehearsal.doubt {
        text += &format!("But {doubt}.\n");
    }
    if rehearsal.alone {
        text += "The app's port is fixed, so it was rehearsed alone: no second instance took over, and after the routes had \
                 changed no new connections were made.\n";
    }
    for advice in &rehearsal.advice {
        text += &format!("- {advice}\n");
    }
    text += &format!("\nTo paste into the pod:\n\n{}", rehearsal.yaml);
    if let Some(page) = page {
        text += &format!("\nThe report: {}\n", page.display());
    }
    text
}

fn table(runs: &[Run]) -> String {
    let head = [
        "way",
        "requests",
        "lost",
        "gone after",
        "longest wait",
        "lost by cause",
    ];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(runs.iter().map(|run| {
        [
            run.way.title(),
            grouped(run.requests.len()),
            grouped(run.lost()),
            format!("{:.1} s", run.end.gone),
            run.longest_wait()
                .map_or("-".to_owned(), |wait| format!("{wait:.1} s")),
            causes(run),
        ]
    }));
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &[String; 6]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// What was lost, by cause.
pub fn causes(run: &Run) -> String {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for (_, cause) in run.failures() {
        *counts.entry(cause).or_default() += 1;
    }
    let parts = counts
        .into_iter()
        .map(|(cause, count)| format!("{count} {}", cause.title()));
    parts.collect::<Vec<_>>().join(", ")
}

/// Bars, and below them what happened when.
fn timeline(run: &Run, from: f64, to: f64) -> String {
    let step = ((to - from) / WIDTH as f64).max(f64::EPSILON);
    let counts = run.in_flight(from, step, WIDTH, None);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = counts
        .iter()
        .map(|count| BARS[(count * (BARS.len() - 1)).div_ceil(most)])
        .collect();
    let place = |at: f64| (((at - from) / step).max(0.0) as usize).min(WIDTH - 1);
    let mut events = vec![' '; WIDTH];
    for (at, mark) in [(run.end.gone, 'G'), (run.end.sigterm, 'T'), (0.0, 'D')] {
        events[place(at)] = mark;
    }
    let mut lost = vec![' '; WIDTH];
    for (request, _) in run.failures() {
        lost[place(request.ended)] = 'x';
    }
    let mut text = format!(
        "\n{} (at most {most} in flight)\n  |{bars}|\n",
        run.way.title()
    );
    for marks in [events, lost] {
        let marks: String = marks.into_iter().collect();
        if !marks.trim().is_empty() {
            text += &format!("  |{marks}|\n");
        }
    }
    text
}
