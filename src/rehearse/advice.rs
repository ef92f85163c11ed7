//! What the app itself does at SIGTERM, what mends it, and what to paste; pure functions of what was seen.

use super::local::Settings;
use super::page::Page;
use super::record::{Cause, Moment, Request, Run};
use super::target::{PORT, Target};
use super::way::Way;

/// An app that ends sooner after SIGTERM has not waited for anything, in seconds.
const AT_ONCE: f64 = 0.3;

/// A name in the `Server` or `X-Powered-By` header, and what mends the server's stop.
const SERVERS: [(&str, &str); 6] = [
    (
        "uvicorn",
        "uvicorn: --timeout-graceful-shutdown=SECONDS bounds how long it waits for requests after SIGTERM; without it, it waits \
         for as long as they take",
    ),
    (
        "gunicorn",
        "gunicorn: --graceful-timeout=SECONDS (30 unless set) is how long it waits for requests after SIGTERM; make it as long \
         as the longest request",
    ),
    (
        "nginx",
        "nginx: SIGTERM cuts requests off, SIGQUIT waits for them; write STOPSIGNAL SIGQUIT in the image's Dockerfile, and \
         worker_shutdown_timeout to bound it",
    ),
    (
        "express",
        "Node: process.on('SIGTERM', () => server.close()) waits for requests; without a handler they are cut off",
    ),
    (
        "werkzeug",
        "Flask's development server cuts requests off at SIGTERM; use gunicorn or another server that waits",
    ),
    (
        "basehttp",
        "Python's http.server cuts requests off at SIGTERM; handle it with server.shutdown() in another thread",
    ),
];

/// What an app does at SIGTERM, as one run shows it.
#[derive(Debug, Default, PartialEq)]
struct AtSigterm {
    /// Requests in flight at the app when SIGTERM came, and how many of them were lost.
    in_flight: usize,
    in_flight_lost: usize,
    /// New connections after SIGTERM, while its process ran: answered, and refused or reset.
    served: usize,
    turned_away: usize,
    /// Requests on kept connections that began after SIGTERM and were lost.
    kept_lost: usize,
    /// Seconds from SIGTERM to its end.
    took: f64,
}

impl AtSigterm {
    fn of(run: &Run) -> Self {
        let sigterm = run.end.sigterm;
        let mut seen = Self {
            took: run.end.app_ended - sigterm,
            ..Self::default()
        };
        for request in run.requests.iter().filter(|request| request.instance == 0) {
            let lost = request.cause.is_some();
            if request.began < sigterm && request.ended >= sigterm {
                seen.in_flight += 1;
                seen.in_flight_lost += usize::from(lost);
            } else if request.began >= sigterm && run.moment(request) == Moment::AfterSigterm {
                seen.take_later(request);
            }
        }
        seen
    }

    /// A request that began after SIGTERM and ended while the process ran.
    fn take_later(&mut self, request: &Request) {
        match (request.reused, request.cause) {
            (true, Some(_)) => self.kept_lost += 1,
            (false, None) => self.served += 1,
            (false, Some(Cause::Refused | Cause::Reset | Cause::Closed)) => self.turned_away += 1,
            _ => {}
        }
    }
}

/// Advice, a sentence or two each.
pub fn advice(runs: &[Run], page: Option<&Page>, settings: &Settings) -> Vec<String> {
    let mut advice = Vec::new();
    // Without a hook, SIGTERM comes while clients still send.
    if let Some(run) = runs
        .iter()
        .find(|run| run.way != Way::Gracekeeper)
        .or(runs.first())
    {
        advice.extend(at_sigterm(run, settings));
    }
    let server = runs.iter().find_map(|run| run.server.as_deref());
    let loses = runs.iter().any(|run| run.lost() > 0);
    if loses {
        advice.extend(server.and_then(framework));
    }
    advice.extend(source(page, settings));
    if let Some(run) = runs.iter().find(|run| run.way.has_sidecar()) {
        advice.extend(of_gracekeeper(run));
    }
    advice
}

