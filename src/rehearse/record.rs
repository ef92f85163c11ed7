//! What was seen in a rehearsal. What was not seen is none, and never zero.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::way::Way;

/// Why a request had no good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// The host's name has no address.
    Unresolved,
    /// No way leads to the address.
    Unreachable,
    /// The connection was refused: nothing listened.
    Refused,
    /// The connection was reset before an answer.
    Reset,
    /// The connection was closed before an answer.
    Closed,
    /// The answer ended in its middle.
    Cut,
    /// No whole answer came in time.
    TimedOut,
    /// An answer with status 500 or above.
    #[serde(rename = "5xx")]
    ServerError,
    /// A gRPC status that is the server's doing, such as unavailable.
    GrpcError,
}

impl Cause {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Unresolved => "unresolved",
            Cause::Unreachable => "unreachable",
            Cause::Refused => "refused",
            Cause::Reset => "reset",
            Cause::Closed => "closed",
            Cause::Cut => "cut",
            Cause::TimedOut => "timedOut",
            Cause::ServerError => "5xx",
            Cause::GrpcError => "grpcError",
        }
    }

    /// For people.
    pub fn title(self) -> &'static str {
        match self {
            Cause::Unresolved => "name without address",
            Cause::GrpcError => "gRPC error",
            Cause::Closed => "closed unanswered",
            Cause::Cut => "cut in the middle",
            Cause::TimedOut => "timed out",
            cause => cause.name(),
        }
    }
}

/// When a request ended, by what had happened to the app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    BeforeDeletion,
    BeforeSigterm,
    AfterSigterm,
    AfterGone,
}

impl Moment {
    /// As JSON has it.
    pub fn name(self) -> &'static str {
        match self {
            Moment::BeforeDeletion => "beforeDeletion",
            Moment::BeforeSigterm => "beforeSigterm",
            Moment::AfterSigterm => "afterSigterm",
            Moment::AfterGone => "afterAppEnded",
        }
    }
}

/// One request. Times are in seconds from the deletion.
#[derive(Debug, Clone)]
pub struct Request {
    pub began: f64,
    pub ended: f64,
    /// On a kept connection that had served another request before.
    pub reused: bool,
    /// Which of the URLs.
    pub target: usize,
    /// Which instance: 0 is the one that is terminated.
    pub instance: usize,
    /// None for a good answer.
    pub cause: Option<Cause>,
}

/// How the app ended.
#[derive(Debug, Clone)]
pub struct End {
    /// When the app's hook was answered, where there is one.
    pub hook_answered: Option<f64>,
    pub sigterm: f64,
    /// When the app's first process had ended.
    pub app_ended: f64,
    /// When all of the pod had ended, and the kubelet was done with it.
    pub gone: f64,
    /// It had to be killed when the grace period was over.
    pub killed: bool,
    /// How its first process ended, such as `exit status 0`.
    pub status: String,
    /// Processes that were left when the first one had ended.
    pub left_behind: usize,
    /// What the sidecar said.
    pub verdict: Option<serde_json::Value>,
    /// Why a hook failed.
    pub hook_failed: Option<String>,
}

/// One way, rehearsed.
#[derive(Debug, Clone)]
pub struct Run {
    pub way: Way,
    pub requests: Vec<Request>,
    pub end: End,
    /// When new connections stopped coming to the app; none where they never did.
    pub routes_left: Option<f64>,
    /// Why no second instance took over, where none did.
    pub alone: Option<String>,
    /// The `Server` or `X-Powered-By` header of an answer.
    pub server: Option<String>,
}

/// The requests that were lost.
pub fn failures(requests: &[Request]) -> impl Iterator<Item = (&Request, Cause)> {
    (requests.iter()).filter_map(|request| Some((request, request.cause?)))
}

/// The longest that a client waited for a good answer, in seconds.
pub fn longest_wait(requests: &[Request]) -> Option<f64> {
    let answered = requests.iter().filter(|r| r.cause.is_none());
    answered.map(|r| r.ended - r.began).reduce(f64::max)
}

/// The first and the last moment of requests, and of something that ended then, in seconds.
pub fn span(requests: &[Request], end: f64) -> (f64, f64) {
    let began = requests.iter().map(|r| r.began).fold(0.0, f64::min);
    let ended = requests.iter().map(|r| r.ended);
    (began, ended.fold(end, f64::max))
}

