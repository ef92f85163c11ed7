//! What was seen of a restart in a cluster, and what is said of it; the latter by pure functions of the former.

use std::collections::BTreeMap;

use anyhow::Context as _;
use tokio::time::Instant;

use super::Settings;
use super::load::LoadPod;
use super::plan::Plan;
use super::pods::{PodWatch, SeenPod};
use super::verdicts::Said;
use super::workload::Ending;
use crate::rehearse::advice::framework;
use crate::rehearse::record::{self, Cause, Request};
use crate::rehearse::verdict::grouped;

/// The exit status of a process that SIGKILL ended.
const KILLED: i32 = 137;

/// A restart under load. Times are in seconds from the deletion of the first pod.
#[derive(Debug)]
pub struct Rollout {
    /// Such as `deployment/web`.
    pub workload: String,
    pub namespace: String,
    pub urls: Vec<String>,
    pub rate: u32,
    /// What its pods had for their end.
    pub ending: Ending,
    /// All pods ended before new ones started.
    pub recreates: bool,
    pub requests: Vec<Request>,
    /// The pods that ended, in the order of their deletion.
    pub pods: Vec<PodEnd>,
    /// When the restart was asked for, and when all pods were new and the old ones gone.
    pub restarted: f64,
    pub settled: f64,
    pub server: Option<String>,
}

/// How a pod ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PodEnd {
    pub name: String,
    pub deleted: f64,
    /// When the API showed that all of its app's containers had ended; none where it never did.
    pub app_ended: Option<f64>,
    pub gone: f64,
    pub exit_status: Option<i32>,
    /// What gracekeeper said of its drain.
    pub verdict: Option<String>,
    /// What it said of requests that were cut off.
    pub cut: Option<String>,
}

/// When a request was lost, by what had happened to the pod whose app ended nearest to it: a Service does not say which
/// pod a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    BeforeDeletion,
    BeforeAppEnded,
    AfterAppEnded,
    AfterGone,
}

impl Moment {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Moment::BeforeDeletion => "beforeDeletion",
            Moment::BeforeAppEnded => "beforeAppEnded",
            Moment::AfterAppEnded => "afterAppEnded",
            Moment::AfterGone => "afterGone",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Moment::BeforeDeletion => "before the first deletion",
            Moment::BeforeAppEnded => "before the app of a deleted pod had ended",
            Moment::AfterAppEnded => "after it had ended",
            Moment::AfterGone => "after the pod was gone",
        }
    }
}

impl PodEnd {
    /// Seconds from its deletion until it was gone.
    pub fn gone_after(&self) -> f64 {
        self.gone - self.deleted
    }

    /// The outcome of its drain, in a word.
    pub fn outcome(&self) -> Option<&str> {
        self.verdict.as_deref()?.split_whitespace().next()
    }
}

/// What was seen, put together.
///
/// # Errors
/// When not all results of the clients came.
pub fn of(
    plan: &Plan,
    settings: &Settings,
    load: &LoadPod,
    watch: &PodWatch,
    (restarted, settled): (Instant, Instant),
    said: &BTreeMap<String, Said>,
) -> anyhow::Result<Rollout> {
    let received = load.received();
    let (sent, zero) = received.requests()?;
    let old = watch.old();
    let first = (old.iter().filter_map(|pod| pod.deleted).min())
        .context("no pod was deleted, so nothing was restarted")?;
    let since = |at: Instant| match at.checked_duration_since(first) {
        Some(after) => after.as_secs_f64(),
        None => -(first - at).as_secs_f64(),
    };
    let zero = since(zero);
    let requests = sent.into_iter().map(|sent| Request {
        began: zero + sent.0 as f64 / 1e6,
        ended: zero + sent.1 as f64 / 1e6,
        reused: sent.2,
        target: sent.3,
        instance: 0,
        cause: sent.4,
    });
    let end = |pod: &SeenPod| {
        let said = said.get(&pod.uid).or_else(|| said.get(&pod.name)).cloned();
        let said = said.unwrap_or_default();
        PodEnd {
            name: pod.name.clone(),
            deleted: pod.deleted.map_or(0.0, since),
            app_ended: pod.app_ended.map(since),
            gone: pod.gone.map_or(0.0, since),
            exit_status: pod.exit_status,
            verdict: said.verdict.or(pod.last_words.clone()),
            cut: said.cut,
        }
    };
    Ok(Rollout {
        workload: plan.workload.reference.to_string(),
        namespace: plan.namespace.clone(),
        urls: (settings.load.targets.iter())
            .map(|it| it.url.clone())
            .collect(),
        rate: settings.load.rate,
        ending: plan.workload.ending,
        recreates: plan.workload.recreates,
        requests: requests.collect(),
        pods: old.iter().map(end).collect(),
        restarted: since(restarted),
        settled: since(settled),
        server: received.server(),
    })
}

