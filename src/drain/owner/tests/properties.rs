//! Calls, readings and time in every order: a draining pod is not ready, and every drain ends in time.

use proptest::prelude::*;

use super::*;

/// Something that can happen to a pod.
#[derive(Debug, Clone, Copy)]
enum Step {
    Call(Trigger),
    Undo,
    Release,
    Show(usize, Reading),
    Hang(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let trigger = prop_oneof![
        4 => Just(Trigger::AppHook),
        2 => Just(Trigger::Manual),
        1 => Just(Trigger::SelfHook),
        1 => Just(Trigger::Signal),
    ];
    let reading = prop_oneof![
        Just(QUIET),
        Just(BUSY),
        Just(Reading::Unknown),
        Just(Reading::Gone)
    ];
    let step = prop_oneof![
        3 => trigger.prop_map(Step::Call),
        1 => Just(Step::Undo),
        1 => Just(Step::Release),
        3 => (0..2_usize, reading).prop_map(|(source, reading)| Step::Show(source, reading)),
        1 => (0..2_usize).prop_map(Step::Hang),
        4 => (1..12_000_u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..25)
}

fn policies() -> impl Strategy<Value = Policy> {
    let when_blind = prop_oneof![
        Just(WhenBlind::Wait),
        Just(WhenBlind::Proceed),
        Just(WhenBlind::Window(Duration::from_secs(7)))
    ];
    (when_blind, 0..3_u32, 0..8_u32, 0..30_u32).prop_map(|(when_blind, quiet, wait, budget)| {
        Policy {
            when_blind,
            quiet_period: quiet * SECOND,
            min_wait: wait * SECOND,
            timeout: Some(budget * SECOND),
            ..policy()
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_a_draining_pod_is_not_ready_and_every_drain_ends_in_time(
        steps in steps(),
        policy in policies(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let pod = TestPod::with(policy.clone(), &[QUIET, BUSY]);
            let mut going = false;
            let mut answers = Vec::new();
            for step in steps {
                match step {
                    Step::Call(trigger) => {
                        going |= matches!(trigger, Trigger::SelfHook | Trigger::Signal);
                        let asked = Instant::now();
                        // A drain by hand may last for as long again, from when the kubelet calls.
                        let limit = 2 * policy.budget() + SECOND;
                        let pending = pod.handle.drain(trigger).await;
                        let earlier = pod.handle.state().phase == Phase::Drained;
                        if !pod.owner.is_finished() {
                            assert_ne!(pod.phase(), Phase::Serving, "a drain was asked for");
                        }
                        answers.push(tokio::spawn(async move {
                            let answer = timeout(limit, pending).await.expect("every drain ends by its deadline");
                            // None where the sidecar itself had ended.
                            if let Ok(verdict) = answer {
                                let began = asked.checked_sub(verdict.took);
                                assert!(verdict.took <= verdict.deadline + Duration::from_millis(2), "{verdict:?}");
                                assert!(earlier || began.is_none() || asked.elapsed() <= verdict.took, "{verdict:?}");
                            }
                        }));
                    }
                    Step::Undo => {
                        let before = pod.phase();
                        let undone = pod.handle.undo().await;
                        if going {
                            assert!(undone.is_err());
                        } else if before == Phase::Serving {
                            assert!(undone.is_ok());
                        }
                    }
                    Step::Release => {
                        let before = pod.phase();
                        let released = pod.handle.release().await;
                        assert_eq!(released.is_ok(), before == Phase::Draining);
                    }
                    Step::Show(source, reading) => pod.show(source, reading),
                    Step::Hang(source) => pod.hang(source),
                    Step::Pass(milliseconds) => sleep(Duration::from_millis(milliseconds)).await,
                }
                let state = pod.handle.state();
                assert_eq!(pod.ready(), state.phase == Phase::Serving, "ready while {:?}", state.phase);
                assert!(!going || state.going);
                assert!(!going || state.phase != Phase::Serving, "serving again though the pod is going");
                assert!(state.verdict.is_none() || state.phase != Phase::Draining, "an old verdict is shown");
            }
            for answer in answers {
                answer.await.unwrap();
            }
        });
    }
}
