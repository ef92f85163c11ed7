//! What the app itself does at SIGTERM, what mends it, and what to paste; pure functions of what was seen.

mod servers;
mod sigterm;
mod yaml;

use super::local::Settings;
use super::page::Page;
use super::record::Run;
use super::target::{Protocol, Target};
use super::way::Way;
use servers::GRPC;
pub use servers::framework;
use sigterm::AtSigterm;
pub use yaml::yaml;

/// Advice, a sentence or two each.
pub fn advice(runs: &[Run], page: Option<&Page>, settings: &Settings) -> Vec<String> {
    let mut advice = Vec::new();
    let mut drops = false;
    // Without a hook, SIGTERM comes while clients still send.
    let shows = runs.iter().find(|run| !run.way.has_sidecar());
    if let Some(run) = shows.or(runs.first()) {
        let seen = AtSigterm::of(run);
        let is_compared = runs.iter().any(|run| run.way == Way::Handover);
        advice.extend(sigterm::advice(
            run,
            &seen,
            settings.grace_period,
            is_compared,
        ));
        drops = run.end.killed || seen.in_flight_lost > 0;
    }
    let targets = settings.load.targets.iter();
    let is_grpc = targets
        .clone()
        .any(|target| target.protocol == Protocol::Grpc);
    let server = (runs.iter().find_map(|run| run.server.as_deref())).or(is_grpc.then_some(GRPC));
    if drops {
        advice.extend(server.and_then(framework));
    }
    advice.extend(source(page, settings));
    if let Some(run) = runs.iter().find(|run| run.way.has_sidecar()) {
        advice.extend(of_gracekeeper(run, is_grpc));
    }
    advice
}

/// Which source the app's metrics page offers.
fn source(page: Option<&Page>, settings: &Settings) -> Option<String> {
    let page = page?;
    if settings
        .sidecar
        .iter()
        .any(|flag| flag.starts_with("--inflight="))
    {
        return None;
    }
    let port = port(settings);
    match (page.preset, &page.gauge) {
        (Some(preset), _) => Some(format!(
            "its page {} is read by a preset: --inflight='{preset}://127.0.0.1:{port}'",
            page.path
        )),
        (None, Some(gauge)) => Some(format!(
            "its page {} has the gauge {gauge}: --inflight='prometheus+http://127.0.0.1:{port}{}#{gauge}' (subtract 1 if it \
             counts the request for the page)",
            page.path, page.path
        )),
        (None, None) => Some(format!(
            "its page {} has no gauge of requests in flight; --app-port alone reads the kernel's table",
            page.path
        )),
    }
}

/// What went wrong in spite of gracekeeper.
fn of_gracekeeper(run: &Run, is_grpc: bool) -> Vec<String> {
    let mut advice = Vec::new();
    if let Some(why) = &run.end.hook_failed {
        advice.push(format!("the hook failed, and SIGTERM came at once: {why}"));
    }
    let outcome = (run.end.verdict.as_ref()).and_then(|verdict| verdict["outcome"].as_str());
    // A client that keeps its connection stays, also when its requests are always in flight until the deadline.
    let kept = run.requests.iter().any(|request| {
        request.reused
            && request.instance == 0
            && request.began < run.end.sigterm
            && request.ended >= run.end.sigterm
    });
    match outcome {
        Some("persistent" | "deadline") if kept && is_grpc => advice.push(
            "clients used their kept connections until SIGTERM, and no change of routes moves them: only the app can, by sending \
             GOAWAY. Tell it with --notify or --drain-file, or have gracekeeper hand over to its own graceful stop: \
             --compare gracekeeper:graceful"
                .to_owned(),
        ),
        Some("persistent" | "deadline") if kept => advice.push(
            "clients used their kept connections until SIGTERM, and no change of routes moves them: only the app can, by \
             answering with Connection: close while it drains. Tell it with --notify or --drain-file: docs/telling-the-app.md"
                .to_owned(),
        ),
        Some(outcome @ ("deadline" | "blind" | "persistent")) => advice.push(format!(
            "gracekeeper's drain ended with outcome {outcome}: see docs/troubleshooting.md"
        )),
        _ => {}
    }
    advice
}

/// The app's port in the pod, as far as it is known.
fn port(settings: &Settings) -> String {
    let port = settings.load.targets.first().and_then(Target::port);
    port.map_or("8000".to_owned(), |port| port.to_string())
}

#[cfg(test)]
pub mod tests {
    use super::super::record::Cause;
    use super::super::record::testing::{request, run};
    use super::*;

    pub fn settings(line: &str) -> Settings {
        use crate::cli::{Command, parse};
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match parse(&words, &Default::default()).unwrap().command {
            Command::Rehearse(settings) => settings.local(),
            other => panic!("{other:?}"),
        }
    }

    fn usual() -> Settings {
        settings("gracekeeper rehearse --url=http://127.0.0.1:{port}/ -- app {port}")
    }

    #[test]
    fn an_app_that_drops_requests_is_told_so() {
        let mut run = run(Way::None);
        run.end.app_ended = 0.02;
        run.server = Some("uvicorn".to_owned());
        run.requests = vec![
            request(-0.5, 0.01, Some(Cause::Reset)),
            request(-0.2, 0.01, Some(Cause::Closed)),
            request(-0.1, 0.0, None),
        ];
        let advice = advice(&[run], None, &usual());
        assert!(
            advice[0].contains("exits at once (0.0 s, exit status 0) and drops 2 of 3"),
            "{advice:?}"
        );
        assert!(
            advice.iter().any(|line| line.starts_with("uvicorn:")),
            "{advice:?}"
        );
    }

    #[test]
    fn an_app_that_finishes_and_turns_new_clients_away_needs_a_hook() {
        let mut run = run(Way::None);
        let mut kept = request(0.2, 0.3, Some(Cause::Closed));
        kept.reused = true;
        run.requests = vec![
            request(-0.5, 0.4, None),
            request(0.1, 0.1, Some(Cause::Refused)),
            kept,
        ];
        let advice = advice(&[run], None, &usual());
        assert!(
            advice[0].contains("finishes what it has: all of 1 requests"),
            "{advice:?}"
        );
        assert!(
            advice[1].contains("takes no new connections: 1 were turned away"),
            "{advice:?}"
        );
        assert!(advice[2].contains("closes kept connections"), "{advice:?}");
    }

    #[test]
    fn an_app_that_ignores_sigterm_is_told_so() {
        let mut run = run(Way::None);
        run.end.killed = true;
        let said = |run: &Run| advice(std::slice::from_ref(run), None, &usual());
        assert!(said(&run)[0].contains("ignores SIGTERM"));
        run.requests = vec![request(0.1, 0.1, Some(Cause::Refused))];
        assert!(said(&run)[0].contains("stops listening but does not end"));
    }

    #[test]
    fn a_source_is_named_unless_there_is_one() {
        let page = Page {
            path: "/metrics".to_owned(),
            preset: None,
            gauge: Some("shop_customers".to_owned()),
        };
        let advice = source(Some(&page), &usual()).unwrap();
        assert!(
            advice.contains("prometheus+http://127.0.0.1:8000/metrics#shop_customers"),
            "{advice}"
        );
        let given = settings(
            "gracekeeper rehearse --url=http://127.0.0.1:{port}/ --inflight=text+http://h:1/ -- app",
        );
        assert_eq!(source(Some(&page), &given), None);
        assert_eq!(source(None, &usual()), None);
    }
}
