//! One drain: its callers, its deadline, what the API says of it, and its log.

use std::sync::Mutex;

use tokio::time::sleep;

use super::*;
use crate::drain::testing::{BUSY, QUIET, SECOND, TestPod, about, policy, seconds, source};
use crate::drain::{EndpointsLeft, Inputs, Policy, ReadCount, new};

#[tokio::test(start_paused = true)]
async fn hooks_join_one_drain_and_share_its_verdict() {
    let pod = TestPod::new(QUIET);
    let app = pod.handle.drain(Trigger::AppHook).await;
    sleep(Duration::from_millis(50)).await;
    let own = pod.handle.drain(Trigger::SelfHook).await;
    let late = async {
        sleep(3 * SECOND).await;
        pod.drain(Trigger::AppHook).await
    };
    let (app, own, late) = tokio::join!(app, own, late);
    let (app, own) = (app.unwrap(), own.unwrap());
    assert!(Arc::ptr_eq(&app, &own) && Arc::ptr_eq(&app, &late));
    assert_eq!((app.trigger, app.going), (Trigger::AppHook, true));
    assert!(
        about(app.took, 5.0),
        "the first call's clock counts: {app:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_release_ends_the_waiting() {
    let pod = TestPod::new(BUSY);
    assert_eq!(pod.handle.release().await, Err(Refusal::NotDraining));
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(SECOND).await;
    assert_eq!(pod.handle.release().await, Ok(()));
    let verdict = verdict.await.unwrap();
    assert_eq!(
        (verdict.outcome, verdict.inflight),
        (Outcome::Released, Some(3.0))
    );
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_goes_on_when_its_caller_goes_away() {
    let pod = TestPod::new(QUIET);
    drop(pod.handle.drain(Trigger::SelfHook).await);
    sleep(6 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Drained);
    assert_eq!(
        pod.handle.state().verdict.unwrap().outcome,
        Outcome::Drained
    );
}

#[tokio::test(start_paused = true)]
async fn the_kubelets_time_runs_from_its_own_call_and_not_from_a_drain_by_hand() {
    let mut pod = TestPod::new(BUSY);
    let by_hand = pod.handle.drain(Trigger::Manual).await;
    sleep(20 * SECOND).await;
    let hook = pod.handle.drain(Trigger::SelfHook).await;
    sleep(20 * SECOND).await;
    pod.drain(Trigger::AppHook).await;
    let verdict = hook.await.unwrap();
    assert!(Arc::ptr_eq(&verdict, &by_hand.await.unwrap()));
    assert_eq!(verdict.outcome, Outcome::Deadline);
    assert!(
        about(verdict.took, 45.0),
        "once, from the first: {verdict:?}"
    );
    assert_eq!(verdict.deadline, 45 * SECOND);
    let mut seen = Vec::new();
    while let Ok(event) = pod.events.try_recv() {
        seen.push(event);
    }
    assert!(
        matches!(
            &seen[..],
            [
                Event::Began(_),
                Event::Stopping(_),
                Event::DeadlineChanged(drain),
                Event::Ended(..)
            ] if drain.grace_ends == drain.began + 50 * SECOND
        ),
        "{seen:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn routes_have_all_of_min_wait_from_the_first_sign_that_the_app_stops() {
    let pod = TestPod::new(BUSY);
    let by_hand = pod.handle.drain(Trigger::Manual).await;
    sleep(20 * SECOND).await;
    let hook = pod.handle.drain(Trigger::AppHook).await;
    pod.show(0, QUIET);
    let verdict = hook.await.unwrap();
    assert!(about(verdict.took, 25.0), "{verdict:?}");
    assert_eq!(by_hand.await.unwrap().outcome, Outcome::Drained);
}

/// A drain of an idle app whose Services are known to have let go of it, or not, that long after its beginning.
async fn leaving(after: Duration, known: bool, policy: Policy) -> Arc<Verdict> {
    let count: ReadCount = Arc::new(|_| Box::pin(async { QUIET }));
    let leave: EndpointsLeft = Arc::new(move || {
        Box::pin(async move {
            sleep(after).await;
            known
        })
    });
    let inputs = Inputs {
        endpoints_left: Some(leave),
        ..Inputs::new(vec![source("s")], count)
    };
    let (owner, handle, _events) = new(policy, inputs);
    tokio::spawn(owner.run());
    handle.drain(Trigger::AppHook).await.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn min_wait_begins_when_services_have_let_go_of_the_pod() {
    for (after, known, outcome, took) in [
        (3.0, true, Outcome::Drained, 8.0),
        (0.0, true, Outcome::Drained, 5.0),
        (3.0, false, Outcome::Drained, 5.0),
        (9.0, false, Outcome::Drained, 9.0),
        (22.0, true, Outcome::Deadline, 25.0),
        (1e9, true, Outcome::Deadline, 25.0),
    ] {
        let verdict = leaving(seconds(after), known, policy()).await;
        assert_eq!(verdict.outcome, outcome, "{after} {known}");
        assert!(about(verdict.took, took), "{after} {known}: {verdict:?}");
    }
}

fn granted(seconds: u32) -> PodFacts {
    PodFacts {
        granted: Some(seconds * SECOND),
        ..PodFacts::default()
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_really_granted_moves_the_deadline_both_ways() {
    for (grace, expected) in [
        (60, 55.0), // The flag is too low.
        (30, 25.0),
        (12, 7.0),
        (8, 4.0), // The reserve is half of it at most.
        (2, 1.0),
        (0, 0.3), // Over as soon as that is known.
    ] {
        let pod = TestPod::new(BUSY);
        let verdict = pod.handle.drain(Trigger::AppHook).await;
        sleep(seconds(0.3)).await;
        pod.pod_facts(granted(grace)).await;
        let verdict = verdict.await.unwrap();
        assert_eq!(verdict.outcome, Outcome::Deadline);
        assert!(about(verdict.took, expected), "{grace}: {verdict:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_an_earlier_drain_or_of_none_is_passed_over() {
    let pod = TestPod::new(BUSY);
    let long_ago = Instant::now() - 100 * SECOND;
    let nonsense = PodFacts {
        going: true,
        granted: Some(Duration::ZERO),
        reason: Some("nonsense".into()),
        app_is_stopped: false,
    };
    pod.handle.pod_facts(long_ago, nonsense.clone()).await;
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    pod.handle.pod_facts(long_ago, nonsense).await;
    let verdict = verdict.await.unwrap();
    assert_eq!((verdict.going, &verdict.reason), (false, &None));
    assert!(about(verdict.took, 25.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_read_is_put_off_to_prove_what_it_can_as_early_as_it_can() {
    let pod = TestPod::with(
        Policy {
            poll_interval: seconds(0.7),
            ..policy()
        },
        &[QUIET],
    );
    let verdict = pod.drain(Trigger::AppHook).await;
    assert!(verdict.took < seconds(5.05), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_long_drain_says_every_five_seconds_that_it_goes_on() {
    let said = Arc::new(Mutex::new(Vec::new()));
    let log = said.clone();
    let writer = move || Shared(log.clone());
    let subscriber = tracing_subscriber::fmt()
        .with_writer(writer)
        .with_ansi(false)
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let pod = TestPod::new(BUSY);
    pod.drain(Trigger::AppHook).await;
    let said = String::from_utf8(said.lock().unwrap().clone()).unwrap();
    let lines: Vec<_> = said
        .lines()
        .filter(|line| line.contains("still draining"))
        .collect();
    let left: Vec<_> = [20, 15, 10, 5]
        .map(|left| format!("left_seconds={left} "))
        .into();
    assert_eq!(lines.len(), left.len(), "{said}");
    for (line, left) in lines.iter().zip(left) {
        assert!(
            line.contains("inflight=\"3\"") && line.contains(&left),
            "{line}"
        );
    }
}

/// What several writers write.
struct Shared(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
