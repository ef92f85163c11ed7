//! Which way lost what, in one sentence; pure functions of what was seen.

use super::record::Run;

/// Below this probability a difference is taken for no luck.
const LUCK: f64 = 0.05;

/// The run that lost the least, and of those the one that was gone first.
pub fn best(runs: &[Run]) -> Option<&Run> {
    runs.iter().min_by(|a, b| {
        let by_time = || a.end.gone.total_cmp(&b.end.gone);
        a.lost().cmp(&b.lost()).then_with(by_time)
    })
}

/// The run that `--fail-on` looks at: gracekeeper's, or the last one. There is always one.
pub fn deciding(runs: &[Run]) -> &Run {
    let keeper = runs.iter().find(|run| run.way.has_sidecar());
    keeper.unwrap_or(&runs[runs.len() - 1])
}

/// What each way lost, the best one first.
pub fn sentence(runs: &[Run]) -> String {
    let mut sorted: Vec<&Run> = runs.iter().collect();
    sorted.sort_by(|a, b| {
        let by_time = || a.end.gone.total_cmp(&b.end.gone);
        a.lost().cmp(&b.lost()).then_with(by_time)
    });
    let parts = sorted.iter().map(|run| {
        format!(
            "{}: {} of {} requests lost, gone after {:.1} s",
            run.way.title(),
            grouped(run.lost()),
            grouped(run.requests.len()),
            run.end.gone
        )
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Says that the difference between the best way and the next may be luck; nothing where it is none, or where there is no
/// difference.
pub fn doubt(runs: &[Run]) -> Option<String> {
    let best = best(runs)?;
    let others = runs.iter().filter(|run| run.lost() > best.lost());
    let unclear: Vec<String> = others
        .filter(|run| chance(best, run) > LUCK)
        .map(|run| run.way.title())
        .collect();
    (!unclear.is_empty()).then(|| {
        format!(
            "too few requests to tell {} from {}: the difference may be luck; raise --rate",
            best.way.title(),
            unclear.join(" and ")
        )
    })
}

/// How likely it is that the better of two ways loses so few of all that were lost, if both lose alike: each lost request
/// is one of the better way with the share of requests that it had (the conditional test of two Poisson rates).
fn chance(better: &Run, worse: &Run) -> f64 {
    let all = better.lost() + worse.lost();
    let requests = better.requests.len() + worse.requests.len();
    let share = better.requests.len() as f64 / requests.max(1) as f64;
    // Summed from k = 0 up: each term from the one before.
    let mut term = (1.0 - share).powi(i32::try_from(all).unwrap_or(i32::MAX));
    let mut sum = term;
    for k in 0..better.lost() {
        term *= (all - k) as f64 / (k + 1) as f64 * share / (1.0 - share);
        sum += term;
    }
    sum
}

/// A number with commas between thousands.
pub fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::super::record::Cause;
    use super::super::record::testing::{request, run};
    use super::super::way::Way;
    use super::*;
    use std::time::Duration;

    fn with(way: Way, lost: usize, of: usize, gone: f64) -> Run {
        let mut run = run(way);
        run.end.gone = gone;
        let cause = |n| (n < lost).then_some(Cause::Refused);
        run.requests = (0..of).map(|n| request(0.0, 0.1, cause(n))).collect();
        run
    }

    #[test]
    fn the_sentence_has_the_best_first() {
        let sleep = Way::Sleep(Duration::from_secs(15));
        let runs = [
            with(Way::None, 96, 1000, 0.1),
            with(sleep, 0, 4812, 16.1),
            with(Way::Gracekeeper, 0, 900, 7.26),
        ];
        assert_eq!(
            sentence(&runs),
            "gracekeeper: 0 of 900 requests lost, gone after 7.3 s; sleep 15: 0 of 4,812 requests lost, gone after 16.1 s; \
             no hook: 96 of 1,000 requests lost, gone after 0.1 s"
        );
        assert_eq!(best(&runs).unwrap().way, Way::Gracekeeper);
        assert_eq!(deciding(&runs[..2]).way, sleep);
        assert_eq!(deciding(&runs).way, Way::Gracekeeper);
    }

    #[test]
    fn a_small_difference_may_be_luck_and_none_is_no_doubt() {
        let runs = |lost| {
            [
                with(Way::None, lost, 1000, 1.0),
                with(Way::Gracekeeper, 0, 1000, 1.0),
            ]
        };
        assert_eq!(doubt(&runs(0)), None);
        assert!(
            doubt(&runs(2))
                .unwrap()
                .contains("gracekeeper from no hook")
        );
        // Half of a half, five times: 1 in 32.
        assert_eq!(doubt(&runs(5)), None);
        let close = [
            with(Way::None, 60, 1000, 1.0),
            with(Way::Gracekeeper, 50, 1000, 1.0),
        ];
        assert!(doubt(&close).is_some());
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1234567), "1,234,567");
    }
}