/// The moment that counts of a request that was lost, in seconds: its end; but where a client waited in vain, its
/// beginning.
pub fn lost_at(request: &Request) -> f64 {
    match request.cause {
        Some(Cause::TimedOut) => request.began,
        _ => request.ended,
    }
}

impl Rollout {
    /// How many requests were lost.
    pub fn lost(&self) -> usize {
        self.failures().count()
    }

    /// The requests that were lost.
    pub fn failures(&self) -> impl Iterator<Item = (&Request, Cause)> {
        record::failures(&self.requests)
    }

    /// The longest that a pod took to go, in seconds.
    pub fn longest_gone(&self) -> f64 {
        self.pods.iter().map(PodEnd::gone_after).fold(0.0, f64::max)
    }

    /// Of the pods that had been deleted at that moment, the one whose app ended nearest to it.
    pub fn nearest(&self, at: f64) -> Option<&PodEnd> {
        let deleted = self.pods.iter().filter(|pod| pod.deleted <= at);
        let distance = |pod: &&PodEnd| (at - pod.app_ended.unwrap_or(pod.gone)).abs();
        deleted.min_by(|a, b| distance(a).total_cmp(&distance(b)))
    }

    /// When a request was lost.
    pub fn moment(&self, request: &Request) -> Moment {
        let at = lost_at(request);
        match self.nearest(at) {
            None => Moment::BeforeDeletion,
            Some(pod) if at >= pod.gone => Moment::AfterGone,
            Some(pod) if pod.app_ended.is_some_and(|ended| at >= ended) => Moment::AfterAppEnded,
            Some(_) => Moment::BeforeAppEnded,
        }
    }

    /// How often requests were lost at each moment.
    pub fn moments(&self) -> BTreeMap<Moment, usize> {
        let mut moments = BTreeMap::new();
        for (request, _) in self.failures() {
            *moments.entry(self.moment(request)).or_default() += 1;
        }
        moments
    }

    /// The first and the last moment.
    pub fn span(&self) -> (f64, f64) {
        record::span(&self.requests, self.settled)
    }

    /// What was lost, in one sentence.
    pub fn sentence(&self) -> String {
        let gone = self.pods.iter().map(PodEnd::gone_after);
        let (least, most) = gone.fold((f64::MAX, 0.0), |(least, most), gone| {
            (f64::min(least, gone), f64::max(most, gone))
        });
        let after = match self.pods.len() {
            1 => format!("its pod was gone after {most:.1} s"),
            n => format!("{n} pods were gone after {least:.1} to {most:.1} s each"),
        };
        format!(
            "{} with {}: {} of {} requests lost, {after}",
            self.workload,
            self.ending.title(),
            grouped(self.lost()),
            grouped(self.requests.len()),
        )
    }

    /// Advice, a sentence or two each.
    pub fn advice(&self) -> Vec<String> {
        let mut advice = Vec::new();
        let before = self.moments().get(&Moment::BeforeDeletion).copied();
        if let Some(before) = before {
            advice.push(format!(
                "{before} requests were lost before a pod was deleted: that is not the restart's doing"
            ));
        }
        if self.lost() > before.unwrap_or_default() {
            advice.extend(self.about_losses());
        }
        let killed = self
            .pods
            .iter()
            .filter(|pod| pod.exit_status == Some(KILLED))
            .count();
        if killed > 0 {
            advice.push(format!(
                "the app of {killed} of {} pods was killed (exit status 137): it had not ended when the grace period was over, \
                 or it had too little memory",
                self.pods.len()
            ));
        }
        let uncounted = (self.pods.iter())
            .filter(|pod| pod.verdict.is_none())
            .count();
        if matches!(self.ending, Ending::Sidecar | Ending::Hook) && uncounted > 0 {
            advice.push(format!(
                "of {uncounted} of {} pods there is no verdict: their service account may not create Events \
                 (docs/configuration.md), or the Events are gone",
                self.pods.len()
            ));
        }
        advice
    }

