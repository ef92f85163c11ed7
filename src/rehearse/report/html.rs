//! A rehearsal as one page that loads nothing: a table, and a timeline of each run that can be hovered.

use super::super::cluster::rollout::Rollout;
use super::super::record::{self, Rehearsal, Request, Run};
use super::super::verdict::grouped;
use super::text::{causes, verdict};

/// The timeline's size, in the units of its drawing.
const WIDTH: f64 = 1000.0;
const HEIGHT: f64 = 138.0;

/// Where the counts are drawn: above it are the names of events, below it the failures and the seconds.
const TOP: f64 = 32.0;
const BASE: f64 = 98.0;

/// How high a pod's row is, below that.
const ROW: f64 = 20.0;

/// How far apart the counts are, in seconds.
const STEP: f64 = 0.1;

/// Up to this many failures are drawn, evenly chosen: more cannot be told apart.
const MOST_MARKS: usize = 300;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page.
pub fn page(rehearsal: &Rehearsal) -> String {
    let spans = rehearsal.runs.iter().map(Run::span);
    let (from, to) = spans.fold((0.0, 1.0), |(from, to): (f64, f64), span| {
        (from.min(span.0), to.max(span.1))
    });
    let scale = Scale { from, to };
    let timelines: String = rehearsal
        .runs
        .iter()
        .map(|run| timeline(run, &scale))
        .collect();
    let doubt = (rehearsal.doubt.iter())
        .map(|doubt| format!("<p class=\"doubt\">But {}.</p>\n", escaped(doubt)))
        .collect::<String>();
    let kind = match rehearsal.restart {
        true => "A restart of the app's container",
        false => "The deletion of its pod",
    };
    let takes_over = match rehearsal.alone.is_some() {
        true => {
            "then other pods take them, since the app's port is fixed and it was rehearsed alone"
        }
        false => "then a second instance takes them",
    };
    document(&format!(
        "<h1>How the app ends</h1>\n<p class=\"command\"><code>{command}</code></p>\n\
         {verdict}{doubt}\
         <p class=\"setting\">{kind}, {rate} requests a second, half of them on new connections, none retried. New connections \
         come for {routes:.1} s more; {takes_over}.</p>\n{table}\
         <h2>Requests in flight</h2>\n<p class=\"legend\"><span class=\"key area\"></span>at the app that ends <span \
         class=\"key other\"></span>at the instance that takes over \
         <span class=\"key cross\">×</span>lost <span class=\"key deleted\"></span>deleted \
         <span class=\"key sigterm\"></span>SIGTERM <span class=\"key gone\"></span>gone</p>\n\
         {timelines}{advice}\
         <h2>To paste into the pod</h2>\n<pre><code>{yaml}</code></pre>\n",
        command = escaped(&rehearsal.command),
        rate = rehearsal.rate,
        routes = rehearsal.routes.as_secs_f64(),
        table = table(&rehearsal.runs),
        yaml = escaped(&rehearsal.yaml),
        verdict = sentence(&rehearsal.verdict),
        advice = list(&rehearsal.advice),
    ))
}

