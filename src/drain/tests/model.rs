//! Hooks, SIGTERM, deletion and the app's own comings and goings in every order, beside a small model of what is right.
//!
//! The model knows nothing of reads, tasks or channels: it is a table of phases and of the times at which they end by
//! themselves. Happenings keep clear of these times, since what happens at the same moment may come in either order.

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
enum Happening {
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
        killed: Duration,
    },
    Drained {
        deadline: Duration,
    },
    Reopening {
        deadline: Duration,
        killed: Duration,
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
                killed, was_down, ..
            } => match self.app {
                App::Down => None,
                _ if was_down => Some((self.now, None)),
                _ => Some((killed, None)),
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
                        deadline, killed, ..
                    },
                    Some(outcome),
                ) => {
                    self.outcomes.push(outcome);
                    match self.going {
                        true => At::Drained { deadline },
                        false => At::Reopening {
                            deadline,
                            killed,
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

    fn take(&mut self, happening: Happening) {
        match happening {
            Happening::App(app) => {
                if app != self.app {
                    (self.app, self.since) = (app, self.now);
                }
                if let (App::Down, At::Reopening { was_down, .. }) = (app, &mut self.at) {
                    *was_down = true;
                }
            }
            Happening::Deleted(granted) | Happening::NotDeleted(granted) => {
                let granted = Duration::from_secs(granted);
                if let At::Draining {
                    began,
                    deadline,
                    killed,
                } = &mut self.at
                {
                    *killed = *began + granted;
                    *deadline = *began + granted - RESERVE.min(granted / 2);
                }
                let known = !matches!(self.at, At::Serving | At::Ended);
                if known && matches!(happening, Happening::Deleted(_)) {
                    self.going = true;
                    if let At::Reopening { deadline, .. } = self.at {
                        self.at = At::Drained { deadline };
                    }
                }
            }
            Happening::AppHook | Happening::SelfHook | Happening::Signal => {
                if self.at == At::Ended {
                    return;
                }
                self.signalled |= matches!(happening, Happening::Signal);
                self.going |= !matches!(happening, Happening::AppHook);
                if !matches!(self.at, At::Draining { .. } | At::Drained { .. }) {
                    self.at = At::Draining {
                        began: self.now,
                        deadline: self.now + Duration::from_secs(25),
                        killed: self.now + Duration::from_secs(30),
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

fn happenings() -> impl Strategy<Value = Vec<(u64, Happening)>> {
    let happening = prop_oneof![
        4 => Just(Happening::AppHook),
        2 => Just(Happening::SelfHook),
        1 => Just(Happening::Signal),
        1 => prop_oneof![Just(8), Just(30), Just(45)].prop_map(Happening::Deleted),
        1 => prop_oneof![Just(20), Just(30)].prop_map(Happening::NotDeleted),
        6 => prop_oneof![Just(App::Idle), Just(App::Busy), Just(App::Down)].prop_map(Happening::App),
    ];
    let pause = prop_oneof![Just(0_u64), 0..4_000_u64, 4_000..40_000_u64];
    prop::collection::vec((pause, happening), 1..14)
}

/// Somebody who waits for a verdict, and which drain's it has to be.
struct Waiter {
    drain: usize,
    answer: JoinHandle<Option<Arc<Verdict>>>,
}

async fn follows(happenings: Vec<(u64, Happening)>) {
    let lab = Lab::new(QUIET);
    let start = Instant::now();
    let mut model = Model::new();
    let mut waiters: Vec<Waiter> = Vec::new();
    let mut story = Vec::new();
    for (pause, happening) in happenings {
        // Keep clear of what changes by itself, before it and after it.
        let mut at = model.now + Duration::from_millis(pause);
        if let Some((_, Happening::App(_))) = story.last() {
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
        check(&lab, &model, &mut waiters, &story).await;

        story.push((at, happening));
        let trigger = match happening {
            Happening::AppHook => Some(Trigger::AppHook),
            Happening::SelfHook => Some(Trigger::SelfHook),
            Happening::Signal => Some(Trigger::Signal),
            Happening::Deleted(granted) | Happening::NotDeleted(granted) => {
                let pod = PodFacts {
                    going: matches!(happening, Happening::Deleted(_)),
                    granted: Some(Duration::from_secs(granted)),
                    reason: None,
                };
                if let Some(drain) = lab.handle.state().drain {
                    lab.handle.pod_facts(drain.began, pod).await;
                }
                None
            }
            Happening::App(app) => {
                lab.show(
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
        model.take(happening);
        if let Some(trigger) = trigger {
            let pending = lab.handle.drain(trigger).await;
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
    check(&lab, &model, &mut waiters, &story).await;
    let forgotten = waiters
        .iter()
        .filter(|waiter| waiter.drain < model.outcomes.len());
    assert_eq!(forgotten.count(), 0, "nobody is left waiting: {story:?}");
}

async fn check(
    lab: &Lab,
    model: &Model,
    waiters: &mut Vec<Waiter>,
    story: &[(Duration, Happening)],
) {
    tokio::task::yield_now().await;
    let ended = lab.owner.is_finished();
    assert_eq!(
        (!ended).then(|| lab.phase()),
        model.phase(),
        "after {story:?}"
    );
    if !ended {
        assert_eq!(lab.handle.state().going, model.going, "after {story:?}");
        assert_eq!(lab.ready(), model.at == At::Serving, "after {story:?}");
    }
    let mut still = Vec::new();
    for waiter in waiters.drain(..) {
        let right = model.outcomes.get(waiter.drain);
        match right {
            // The sidecar has ended, and whoever called since was refused.
            None if ended => {}
            None => {
                assert!(!waiter.answer.is_finished(), "answered early: {story:?}");
                still.push(waiter);
            }
            Some(right) => {
                let answer = timeout(Duration::from_millis(1), waiter.answer).await;
                let verdict = answer
                    .expect("nobody waits for longer than the drain")
                    .unwrap();
                if let Some(verdict) = verdict {
                    assert_eq!(verdict.outcome, *right, "after {story:?}");
                } else {
                    assert!(ended, "no verdict: {story:?}");
                }
            }
        }
    }
    *waiters = still;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_whatever_order_the_drain_follows_the_model(happenings in happenings()) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(follows(happenings));
    }
}
