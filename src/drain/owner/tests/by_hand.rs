//! Drains by hand, and how they are undone.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_lasts_until_it_is_undone() {
    let pod = TestPod::new(QUIET);
    let verdict = pod.drain(Trigger::Manual).await;
    assert_eq!((verdict.outcome, verdict.going), (Outcome::Drained, false));
    sleep(3600 * SECOND).await;
    assert_eq!(pod.phase(), Phase::Drained);
    assert!(!pod.ready());
    assert_eq!(pod.handle.undo().await, Ok(()));
    assert_eq!(pod.phase(), Phase::Serving);
    assert!(pod.ready());
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_outlasts_a_restart_of_the_app() {
    let pod = TestPod::new(QUIET);
    pod.drain(Trigger::Manual).await;
    let verdict = pod.drain(Trigger::AppHook).await;
    assert_eq!(verdict.trigger, Trigger::AppHook);
    assert_eq!(pod.phase(), Phase::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_is_undone_while_it_runs() {
    let pod = TestPod::new(BUSY);
    let verdict = pod.handle.drain(Trigger::Manual).await;
    sleep(SECOND).await;
    assert_eq!(pod.handle.undo().await, Ok(()));
    assert_eq!(pod.phase(), Phase::Serving);
    assert_eq!(verdict.await.unwrap().outcome, Outcome::Undone);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_undone_once_the_app_or_the_pod_stops() {
    let pod = TestPod::new(BUSY);
    let mut verdict = pod.handle.drain(Trigger::Manual).await;
    pod.handle.drain(Trigger::AppHook).await;
    assert_eq!(pod.handle.undo().await, Err(Refusal::Stopping));
    pod.handle.drain(Trigger::SelfHook).await;
    assert_eq!(pod.handle.undo().await, Err(Refusal::Going));
    assert!(
        timeout(SECOND, &mut verdict).await.is_err(),
        "the hook is still held"
    );
    verdict.await.unwrap();
    assert_eq!(pod.handle.undo().await, Err(Refusal::Going));
    assert_eq!(pod.phase(), Phase::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_drain_by_hand_that_goes_on_needs_no_second_one() {
    let pod = TestPod::new(QUIET);
    let first = pod.drain(Trigger::Manual).await;
    pod.show(0, BUSY);
    let again = timeout(Duration::from_millis(1), pod.drain(Trigger::Manual)).await;
    assert!(Arc::ptr_eq(&first, &again.unwrap()));
}

#[tokio::test(start_paused = true)]
async fn after_an_undone_drain_a_lone_hook_is_a_restart_again() {
    for wait in [SECOND, 10 * SECOND] {
        let pod = TestPod::new(QUIET);
        let _pending = pod.handle.drain(Trigger::Manual).await;
        sleep(wait).await; // Undone while it runs, and once it is over.
        pod.handle.undo().await.unwrap();
        pod.drain(Trigger::AppHook).await;
        assert_eq!(pod.phase(), Phase::Reopening);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_began_the_drain_is_not_undone_either() {
    let pod = TestPod::new(BUSY);
    let _pending = pod.handle.drain(Trigger::AppHook).await;
    assert_eq!(pod.handle.undo().await, Err(Refusal::Stopping));
}