/// The page of a restart in a cluster.
pub fn rollout(rollout: &Rollout) -> String {
    let (from, to) = rollout.span();
    let scale = Scale { from, to };
    let rows = rollout.pods.iter().map(|pod| {
        let app_ended = pod.app_ended.map(|at| format!("{:.1} s", at - pod.deleted));
        format!(
            "<tr><th scope=\"row\">{}</th><td>{:.1} s</td><td>{}</td><td>{:.1} s</td><td class=\"causes\">{}</td></tr>\n",
            escaped(&pod.name),
            pod.deleted,
            app_ended.unwrap_or("–".to_owned()),
            pod.gone_after(),
            escaped(&verdict(pod)),
        )
    });
    let moments: String = (rollout.moments().into_iter())
        .map(|(moment, count)| format!("{count} {}", moment.title()))
        .collect::<Vec<_>>()
        .join(", ");
    let lost = match rollout.lost() {
        0 => String::new(),
        _ => format!(
            "<p>Lost by cause: {}. Lost by moment: {moments}.</p>\n",
            causes(rollout.failures())
        ),
    };
    document(&format!(
        "<h1>How its pods end</h1>\n<p class=\"command\"><code>{workload}</code> in namespace \
         <code>{namespace}</code>, through <code>{urls}</code></p>\n{verdict}{lost}\
         <p class=\"setting\">A restart as by kubectl rollout restart, {rate} requests a second from a pod beside it, half of \
         them on new connections, none retried. 0 s is the deletion of the first pod.</p>\n\
         <div class=\"wide\"><table>\n<thead><tr><th>pod</th><th>deleted at</th><th>app ended after</th><th>gone after</th>\
         <th class=\"causes\">verdict</th></tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n\
         <h2>Requests in flight</h2>\n<p class=\"legend\"><span class=\"key area\"></span>at all pods \
         <span class=\"key cross\">×</span>lost <span class=\"key bar\"></span>a pod from its deletion until it is \
         gone; the line in it: its app has ended</p>\n{timeline}{advice}",
        workload = escaped(&rollout.workload),
        namespace = escaped(&rollout.namespace),
        urls = escaped(&rollout.urls.join(" ")),
        verdict = sentence(&rollout.sentence()),
        rate = rollout.rate,
        rows = rows.collect::<String>(),
        timeline = rollout_timeline(rollout, &scale),
        advice = list(&rollout.advice()),
    ))
}

/// A whole page.
fn document(body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>gracekeeper rehearse</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{body}\
         <footer>gracekeeper {version}</footer>\n</main>\n<div id=\"tip\" hidden></div>\n<script>\n{SCRIPT}</script>\n\
         </body>\n</html>\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// The verdict, a line for each of its parts.
fn sentence(verdict: &str) -> String {
    let parts = verdict.split("; ");
    let parts: String = parts
        .map(|part| format!("<span>{}</span>\n", escaped(part)))
        .collect();
    format!("<p class=\"verdict\">{parts}</p>\n")
}

/// The advice, where there is any.
fn list(advice: &[String]) -> String {
    let items: String = (advice.iter())
        .map(|advice| format!("<li>{}</li>\n", escaped(advice)))
        .collect();
    match advice {
        [] => String::new(),
        _ => format!("<h2>Advice</h2>\n<ul>\n{items}</ul>\n"),
    }
}

fn table(runs: &[Run]) -> String {
    let rows = runs.iter().map(|run| {
        let wait = run.longest_wait().map_or("–".to_owned(), |wait| format!("{wait:.1} s"));
        format!(
            "<tr><th scope=\"row\">{}</th><td>{}</td><td class=\"{}\">{}</td><td>{:.1} s</td><td>{wait}</td><td \
             class=\"causes\">{}</td></tr>\n",
            run.way.title(),
            grouped(run.requests.len()),
            if run.lost() == 0 { "none-lost" } else { "lost" },
            grouped(run.lost()),
            run.end.gone,
            causes(run.failures()),
        )
    });
    format!(
        "<div class=\"wide\"><table>\n<thead><tr><th>way</th><th>requests</th><th>lost</th><th>gone after</th><th>longest wait\
         </th><th class=\"causes\">lost by cause</th></tr></thead>\n<tbody>\n{}</tbody>\n</table></div>\n",
        rows.collect::<String>()
    )
}

/// Seconds as places on the drawing; the same for all runs, so that they can be compared.
struct Scale {
    from: f64,
    to: f64,
}

impl Scale {
    fn x(&self, at: f64) -> f64 {
        (at - self.from) / (self.to - self.from) * WIDTH
    }

    /// Seconds from one label to the next.
    fn label_step(&self) -> f64 {
        let steps = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0];
        let fits = |step: &&f64| (self.to - self.from) / **step <= 14.0;
        steps.iter().find(fits).copied().unwrap_or(1000.0)
    }
}

