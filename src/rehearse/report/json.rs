//! A rehearsal as JSON. Keys may be added, none is renamed; what was not seen is null.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::cluster::rollout::{self, PodEnd, Rollout};
use super::super::record::{self, Cause, Moment, Rehearsal, Run};

/// How far apart the counts of requests in flight are, in seconds.
const STEP: f64 = 0.1;

/// The text.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn text(rehearsal: &Rehearsal) -> serde_json::Result<String> {
    let value = json!({
        "runs": rehearsal.runs.iter().map(run).collect::<Vec<_>>(),
        "verdict": rehearsal.verdict,
        "doubt": rehearsal.doubt,
        "advice": rehearsal.advice,
        "yaml": rehearsal.yaml,
        "command": rehearsal.command,
        "alone": rehearsal.alone.is_some(),
        "aloneBecause": rehearsal.alone,
        "requestsPerSecond": rehearsal.rate,
        "routesSeconds": rehearsal.routes.as_secs_f64(),
        "restart": rehearsal.restart,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

fn run(run: &Run) -> Value {
    let (from, to) = run.span();
    let steps = ((to - from) / STEP).ceil() as usize + 1;
    json!({
        "way": run.way.to_string(),
        "requests": run.requests.len(),
        "failed": run.lost(),
        "causes": counts(run.failures().map(|(_, cause)| cause), Cause::name),
        "moments": counts(run.failures().map(|(request, _)| run.moment(request)), Moment::name),
        "goneSeconds": rounded(run.end.gone),
        "hookAnsweredSeconds": run.end.hook_answered.map(rounded),
        "sigtermSeconds": rounded(run.end.sigterm),
        "appEndedSeconds": rounded(run.end.app_ended),
        "appStatus": run.end.status,
        "killed": run.end.killed,
        "longestWaitSeconds": run.longest_wait().map(rounded),
        "hookFailed": run.end.hook_failed,
        "verdict": run.end.verdict,
        "failures": run.failures().map(|(request, cause)| json!({
            "beganSeconds": rounded(request.began),
            "endedSeconds": rounded(request.ended),
            "cause": cause.name(),
            "keptConnection": request.reused,
            "url": request.target,
            "instance": request.instance,
        })).collect::<Vec<_>>(),
        "inFlight": {
            "fromSeconds": rounded(from),
            "stepSeconds": STEP,
            "counts": run.in_flight(from, STEP, steps, None),
        },
    })
}

/// The text of a restart in a cluster: a rehearsal with one run, whose way is what the pods had.
///
/// # Errors
/// When it cannot be written as JSON.
pub fn rollout(rollout: &Rollout) -> serde_json::Result<String> {
    let (from, to) = rollout.span();
    let steps = ((to - from) / STEP).ceil() as usize + 1;
    let run = json!({
        "way": rollout.ending.to_string(),
        "requests": rollout.requests.len(),
        "failed": rollout.lost(),
        "causes": counts(rollout.failures().map(|(_, cause)| cause), Cause::name),
        "moments": counts(
            rollout.failures().map(|(request, _)| rollout.moment(request)),
            rollout::Moment::name,
        ),
        "goneSeconds": rounded(rollout.longest_gone()),
        "restartedSeconds": rounded(rollout.restarted),
        "settledSeconds": rounded(rollout.settled),
        "longestWaitSeconds": record::longest_wait(&rollout.requests).map(rounded),
        "pods": rollout.pods.iter().map(pod).collect::<Vec<_>>(),
        "failures": rollout.failures().map(|(request, cause)| json!({
            "beganSeconds": rounded(request.began),
            "endedSeconds": rounded(request.ended),
            "cause": cause.name(),
            "keptConnection": request.reused,
            "url": request.target,
            "moment": rollout.moment(request).name(),
            "pod": rollout.nearest(rollout::lost_at(request)).map(|pod| &pod.name),
            "sinceDeletionSeconds": rollout.nearest(rollout::lost_at(request))
                .map(|pod| rounded(rollout::lost_at(request) - pod.deleted)),
        })).collect::<Vec<_>>(),
        "inFlight": {
            "fromSeconds": rounded(from),
            "stepSeconds": STEP,
            "counts": record::in_flight(&rollout.requests, from, STEP, steps),
        },
    });
    let value = json!({
        "runs": [run],
        "verdict": rollout.sentence(),
        "advice": rollout.advice(),
        "workload": rollout.workload,
        "namespace": rollout.namespace,
        "requestsPerSecond": rollout.rate,
    });
    Ok(format!("{}\n", serde_json::to_string_pretty(&value)?))
}

fn pod(pod: &PodEnd) -> Value {
    json!({
        "name": pod.name,
        "deletedSeconds": rounded(pod.deleted),
        "appEndedSeconds": pod.app_ended.map(|at| rounded(at - pod.deleted)),
        "goneSeconds": rounded(pod.gone_after()),
        "exitStatus": pod.exit_status,
        "outcome": pod.outcome(),
        "verdict": pod.verdict,
        "cut": pod.cut,
    })
}

/// How often each is there.
fn counts<T: Ord>(
    all: impl Iterator<Item = T>,
    name: fn(T) -> &'static str,
) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::new();
    for one in all {
        *counts.entry(name(one)).or_default() += 1;
    }
    counts
}

/// To the millisecond.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}