    /// What mends what was lost.
    fn about_losses(&self) -> Vec<String> {
        let mut advice = Vec::new();
        if self.recreates {
            advice.push(
                "its strategy is Recreate, which ends all pods before new ones start; RollingUpdate loses less".to_owned(),
            );
        } else if self.pods.len() == 1 && self.workload.starts_with("statefulset") {
            advice.push(
                "it has one pod, and a StatefulSet ends it before the new one starts; a second replica serves meanwhile"
                    .to_owned(),
            );
        }
        let outcome = |names: &[&str]| {
            let of = |pod: &&PodEnd| {
                pod.outcome()
                    .is_some_and(|outcome| names.contains(&outcome))
            };
            self.pods.iter().filter(of).count()
        };
        let all = self.pods.len();
        match self.ending {
            Ending::None => advice.push(
                "its pods have no preStop hook, so SIGTERM comes while routes still lead to them: add gracekeeper with \
                 gracekeeper inject, and compare ways with gracekeeper rehearse on your machine"
                    .to_owned(),
            ),
            Ending::Sleep(seconds) => advice.push(format!(
                "its hook sleeps {seconds} s and then SIGTERM comes, whatever is in flight: gracekeeper waits for the work, \
                 and tells clients that keep their connections (--notify)"
            )),
            Ending::SidecarAlone => advice.push(
                "gracekeeper's container is there, and the app's container has no hook that asks it: SIGTERM comes at once; \
                 see docs/install.md"
                    .to_owned(),
            ),
            Ending::OtherHook => {
                advice.push("its hook lets SIGTERM come while requests are in flight".to_owned());
            }
            Ending::Sidecar | Ending::Hook if outcome(&["persistent", "deadline"]) > 0 => {
                advice.push(format!(
                    "{} of {all} drains ended with clients on kept connections, or at the deadline: only the app can move \
                     such clients, by answering with Connection: close while it drains. Tell it with --notify or \
                     --drain-file: docs/telling-the-app.md",
                    outcome(&["persistent", "deadline"]),
                ));
            }
            Ending::Sidecar | Ending::Hook => advice.push(
                "the drains ended well, and yet requests were lost: look at when, below; new pods that are ready before they \
                 serve lose them too"
                    .to_owned(),
            ),
        }
        advice.extend(self.server.as_deref().and_then(framework));
        advice
    }
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// Two pods, one after the other, and these requests.
    pub fn rollout(ending: Ending, requests: Vec<Request>) -> Rollout {
        let pod = |name: &str, deleted: f64| PodEnd {
            name: name.to_owned(),
            deleted,
            app_ended: Some(deleted + 5.0),
            gone: deleted + 6.0,
            exit_status: Some(0),
            verdict: None,
            cut: None,
        };
        Rollout {
            workload: "deployment/web".to_owned(),
            namespace: "shop".to_owned(),
            urls: vec!["http://web/work".to_owned()],
            rate: 50,
            ending,
            recreates: false,
            requests,
            pods: vec![pod("web-1", 0.0), pod("web-2", 8.0)],
            restarted: -1.0,
            settled: 14.0,
            server: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::record::testing::request;
    use super::testing::rollout;
    use super::*;

    #[test]
    fn a_loss_has_its_moment_by_the_pods() {
        let rollout = rollout(Ending::None, Vec::new());
        let moment = |at| rollout.moment(&request(-3.0, at, Some(Cause::Refused)));
        assert_eq!(moment(-1.0), Moment::BeforeDeletion);
        assert_eq!(moment(4.0), Moment::BeforeAppEnded);
        assert_eq!(moment(5.5), Moment::AfterAppEnded);
        assert_eq!(moment(7.0), Moment::AfterGone);
        assert_eq!(moment(9.5), Moment::BeforeAppEnded);
        assert_eq!(moment(20.0), Moment::AfterGone);
        let waited = request(4.0, 20.0, Some(Cause::TimedOut));
        assert_eq!(rollout.moment(&waited), Moment::BeforeAppEnded);
    }

    #[test]
    fn the_sentence_says_what_the_pods_have_and_how_long_they_took() {
        let lost = request(0.0, 1.0, Some(Cause::Refused));
        let rollout = rollout(Ending::Sleep(15.0), vec![lost, request(0.0, 1.0, None)]);
        assert_eq!(
            rollout.sentence(),
            "deployment/web with sleep 15: 1 of 2 requests lost, 2 pods were gone after 6.0 to 6.0 s each"
        );
        assert!(rollout.advice()[0].contains("sleeps 15 s"));
    }

    #[test]
    fn what_was_lost_before_the_restart_is_not_blamed_on_it() {
        let early = request(-2.0, -1.0, Some(Cause::ServerError));
        let advice = rollout(Ending::None, vec![early]).advice();
        assert_eq!(advice.len(), 1);
        assert!(advice[0].contains("not the restart's doing"), "{advice:?}");
    }

    #[test]
    fn clients_that_kept_their_connections_are_named_where_the_drains_say_so() {
        let lost = request(8.0, 13.0, Some(Cause::Closed));
        let mut rollout = rollout(Ending::Sidecar, vec![lost]);
        for pod in &mut rollout.pods {
            pod.verdict = Some("persistent after 15.0s of at most 25s".to_owned());
        }
        let advice = rollout.advice();
        assert!(
            advice[0].contains("2 of 2 drains") && advice[0].contains("--notify"),
            "{advice:?}"
        );
        rollout.pods[0].exit_status = Some(KILLED);
        rollout.pods[1].verdict = None;
        let advice = rollout.advice();
        assert!(
            advice
                .iter()
                .any(|it| it.contains("1 of 2 pods was killed")),
            "{advice:?}"
        );
        assert!(
            advice.iter().any(|it| it.contains("there is no verdict")),
            "{advice:?}"
        );
    }
}
