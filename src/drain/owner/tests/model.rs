//! Hooks, SIGTERM, deletion and the app's own comings and goings in every order, beside a small model of what is right.
//!
//! The model knows nothing of reads, tasks or channels: it is a table of phases and of the times at which they end by
//! themselves. Steps keep clear of these times, since what happens at the same moment may come in either order.

use proptest::prelude::*;
use tokio::task::JoinHandle;

use super::*;

/// How far from a change of its own nothing happens, and how soon after it the drain has followed.
const CLEAR: Duration = Duration::from_millis(1500);

/// What lasts this long is seen.
const SEEN: Duration = Duration::from_millis(300);

const MIN_WAIT: Duration = Duration::from_secs(5);
const QUIET_PERIOD: Duration = Duration::from_secs(1);
const RESERVE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum App {
    Idle,
    Busy,
    Down,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    AppHook,
    SelfHook,
    Signal,
    /// The pod's object says that it was deleted, with this grace period.
    Deleted(u64),
    /// The pod's object says that it was not.
    NotDeleted(u64),
    App(App),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Serving,
    Draining {
        began: Duration,
        deadline: Duration,
        grace_ends: Duration,
    },
    Drained {
        deadline: Duration,
    },
    Reopening {
        deadline: Duration,
        grace_ends: Duration,
        was_down: bool,
    },
    Ended,
}

/// What is right. Times count from the beginning of the case.
struct Model {
    now: Duration,
    at: At,
    app: App,
    /// Since when it is like that.
    since: Duration,
    going: bool,
    signalled: bool,
    /// How each drain so far has ended.
    outcomes: Vec<Outcome>,
}

impl Model {
    fn new() -> Self {
        Self {
            now: Duration::ZERO,
            at: At::Serving,
            app: App::Idle,
            since: Duration::ZERO,
            going: false,
            signalled: false,
            outcomes: Vec::new(),
        }
    }

    /// When something changes by itself, and how a drain then ends.
    fn change(&self) -> Option<(Duration, Option<Outcome>)> {
        match self.at {
            At::Draining {
                began, deadline, ..
            } => {
                let since = self.since.max(began);
                let seen = match self.app {
                    App::Busy => None,
                    App::Down if self.signalled => Some((self.now, Outcome::AppGone)),
                    App::Down => Some((since + QUIET_PERIOD, Outcome::AppGone)),
                    App::Idle => {
                        let quiet = (since + QUIET_PERIOD).max(began + MIN_WAIT);
                        Some((quiet, Outcome::Drained))
                    }
                };
                let (at, outcome) = seen
                    .filter(|&(at, _)| at < deadline)
                    .unwrap_or((deadline, Outcome::Deadline));
                Some((at, Some(outcome)))
            }
            At::Drained { deadline } if self.signalled => match self.app {
                App::Down => Some((self.now, None)),
                _ => Some((deadline, None)),
            },
            At::Reopening {
                grace_ends,
                was_down,
                ..
            } => match self.app {
                App::Down => None,
                _ if was_down => Some((self.now, None)),
                _ => Some((grace_ends, None)),
            },
            _ => None,
        }
    }

