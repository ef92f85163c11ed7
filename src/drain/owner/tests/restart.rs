//! A pod that is going stays drained; one whose app is restarted serves again.

use super::*;

#[tokio::test(start_paused = true)]
async fn once_the_pod_is_going_later_hooks_get_the_verdict_at_once() {
    let pod = TestPod::new(QUIET);
    let first = pod.drain(Trigger::SelfHook).await;
    pod.show(0, BUSY);
    let again = timeout(Duration::from_millis(1), pod.drain(Trigger::AppHook))
        .await
        .unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    assert_eq!(pod.phase(), Phase::Drained);
    sleep(3600 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Drained);
    assert!(!pod.ready());
}

#[tokio::test(start_paused = true)]
async fn a_lone_app_hook_is_a_restart_and_the_pod_reopens_when_the_app_is_back() {
    let mut pod = TestPod::new(QUIET);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert!(!verdict.going);
    assert_eq!(pod.phase(), Phase::Reopening);
    sleep(2 * SECOND).await;
    assert_eq!(
        pod.phase(),
        Phase::Reopening,
        "the old process still answers, which means nothing"
    );
    pod.show(0, Reading::Gone);
    sleep(2 * SECOND).await;
    assert!(!pod.ready());
    pod.show(0, Reading::Unknown); // It listens again, and has no series yet.
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Serving);
    assert!(pod.ready());
    let mut seen = Vec::new();
    while let Ok(event) = pod.events.try_recv() {
        seen.push(match event {
            Event::Began(_) => "began",
            Event::Stopping(_) => "stopping",
            Event::DeadlineChanged(_) => "deadline changed",
            Event::Ended(..) => "ended",
            Event::AppEnded(..) => "app ended",
            Event::Serving => "serving",
        });
    }
    assert_eq!(seen, ["began", "stopping", "ended", "serving"]);
}

#[tokio::test(start_paused = true)]
async fn an_app_never_seen_down_is_back_once_the_kubelet_would_have_killed_it() {
    let pod = TestPod::new(QUIET);
    pod.drain(Trigger::AppHook).await;
    sleep(seconds(24.5)).await;
    assert_eq!(pod.phase(), Phase::Reopening);
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Serving);
}

#[tokio::test(start_paused = true)]
async fn an_app_that_was_gone_is_back_once_every_source_listens() {
    let pod = TestPod::with(policy(), &[Reading::Gone, Reading::Gone]);
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.outcome, Outcome::AppGone);
    pod.show(0, BUSY);
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Reopening, "the other one is still down");
    pod.show(1, Reading::Unknown);
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Serving);

    // Both are back before they are read again.
    let pod = TestPod::with(policy(), &[Reading::Gone]);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    let verdict = verdict.await.unwrap();
    assert_eq!(verdict.outcome, Outcome::AppGone);
    pod.show(0, QUIET);
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Serving, "it was seen to be gone");
}

#[tokio::test(start_paused = true)]
async fn a_second_caller_never_gets_an_earlier_drains_verdict() {
    let pod = TestPod::new(QUIET);
    let first = pod.drain(Trigger::AppHook).await;
    // While it reopens, and once it serves again: each a drain of its own.
    let second = pod.drain(Trigger::AppHook).await;
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(about(second.took, 5.0), "{second:?}");
    pod.show(0, Reading::Gone);
    sleep(SECOND).await;
    pod.show(0, BUSY);
    sleep(SECOND).await;
    assert_eq!(pod.phase(), Phase::Serving);
    let third = pod.drain(Trigger::SelfHook).await;
    assert_eq!(third.outcome, Outcome::Deadline);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_makes_a_lone_app_hook_more_than_a_restart() {
    let going = PodFacts {
        going: true,
        reason: Some("EvictionByEvictionAPI".into()),
        app_is_stopped: false,
        ..PodFacts::default()
    };
    let pod = TestPod::new(QUIET);
    let verdict = pod.handle.drain(Trigger::AppHook).await;
    pod.pod_facts(going.clone()).await;
    let verdict = verdict.await.unwrap();
    assert!(verdict.going);
    assert_eq!(verdict.reason.as_deref(), Some("EvictionByEvictionAPI"));
    assert_eq!(pod.phase(), Phase::Drained);

    // Also where it is known only after the drain.
    let pod = TestPod::new(QUIET);
    pod.drain(Trigger::AppHook).await;
    assert_eq!(pod.phase(), Phase::Reopening);
    pod.pod_facts(going).await;
    assert_eq!(pod.phase(), Phase::Drained);
    pod.show(0, Reading::Gone);
    sleep(5 * SECOND).await;
    pod.show(0, QUIET);
    sleep(60 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Drained);
    assert_eq!(pod.handle.undo().await, Err(Refusal::Going));
}

#[tokio::test(start_paused = true)]
async fn a_restart_so_quick_that_the_app_was_never_seen_gone_shows_by_its_listener() {
    let watched = crate::drain::testing::WatchedPod::with(policy(), QUIET);
    watched.change(|snapshot| snapshot.listens = true);
    watched.pod.drain(Trigger::AppHook).await;
    sleep(2 * SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Reopening, "the old one answers");
    watched.change(|snapshot| snapshot.listener_replaced = true);
    sleep(SECOND).await;
    assert_eq!(watched.pod.phase(), Phase::Serving);
}
