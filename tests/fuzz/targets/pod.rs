//! No object of a pod makes a drain's clock overflow, and what goes on while a pod is stopped goes on in a restart too.

#![no_main]

use std::time::Duration;

use gracekeeper::fuzzing::pod;
use libfuzzer_sys::fuzz_target;

/// The longest that a flag takes.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

fuzz_target!(|json: &[u8]| {
    let Some(pod) = pod(json) else {
        return;
    };
    assert!(pod.grace <= LONGEST && pod.granted.is_none_or(|granted| granted <= LONGEST));
    for (port, every) in &pod.restarting {
        assert!((Duration::from_secs(1)..=LONGEST).contains(every), "{port}");
    }
    assert!(pod.restarting.starts_with(&pod.going));
});