fn timeline(run: &Run, scale: &Scale) -> String {
    let at_app = run.requests.iter().filter(|request| request.instance == 0);
    drawing(&Drawing {
        title: &run.way.title(),
        said: &format!(
            "SIGTERM after {:.1} s, gone after {:.1} s",
            run.end.sigterm, run.end.gone
        ),
        requests: &run.requests,
        at_app: &at_app.cloned().collect::<Vec<_>>(),
        events: &events(run, scale),
        below: "",
        height: HEIGHT,
        scale,
    })
}

fn rollout_timeline(rollout: &Rollout, scale: &Scale) -> String {
    let height = |n: usize| HEIGHT + ROW * n as f64;
    let rows = rollout.pods.iter().enumerate().map(|(n, pod)| {
        let y = height(n);
        let (x, end) = (scale.x(pod.deleted), scale.x(pod.gone));
        let app = pod.app_ended.map_or(String::new(), |at| {
            let x = scale.x(at);
            format!("<line class=\"event\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.0}\" y2=\"{:.0}\"/>", y + 10.0)
        });
        // The name stands where there is room.
        let (anchor, at) = if x > WIDTH / 2.0 { (" end", x - 6.0) } else { ("", end + 6.0) };
        format!(
            "<rect class=\"bar\" x=\"{x:.1}\" width=\"{:.1}\" y=\"{y:.0}\" height=\"10\"/>{app}<text class=\"name{anchor}\" \
             x=\"{at:.1}\" y=\"{:.0}\">{}, {:.1} s</text>\n",
            (end - x).max(1.0),
            y + 10.0,
            escaped(&pod.name),
            pod.gone_after(),
        )
    });
    drawing(&Drawing {
        title: &rollout.workload,
        said: &format!("the last pod gone after {:.1} s", rollout.settled),
        requests: &rollout.requests,
        at_app: &rollout.requests,
        events: "",
        below: &rows.collect::<String>(),
        height: height(rollout.pods.len()),
        scale,
    })
}

/// What is drawn of some requests.
struct Drawing<'a> {
    title: &'a str,
    /// What is told beside it.
    said: &'a str,
    requests: &'a [Request],
    /// Those of them at the app that ends.
    at_app: &'a [Request],
    /// Lines with names.
    events: &'a str,
    /// What stands below the seconds.
    below: &'a str,
    height: f64,
    scale: &'a Scale,
}

fn drawing(drawing: &Drawing<'_>) -> String {
    let scale = drawing.scale;
    let steps = ((scale.to - scale.from) / STEP).ceil() as usize + 1;
    let counts = record::in_flight(drawing.requests, scale.from, STEP, steps);
    let most = counts.iter().copied().max().unwrap_or(0).max(1);
    let y = |count: usize| BASE - (BASE - TOP - 8.0) * count as f64 / most as f64;
    let both = area(&counts, y, scale);
    let at_app = record::in_flight(drawing.at_app, scale.from, STEP, steps);
    let ending = area(&at_app, y, scale);
    let lost: Vec<_> = record::failures(drawing.requests).collect();
    let every = lost.len().div_ceil(MOST_MARKS).max(1);
    let marks: String = (lost.iter().step_by(every))
        .map(|(request, _)| {
            let x = scale.x(request.ended);
            format!("M{:.1} 103l6 6m-6 0l6-6", x - 3.0)
        })
        .collect();
    let said: Vec<String> = counts.iter().map(usize::to_string).collect();
    let failures: Vec<String> = (lost.iter())
        .map(|(request, cause)| format!("[{:.2},\"{}\"]", request.ended, cause.title()))
        .collect();
    format!(
        "<figure>\n<figcaption><b>{title}</b> at most {most} in flight, {lost} lost, {told}</figcaption>\n\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{title}: {lost} of {all} requests lost, {told}\" \
         data-from=\"{from:.3}\" data-to=\"{to:.3}\" data-step=\"{STEP}\" \
         data-counts=\"[{counts}]\" data-failures='[{failures}]'>\n{labels}<path class=\"other\" d=\"{both}\"/><path \
         class=\"area\" d=\"{ending}\"/>\n\
         <line class=\"base\" x1=\"0\" x2=\"{WIDTH}\" y1=\"{BASE}\" y2=\"{BASE}\"/>\n<path class=\"marks\" d=\"{marks}\"/>\n\
         {events}{below}<line class=\"cursor\" y1=\"{TOP}\" y2=\"{BASE}\"/>\n</svg>\n</figure>\n",
        title = escaped(drawing.title),
        lost = grouped(lost.len()),
        all = grouped(drawing.requests.len()),
        told = drawing.said,
        height = drawing.height,
        from = scale.from,
        to = scale.to,
        counts = said.join(","),
        failures = failures.join(","),
        labels = axis(scale),
        events = drawing.events,
        below = drawing.below,
    )
}

