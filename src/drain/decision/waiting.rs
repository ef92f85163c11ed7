//! What a drain waits for, in words.

use std::fmt::Write as _;

use tokio::time::Instant;

use super::{CountedRoutes, Facts, SourceHistory, TrafficFacts};
use crate::drain::{Policy, Reading, TrafficSnapshot};

impl Facts {
    /// What the drain waits for now, by the same rules as [`super::decide`]; `names` are the sources'.
    pub fn waiting_for<'a>(
        &self,
        policy: &Policy,
        names: impl Iterator<Item = &'a str>,
        now: Instant,
    ) -> String {
        match self.min_wait_over(policy) {
            None => return "Services that still send requests to this pod".to_owned(),
            Some(over) if now < over => return "the end of min-wait".to_owned(),
            Some(_) => {}
        }
        let counted = self.counted_routes(policy);
        if counted == Some(CountedRoutes::LeadHere) {
            return "requests that are still counted".to_owned();
        }
        match &self.traffic {
            TrafficFacts::Awaited => return "the first look at the traffic".to_owned(),
            TrafficFacts::Seen(last) if counted.is_none() && last.routes_changed.is_none() => {
                return arrivals(&last.snapshot);
            }
            TrafficFacts::Seen(_) | TrafficFacts::Unwatched => {}
        }
        let unanswered = self.snapshot().map_or(0, |snapshot| snapshot.unanswered);
        let other_port = self.snapshot().and_then(|snapshot| snapshot.other_port);
        let mut parts: Vec<_> = (self.sources.iter().zip(names))
            .filter_map(|(history, name)| source(history, name, policy, other_port))
            .collect();
        if parts.is_empty() && unanswered > 0 {
            parts.push(format!(
                "connections that brought a request and got no answer: {unanswered}"
            ));
        }
        if parts.is_empty() {
            parts.push("quiet that lasts".to_owned());
        }
        parts.join("; ")
    }
}

/// Who still arrives.
fn arrivals(snapshot: &TrafficSnapshot) -> String {
    match snapshot.visitors.arriving_text() {
        Some(arriving) => format!("requests that still arrive from {arriving}"),
        None if snapshot.arrivals == 0 => {
            "the first look at the traffic since the end of min-wait".to_owned()
        }
        None => "a longer silence after the last requests that arrived".to_owned(),
    }
}

/// What a source keeps the drain waiting with, if it does.
fn source(
    history: &SourceHistory,
    name: &str,
    policy: &Policy,
    other_port: Option<u16>,
) -> Option<String> {
    let mut text = match history.last() {
        Some(Reading::Count(n)) if n <= policy.max_inflight => return None,
        Some(Reading::Count(n)) => format!("{n} in flight by {name}"),
        Some(Reading::Unknown) => format!("{name}, which cannot be read"),
        Some(Reading::Gone | Reading::Absent) => {
            format!("{name}, on whose port nothing listens")
        }
        None => format!("the first read of {name}"),
    };
    if let (Some(Reading::Absent), Some(port)) = (history.last(), other_port) {
        let _ = write!(text, " (something listens on {port}: is that the app's?)");
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::drain::testing::{SECOND, TestPod, WatchedPod, policy};
    use crate::drain::{Arriving, Trigger, Visitors};

    async fn at_the_deadline(pod: &TestPod) -> Arc<str> {
        let verdict = pod.drain(Trigger::SelfHook).await;
        verdict.waiting_for.clone().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_that_ends_at_the_deadline_says_what_it_waited_for() {
        let busy = TestPod::new(Reading::Count(3.0));
        assert_eq!(&*at_the_deadline(&busy).await, "3 in flight by s0");
        let unknown = TestPod::with(policy(), &[Reading::Count(0.0), Reading::Unknown]);
        assert_eq!(
            &*at_the_deadline(&unknown).await,
            "s1, which cannot be read"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_still_arrive_are_named_with_their_rate() {
        let watched = WatchedPod::with(policy(), Reading::Count(0.0));
        watched.change(|snapshot| {
            snapshot.listens = true;
            snapshot.visitors = Arc::new(Visitors {
                arriving: vec![Arriving {
                    address: [10, 0, 0, 7].into(),
                    arrivals: 20,
                    per_second: 1.25,
                }],
                arriving_count: 1,
                ..Visitors::default()
            });
        });
        let arrives = async {
            loop {
                watched.arrive();
                tokio::time::sleep(SECOND).await;
            }
        };
        tokio::select! {
            () = arrives => {}
            waiting_for = at_the_deadline(&watched.pod) => assert_eq!(
                &*waiting_for,
                "requests that still arrive from 10.0.0.7 at 1.25/s"
            ),
        }
    }

    #[test]
    fn a_silence_is_after_requests_alone() {
        let after = |requests: u64| {
            arrivals(&TrafficSnapshot {
                arrivals: requests,
                ..TrafficSnapshot::default()
            })
        };
        assert_eq!(
            after(0),
            "the first look at the traffic since the end of min-wait"
        );
        assert_eq!(
            after(1),
            "a longer silence after the last requests that arrived"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_state_shows_what_a_drain_waits_for_while_it_runs() {
        let pod = TestPod::new(Reading::Count(3.0));
        let _verdict = pod.handle.drain(Trigger::SelfHook).await;
        tokio::time::sleep(2 * SECOND).await;
        let shown = || pod.handle.state().waiting_for;
        assert_eq!(shown().as_deref(), Some("the end of min-wait"));
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(shown().as_deref(), Some("3 in flight by s0"));
        pod.show(0, Reading::Count(0.0));
        tokio::time::sleep(4 * SECOND).await;
        assert_eq!(shown(), None);
    }
}