    /// Lets time pass, and whatever changes by itself change.
    fn pass(&mut self, until: Duration) {
        while let Some((at, outcome)) = self.change().filter(|&(at, _)| at <= until) {
            self.now = self.now.max(at);
            self.at = match (self.at, outcome) {
                (
                    At::Draining {
                        deadline,
                        grace_ends,
                        ..
                    },
                    Some(outcome),
                ) => {
                    self.outcomes.push(outcome);
                    match self.going {
                        true => At::Drained { deadline },
                        false => At::Reopening {
                            deadline,
                            grace_ends,
                            was_down: self.app == App::Down,
                        },
                    }
                }
                (At::Drained { .. }, _) => At::Ended,
                _ => At::Serving,
            };
        }
        self.now = until;
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::App(app) => {
                if app != self.app {
                    (self.app, self.since) = (app, self.now);
                }
                if let (App::Down, At::Reopening { was_down, .. }) = (app, &mut self.at) {
                    *was_down = true;
                }
            }
            Step::Deleted(granted) | Step::NotDeleted(granted) => {
                let granted = Duration::from_secs(granted);
                if let At::Draining {
                    began,
                    deadline,
                    grace_ends,
                } = &mut self.at
                {
                    *grace_ends = *began + granted;
                    *deadline = *began + granted - RESERVE.min(granted / 2);
                }
                let known = !matches!(self.at, At::Serving | At::Ended);
                if known && matches!(step, Step::Deleted(_)) {
                    self.going = true;
                    if let At::Reopening { deadline, .. } = self.at {
                        self.at = At::Drained { deadline };
                    }
                }
            }
            Step::AppHook | Step::SelfHook | Step::Signal => {
                if self.at == At::Ended {
                    return;
                }
                self.signalled |= matches!(step, Step::Signal);
                self.going |= !matches!(step, Step::AppHook);
                if !matches!(self.at, At::Draining { .. } | At::Drained { .. }) {
                    self.at = At::Draining {
                        began: self.now,
                        deadline: self.now + Duration::from_secs(25),
                        grace_ends: self.now + Duration::from_secs(30),
                    };
                }
            }
        }
    }

    fn phase(&self) -> Option<Phase> {
        match self.at {
            At::Serving => Some(Phase::Serving),
            At::Draining { .. } => Some(Phase::Draining),
            At::Drained { .. } => Some(Phase::Drained),
            At::Reopening { .. } => Some(Phase::Reopening),
            At::Ended => None,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<(u64, Step)>> {
    let step = prop_oneof![
        4 => Just(Step::AppHook),
        2 => Just(Step::SelfHook),
        1 => Just(Step::Signal),
        1 => prop_oneof![Just(8), Just(30), Just(45)].prop_map(Step::Deleted),
        1 => prop_oneof![Just(20), Just(30)].prop_map(Step::NotDeleted),
        6 => prop_oneof![Just(App::Idle), Just(App::Busy), Just(App::Down)].prop_map(Step::App),
    ];
    let pause = prop_oneof![Just(0_u64), 0..4_000_u64, 4_000..40_000_u64];
    prop::collection::vec((pause, step), 1..14)
}

/// A caller that waits for a verdict, and which drain's it has to be.
struct Waiter {
    drain: usize,
    answer: JoinHandle<Option<Arc<Verdict>>>,
}

async fn follows(steps: Vec<(u64, Step)>) {
    let pod = TestPod::new(QUIET);
    let start = Instant::now();
    let mut model = Model::new();
    let mut waiters: Vec<Waiter> = Vec::new();
    let mut steps_so_far = Vec::new();
    for (pause, step) in steps {
        // Keep clear of what changes by itself, before it and after it.
        let mut at = model.now + Duration::from_millis(pause);
        if let Some((_, Step::App(_))) = steps_so_far.last() {
            at = at.max(model.now + SEEN);
        }
        while let Some((change, _)) = model.change() {
            // A deadline that was moved may be over already.
            let change = change.max(model.now);
            if change > at + CLEAR {
                break;
            }
            at = at.max(change + CLEAR);
            model.pass(change);
        }
        model.pass(at);
        sleep_until(start + at).await;
        check(&pod, &model, &mut waiters, &steps_so_far).await;

        steps_so_far.push((at, step));
        let trigger = match step {
            Step::AppHook => Some(Trigger::AppHook),
            Step::SelfHook => Some(Trigger::SelfHook),
            Step::Signal => Some(Trigger::Signal),
            Step::Deleted(granted) | Step::NotDeleted(granted) => {
                let facts = PodFacts {
                    going: matches!(step, Step::Deleted(_)),
                    granted: Some(Duration::from_secs(granted)),
                    reason: None,
                    app_is_stopped: false,
                };
                if let Some(drain) = pod.handle.state().drain {
                    pod.handle.pod_facts(drain.began, facts).await;
                }
                None
            }
            Step::App(app) => {
                pod.show(
                    0,
                    match app {
                        App::Idle => QUIET,
                        App::Busy => BUSY,
                        App::Down => Reading::Gone,
                    },
                );
                None
            }
        };
        model.take(step);
        if let Some(trigger) = trigger {
            let pending = pod.handle.drain(trigger).await;
            let drained = matches!(model.at, At::Drained { .. });
            waiters.push(Waiter {
                drain: model.outcomes.len() - usize::from(drained),
                answer: tokio::spawn(async move { pending.await.ok() }),
            });
        }
    }
    let rest = model.now + Duration::from_secs(65);
    model.pass(rest);
    sleep_until(start + rest).await;
    check(&pod, &model, &mut waiters, &steps_so_far).await;
    let forgotten = waiters
        .iter()
        .filter(|waiter| waiter.drain < model.outcomes.len());
    assert_eq!(
        forgotten.count(),
        0,
        "no caller is left waiting: {steps_so_far:?}"
    );
}

async fn check(
    pod: &TestPod,
    model: &Model,
    waiters: &mut Vec<Waiter>,
    steps_so_far: &[(Duration, Step)],
) {
    tokio::task::yield_now().await;
    let ended = pod.owner.is_finished();
    assert_eq!(
        (!ended).then(|| pod.phase()),
        model.phase(),
        "after {steps_so_far:?}"
    );
    if !ended {
        assert_eq!(
            pod.handle.state().going,
            model.going,
            "after {steps_so_far:?}"
        );
        assert_eq!(
            pod.ready(),
            model.at == At::Serving,
            "after {steps_so_far:?}"
        );
    }
    let mut still = Vec::new();
    for waiter in waiters.drain(..) {
        let right = model.outcomes.get(waiter.drain);
        match right {
            // The sidecar has ended, and every caller since was refused.
            None if ended => {}
            None => {
                assert!(
                    !waiter.answer.is_finished(),
                    "answered early: {steps_so_far:?}"
                );
                still.push(waiter);
            }
            Some(right) => {
                let answer = timeout(Duration::from_millis(1), waiter.answer).await;
                let verdict = answer
                    .expect("no caller waits for longer than the drain")
                    .unwrap();
                if let Some(verdict) = verdict {
                    assert_eq!(verdict.outcome, *right, "after {steps_so_far:?}");
                } else {
                    assert!(ended, "no verdict: {steps_so_far:?}");
                }
            }
        }
    }
    *waiters = still;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_whatever_order_the_drain_follows_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follows(steps));
    }
}
