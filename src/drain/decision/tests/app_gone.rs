//! When the app is gone.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_app_that_listens_no_more_ends_the_drain() {
    let pod = TestPod::new(Reading::Gone);
    let verdict = pod.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn one_source_gone_while_another_answers_is_unknown() {
    let pod = TestPod::with(policy(), &[Reading::Gone, QUIET]);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_joined_sigterm_needs_no_quiet_period_to_know_that_the_app_is_gone() {
    let slow = Policy {
        quiet_period: 5 * SECOND,
        ..policy()
    };
    let pod = TestPod::with(slow, &[BUSY]);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    sleep(SECOND).await;
    let _pending = pod.handle.drain(Trigger::Signal).await;
    pod.show(0, Reading::Gone);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_no_longer_listens_but_still_answers_is_not_gone() {
    // A stream, on which no client waits between two events.
    let watched = WatchedPod::with(policy(), Reading::Gone);
    watched.change(|snapshot| snapshot.open = 1);
    let verdict = watched.pod.handle.drain(Trigger::SelfHook).await;
    sleep(12 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.change(|snapshot| snapshot.open = 0);
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 12.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn an_app_whose_metrics_are_gone_is_not_while_it_listens() {
    let watched = WatchedPod::with(policy(), BUSY);
    watched.change(|snapshot| snapshot.listens = true);
    let hook = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(seconds(0.5)).await;
    // An exporter beside it has ended.
    watched.pod.show(0, Reading::Gone);
    let _pending = watched.pod.handle.drain(Trigger::Signal).await;
    sleep(20 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Draining);
    watched.change(|snapshot| snapshot.listens = false);
    assert_eq!(hook.await.unwrap().outcome, Outcome::AppGone);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_never_came_up_is_gone_after_the_quiet_period_where_the_pod_is_going() {
    let watched = WatchedPod::with(policy(), Reading::Absent);
    let verdict = watched.pod.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
    // Its container may only be started again.
    let watched = WatchedPod::with(policy(), Reading::Absent);
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_mistyped_port_does_not_end_a_drain_and_is_named() {
    let watched = WatchedPod::with(policy(), Reading::Absent);
    watched.change(|snapshot| snapshot.other_port = Some(8080));
    let _own = watched.pod.handle.drain(Trigger::SelfHook).await;
    let verdict = watched.pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
    let waiting_for = verdict.waiting_for.as_deref().unwrap();
    assert!(
        waiting_for.contains("something listens on 8080"),
        "{waiting_for}"
    );
}

#[tokio::test(start_paused = true)]
async fn another_port_is_not_the_apps_where_no_hook_of_the_app_has_come() {
    let watched = WatchedPod::with(policy(), Reading::Absent);
    watched.change(|snapshot| snapshot.other_port = Some(8080));
    let verdict = watched.pod.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 1.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn another_port_is_not_the_apps_where_none_of_its_containers_runs() {
    let watched = WatchedPod::with(policy(), Reading::Absent);
    watched.change(|snapshot| snapshot.other_port = Some(8080));
    let _own = watched.pod.handle.drain(Trigger::SelfHook).await;
    let verdict = watched.pod.handle.drain(Trigger::AppHook).await;
    sleep(3 * SECOND).await;
    let stopped = crate::drain::PodFacts {
        app_is_stopped: true,
        ..crate::drain::PodFacts::default()
    };
    watched.pod.pod_facts(stopped).await;
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    assert!(about(verdict.took, 3.0), "{verdict:?}");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_answers_decides_beside_a_port_on_which_nothing_listens() {
    let pod = TestPod::with(policy(), &[Reading::Absent, BUSY]);
    let verdict = pod.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_still_open_is_waited_for_without_a_listener() {
    let watched = WatchedPod::with(policy(), Reading::Absent);
    watched.change(|snapshot| snapshot.open = 1);
    let verdict = watched.pod.drain(Trigger::SelfHook).await;
    assert_eq!(verdict.outcome, Outcome::Deadline);
}