/// What the app does at SIGTERM.
fn at_sigterm(run: &Run, settings: &Settings) -> Vec<String> {
    let seen = AtSigterm::of(run);
    let mut advice = Vec::new();
    if run.end.sigterm > run.end.app_ended - 1e-3
        && run.way != Way::None
        && run.end.hook_answered.is_none()
    {
        advice.push(format!(
            "the app ended by itself with {}, before SIGTERM",
            run.end.status
        ));
        return advice;
    }
    if run.end.killed && seen.turned_away > 0 {
        advice.push(format!(
            "after SIGTERM the app stops listening but does not end: it was killed when the grace period of {} was over, most \
             likely while it waited for clients to close their kept connections. Let it close those that are idle, or bound \
             how long it waits (Node: server.closeIdleConnections() after server.close())",
            humantime::format_duration(settings.grace_period)
        ));
    } else if run.end.killed {
        advice.push(format!(
            "the app ignores SIGTERM: it was killed when the grace period of {} was over. If its command is a shell script, end \
             that with exec, so that the app gets the signal; else handle SIGTERM",
            humantime::format_duration(settings.grace_period)
        ));
    } else if seen.in_flight_lost > 0 {
        let how = if seen.took < AT_ONCE {
            "exits at once"
        } else {
            "exits"
        };
        advice.push(format!(
            "at SIGTERM the app {how} ({:.1} s, {}) and drops {} of {} requests in flight: let it finish them, or let \
             gracekeeper wait for them before SIGTERM",
            seen.took, run.end.status, seen.in_flight_lost, seen.in_flight
        ));
    } else if seen.in_flight > 0 {
        advice.push(format!(
            "at SIGTERM the app finishes what it has: all of {} requests in flight were answered, and it ended after {:.1} s",
            seen.in_flight, seen.took
        ));
        if seen.kept_lost == 0 {
            advice.push(
                "so --app-shutdown=graceful fits: SIGTERM comes as soon as the routes have changed, and the app ends its work; \
                 compare it with --compare gracekeeper,gracekeeper:graceful"
                    .to_owned(),
            );
        }
    }
    if seen.turned_away > 0 {
        advice.push(format!(
            "after SIGTERM it takes no new connections: {} were turned away while routes still led to it. So SIGTERM must not \
             come before the routes have changed, which is what a preStop hook is for",
            seen.turned_away
        ));
    } else if seen.served > 0 && !run.end.killed {
        advice.push(format!(
            "after SIGTERM it still takes new connections: {} were answered",
            seen.served
        ));
    }
    if seen.kept_lost > 0 {
        advice.push(format!(
            "after SIGTERM it closes kept connections with a request on the way: {} requests were lost so. Let it answer with \
             Connection: close while it drains: see --notify and --drain-file",
            seen.kept_lost
        ));
    }
    if run.end.left_behind > 0 {
        advice.push(format!(
            "its first process ended and left {} behind, which end with the container: let it wait for its children",
            run.end.left_behind
        ));
    }
    advice
}

/// What mends this server, where that is known.
pub fn framework(server: &str) -> Option<String> {
    let server = server.to_lowercase();
    let known = SERVERS.iter().find(|(name, _)| server.contains(name));
    known.map(|(_, advice)| (*advice).to_owned())
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
fn of_gracekeeper(run: &Run) -> Vec<String> {
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

/// What to paste into the pod: the sidecar, and the app's hook.
pub fn yaml(settings: &Settings) -> String {
    let port = port(settings);
    let comment = if settings.chooses_port() {
        " # your app's port"
    } else {
        ""
    };
    let flags = settings.sidecar.iter().map(|flag| {
        let with_comment = if flag.contains(PORT) { comment } else { "" };
        format!(
            "        - {}{with_comment}\n",
            quoted(&flag.replace(PORT, &port))
        )
    });
    let flags: String = flags.collect();
    let grace = settings.grace_period.as_secs().max(1);
    format!(
        "\
spec:
  terminationGracePeriodSeconds: {grace}
  initContainers:
    - name: gracekeeper
      image: registry.example/gracekeeper:{version}
      restartPolicy: Always # a native sidecar
      args:
        - run
{flags}      readinessProbe:
        httpGet: {{ path: /readyz, port: 9903 }}
        periodSeconds: 2
      lifecycle:
        preStop:
          httpGet: {{ path: /prestop/self, port: 9903 }}
  containers:
    - name: app # yours
      lifecycle:
        preStop:
          httpGet: {{ path: /prestop/app, port: 9903 }}
",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// A text as YAML, in quotes where plain text would be something else.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=./".contains(c);
    match text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "''")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::testing::{request, run};
    use super::*;

    fn settings(line: &str) -> Settings {
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

    #[test]
    fn the_yaml_has_the_flags_of_the_sidecar() {
        let given = settings(
            "gracekeeper rehearse --url=http://127.0.0.1:{port}/ --inflight prometheus+http://127.0.0.1:{port}/m#a --grace-period=45s -- app",
        );
        let yaml = yaml(&given);
        for part in [
            "        - '--inflight=prometheus+http://127.0.0.1:8000/m#a' # your app's port\n",
            "        - --app-port=8000 # your app's port\n",
            "        - --grace-period=45s\n",
            "terminationGracePeriodSeconds: 45\n",
        ] {
            assert!(yaml.contains(part), "{part} in {yaml}");
        }
    }
}
