//! A rehearsal as text: the table, the timelines in characters, the verdict, the advice, and what to paste.

use std::collections::BTreeMap;
use std::path::Path;

use super::super::cluster::rollout::{PodEnd, Rollout};
use super::super::record::{self, Cause, Rehearsal, Request, Run};
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
        let marks = [(run.end.gone, 'G'), (run.end.sigterm, 'T'), (0.0, 'D')];
        text += &timeline(&run.way.title(), &run.requests, &marks, from, to);
    }
    text += &format!("\n{}.\n", rehearsal.verdict);
    if let Some(doubt) = &rehearsal.doubt {
        text += &format!("But {doubt}.\n");
    }
    if let Some(why) = &rehearsal.alone {
        text += &format!(
            "The app's port is fixed, and it was rehearsed alone: no second instance took over, and after the routes had \
             changed no new connections were made ({}).\n",
            why.lines().next().unwrap_or_default()
        );
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

/// The text of a restart in a cluster; `page` is where the page was written.
pub fn rollout(rollout: &Rollout, page: Option<&Path>) -> String {
    let mut text = String::from("\n");
    text += &pods_table(rollout);
    let (from, to) = rollout.span();
    text += &format!(
        "\nRequests in flight. D: a pod is deleted, G: a pod is gone; x: requests were lost. {:.1} s a character\n",
        (to - from) / WIDTH as f64
    );
    let gone = rollout.pods.iter().map(|pod| (pod.gone, 'G'));
    let deleted = rollout.pods.iter().map(|pod| (pod.deleted, 'D'));
    let marks: Vec<_> = gone.chain(deleted).collect();
    text += &timeline(&rollout.workload, &rollout.requests, &marks, from, to);
    text += &format!("\n{}.\n", rollout.sentence());
    if rollout.lost() > 0 {
        text += &format!("Lost by cause: {}.\n", causes(rollout.failures()));
        let moments = rollout.moments().into_iter();
        let moments = moments.map(|(moment, count)| format!("{count} {}", moment.title()));
        text += &format!(
            "Lost by moment: {}.\n",
            moments.collect::<Vec<_>>().join(", ")
        );
    }
    if let Some(wait) = record::longest_wait(&rollout.requests) {
        text += &format!("The longest wait for an answer: {wait:.1} s.\n");
    }
    for advice in rollout.advice() {
        text += &format!("- {advice}\n");
    }
    if let Some(page) = page {
        text += &format!("\nThe report: {}\n", page.display());
    }
    text
}

fn pods_table(rollout: &Rollout) -> String {
    let mut rows = vec![
        [
            "pod",
            "deleted at",
            "app ended after",
            "gone after",
            "verdict",
        ]
        .map(str::to_owned),
    ];
    rows.extend(rollout.pods.iter().map(|pod| {
        [
            pod.name.clone(),
            format!("{:.1} s", pod.deleted),
            (pod.app_ended).map_or("-".to_owned(), |at| format!("{:.1} s", at - pod.deleted)),
            format!("{:.1} s", pod.gone_after()),
            verdict(pod),
        ]
    }));
    aligned(&rows)
}

/// What gracekeeper said of a pod.
pub fn verdict(pod: &PodEnd) -> String {
    let said = pod.verdict.iter().chain(&pod.cut).cloned();
    let said = said.collect::<Vec<_>>().join("; ");
    if said.is_empty() {
        "-".to_owned()
    } else {
        said
    }
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
            causes(run.failures()),
        ]
    }));
    aligned(&rows)
}

/// Rows whose columns begin at the same place.
fn aligned<const N: usize>(rows: &[[String; N]]) -> String {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// What was lost, by cause.
pub fn causes<'a>(failures: impl Iterator<Item = (&'a Request, Cause)>) -> String {
    let mut counts: BTreeMap<_, usize> = BTreeMap::new();
    for (_, cause) in failures {
        *counts.entry(cause).or_default() += 1;
    }
    let parts = counts
        .into_iter()
        .map(|(cause, count)| format!("{count} {}", cause.title()));
    parts.collect::<Vec<_>>().join(", ")
}

/// Bars, and below them what happened when; of two marks at the same place the later one in the list is shown.
fn timeline(
    title: &str,
    requests: &[Request],
    marks: &[(f64, char)],
    from: f64,
    to: f64,
) -> String {
    let step = ((to - from) / WIDTH as f64).max(f64::EPSILON);
    let counts = record::in_flight(requests, from, step, WIDTH);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let bars: String = counts
        .iter()
        .map(|count| BARS[(count * (BARS.len() - 1)).div_ceil(most)])
        .collect();
    let place = |at: f64| (((at - from) / step).max(0.0) as usize).min(WIDTH - 1);
    let mut events = vec![' '; WIDTH];
    for (at, mark) in marks {
        events[place(*at)] = *mark;
    }
    let mut lost = vec![' '; WIDTH];
    for (request, _) in record::failures(requests) {
        lost[place(request.ended)] = 'x';
    }
    let mut text = format!("\n{title} (at most {most} in flight)\n  |{bars}|\n");
    for marks in [events, lost] {
        let marks: String = marks.into_iter().collect();
        if !marks.trim().is_empty() {
            text += &format!("  |{marks}|\n");
        }
    }
    text
}
