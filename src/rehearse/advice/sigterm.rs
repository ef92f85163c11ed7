//! What an app does at SIGTERM.

use std::time::Duration;

use super::super::record::{Cause, Moment, Request, Run};
use super::super::way::Way;

/// An app that ends sooner after SIGTERM has not waited for anything, in seconds.
const AT_ONCE: f64 = 0.3;

/// What an app does at SIGTERM, as one run shows it.
#[derive(Debug, Default, PartialEq)]
pub struct AtSigterm {
    /// Requests in flight at the app when SIGTERM came, and how many of them were lost.
    pub in_flight: usize,
    pub in_flight_lost: usize,
    /// New connections after SIGTERM, while its process ran: answered, and refused or reset.
    served: usize,
    turned_away: usize,
    /// Requests on kept connections that began after SIGTERM and were lost.
    kept_lost: usize,
    /// Seconds from SIGTERM to its end.
    took: f64,
}

impl AtSigterm {
    /// What a run shows.
    pub fn of(run: &Run) -> Self {
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

/// What the app does at SIGTERM.
pub fn advice(
    run: &Run,
    seen: &AtSigterm,
    grace_period: Duration,
    is_compared: bool,
) -> Vec<String> {
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
            humantime::format_duration(grace_period)
        ));
    } else if run.end.killed {
        advice.push(format!(
            "the app ignores SIGTERM: it was killed when the grace period of {} was over. If its command is a shell script, end \
             that with exec, so that the app gets the signal; else handle SIGTERM",
            humantime::format_duration(grace_period)
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
            let compare = match is_compared {
                true => "",
                false => "; compare it with --compare gracekeeper,gracekeeper:graceful",
            };
            advice.push(format!(
                "so --app-shutdown=graceful fits: SIGTERM comes as soon as the routes have changed, and the app ends its \
                 work{compare}"
            ));
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