/// Requests in flight at moments a step apart, in seconds.
pub fn in_flight<'a>(
    requests: impl IntoIterator<Item = &'a Request>,
    from: f64,
    step: f64,
    steps: usize,
) -> Vec<usize> {
    let mut counts = vec![0; steps];
    for request in requests {
        let first = ((request.began - from) / step).ceil().max(0.0) as usize;
        for count in counts.iter_mut().skip(first).enumerate() {
            let at = from + step * (first + count.0) as f64;
            if at >= request.ended {
                break;
            }
            *count.1 += 1;
        }
    }
    counts
}

impl Run {
    /// How many requests were lost.
    pub fn lost(&self) -> usize {
        self.failures().count()
    }

    /// The requests that were lost.
    pub fn failures(&self) -> impl Iterator<Item = (&Request, Cause)> {
        failures(&self.requests)
    }

    /// When a request ended.
    pub fn moment(&self, request: &Request) -> Moment {
        match request.ended {
            at if at < 0.0 => Moment::BeforeDeletion,
            at if at < self.end.sigterm => Moment::BeforeSigterm,
            at if at < self.end.app_ended => Moment::AfterSigterm,
            _ => Moment::AfterGone,
        }
    }

    /// The longest that a client waited for a good answer, in seconds.
    pub fn longest_wait(&self) -> Option<f64> {
        longest_wait(&self.requests)
    }

    /// The first and the last moment.
    pub fn span(&self) -> (f64, f64) {
        span(&self.requests, self.end.gone)
    }

    /// Requests in flight at the app that is terminated, or at all, at moments a step apart, in seconds.
    pub fn in_flight(
        &self,
        from: f64,
        step: f64,
        steps: usize,
        instance: Option<usize>,
    ) -> Vec<usize> {
        let of = |request: &&Request| instance.is_none_or(|instance| instance == request.instance);
        in_flight(self.requests.iter().filter(of), from, step, steps)
    }
}

/// All that was rehearsed.
#[derive(Debug)]
pub struct Rehearsal {
    pub runs: Vec<Run>,
    pub verdict: String,
    /// That the difference may be luck.
    pub doubt: Option<String>,
    pub advice: Vec<String>,
    /// What to paste into the pod.
    pub yaml: String,
    pub command: String,
    /// Why no second instance took over, where none did: the app's port is fixed.
    pub alone: Option<String>,
    pub rate: u32,
    pub routes: Duration,
    pub restart: bool,
}

#[cfg(test)]
pub mod testing {
    use super::*;

    /// A run without requests: SIGTERM at once, gone a second later.
    pub fn run(way: Way) -> Run {
        Run {
            way,
            requests: Vec::new(),
            end: End {
                hook_answered: None,
                sigterm: 0.0,
                app_ended: 1.0,
                gone: 1.0,
                killed: false,
                status: "exit status 0".to_owned(),
                left_behind: 0,
                verdict: None,
                hook_failed: None,
            },
            routes_left: Some(2.0),
            alone: None,
            server: None,
        }
    }

    /// A request.
    pub fn request(began: f64, ended: f64, cause: Option<Cause>) -> Request {
        Request {
            began,
            ended,
            reused: false,
            target: 0,
            instance: 0,
            cause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn requests_in_flight_are_counted_at_each_moment() {
        let mut run = run(Way::None);
        run.requests = vec![request(0.0, 1.0, None), request(0.5, 2.0, None)];
        assert_eq!(run.in_flight(0.0, 0.5, 5, None), [1, 2, 1, 1, 0]);
        assert_eq!(run.in_flight(0.0, 0.5, 5, Some(1)), [0; 5]);
        assert_eq!(run.in_flight(-1.0, 1.0, 3, None), [0, 1, 1]);
    }

    #[test]
    fn what_was_not_seen_is_none() {
        assert_eq!(run(Way::None).longest_wait(), None);
    }

    #[test]
    fn a_failure_belongs_to_the_moment_in_which_it_ended() {
        let mut run = run(Way::None);
        run.end.sigterm = 0.5;
        let moment = |ended| run.moment(&request(-2.0, ended, None));
        assert_eq!(moment(-1.0), Moment::BeforeDeletion);
        assert_eq!(moment(0.1), Moment::BeforeSigterm);
        assert_eq!(moment(0.6), Moment::AfterSigterm);
        assert_eq!(moment(1.5), Moment::AfterGone);
    }
}
