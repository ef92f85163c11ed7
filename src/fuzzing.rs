//! The parsers of outside bytes that are private, as tests/fuzz calls them.

use std::time::Duration;

use crate::cluster::{OwnPod, Pod};
use crate::drain::{CounterNews, counted_of};

/// What a counter of requests has counted after each of these readings, none where that is not known, and whether it was
/// called a gauge then. A reading of nothing is one that failed.
pub fn requests_counted(readings: &[Option<f64>]) -> Vec<(Option<u64>, bool)> {
    (counted_of(readings).into_iter())
        .map(|(requests, news)| (requests, news == CounterNews::IsGauge))
        .collect()
}

/// What a drain reads of a pod's object: its grace period, the one that was granted, and the periods of its probes while
/// the pod is stopped and while only a container is.
pub struct PodSeen {
    /// The least that the kubelet gives a container that it stops of its own.
    pub grace: Duration,
    /// What was granted with the deletion.
    pub granted: Option<Duration>,
    /// Ports and periods of the probes that go on while the pod is stopped.
    pub going: Vec<(u16, Duration)>,
    /// And while only a container is.
    pub restarting: Vec<(u16, Duration)>,
}

/// Reads a pod's object as the API server sends it; none where it is none.
pub fn pod(json: &[u8]) -> Option<PodSeen> {
    let pod = OwnPod::new(&serde_json::from_slice::<Pod>(json).ok()?);
    let probes = |going| {
        let probes = pod.probes.during(going).into_iter();
        probes.map(|probe| (probe.port, probe.every)).collect()
    };
    Some(PodSeen {
        grace: pod.grace,
        granted: pod.deletion.as_ref().map(|deletion| deletion.granted),
        going: probes(true),
        restarting: probes(false),
    })
}