/// What lies below a line of counts.
fn area(counts: &[usize], y: impl Fn(usize) -> f64, scale: &Scale) -> String {
    let mut area = format!("M{:.1} {BASE}", scale.x(scale.from));
    for (n, count) in counts.iter().enumerate() {
        let x = scale.x(scale.from + STEP * n as f64).min(WIDTH);
        area += &format!("L{x:.1} {:.1}", y(*count));
    }
    area + &format!("L{WIDTH} {BASE}Z")
}

/// The seconds below a timeline.
fn axis(scale: &Scale) -> String {
    let step = scale.label_step();
    let mut at = (scale.from / step).ceil() * step;
    let mut labels = String::new();
    while at <= scale.to {
        let x = scale.x(at);
        labels += &format!(
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{BASE}\"/><text class=\"seconds\" \
             x=\"{x:.1}\" y=\"128\">{} s</text>\n",
            at + 0.0
        );
        at += step;
    }
    labels
}

/// Lines with names, on two heights where they would cover each other.
fn events(run: &Run, scale: &Scale) -> String {
    let mut events = vec![("deleted", "deleted", 0.0)];
    if let Some(left) = run.routes_left {
        events.push(("routes", "routes changed", left));
    }
    events.push(("sigterm", "SIGTERM", run.end.sigterm));
    events.push((
        "gone",
        if run.end.killed {
            "gone, killed"
        } else {
            "gone"
        },
        run.end.gone,
    ));
    events.sort_by(|a, b| a.2.total_cmp(&b.2));
    // Where the last name on each height ends.
    let mut ends = [f64::MIN; 2];
    let mut drawn = String::new();
    for (class, name, at) in events {
        let x = scale.x(at);
        let width = name.len() as f64 * 9.0 + 6.0;
        // The names of the lower height are drawn within the picture.
        let height = usize::from(ends[0] > x);
        let left = match ends[height] > x {
            true => ends[height],
            false => x,
        };
        ends[height] = left + width;
        let (y, end) = ([11, 27][height], [14.0, TOP][height]);
        let anchor = if left + width > WIDTH { " end" } else { "" };
        drawn += &format!(
            "<line class=\"event {class}\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{end}\" y2=\"{BASE}\"/><text class=\"name{anchor}\" \
             x=\"{left:.1}\" y=\"{y}\">{name}</text>\n"
        );
    }
    drawn
}

/// A text within HTML.
fn escaped(text: &str) -> String {
    (text.replace('&', "&amp;").replace('<', "&lt;"))
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_text_on_the_page() {
        assert_eq!(
            escaped("<a href=\"x\">&"),
            "&lt;a href=&quot;x&quot;&gt;&amp;"
        );
    }

    #[test]
    fn there_are_not_too_many_seconds_to_read() {
        let step = |to: f64| Scale { from: 0.0, to }.label_step();
        assert_eq!((step(5.0), step(20.0), step(130.0)), (1.0, 2.0, 10.0));
    }
}
