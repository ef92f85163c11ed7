//! Whatever a counter of requests says, what it has counted never falls, and is no more than all of its rises.
//!
//! The input is readings of eight bytes each. Those that a source takes for no count are readings that failed.

#![no_main]

use gracekeeper::fuzzing::requests_counted;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let readings: Vec<Option<f64>> = input
        .chunks_exact(8)
        .map(|bytes| bytes.try_into().map_or(f64::NAN, f64::from_le_bytes))
        .map(|value| Some(value).filter(|value| value.is_finite() && *value >= 0.0))
        .collect();
    let counted = requests_counted(&readings);
    assert_eq!(counted.len(), readings.len());
    assert!(counted.iter().filter(|(_, gauge)| *gauge).count() <= 1);

    let (mut before, mut most, mut last) = (0, 0.0, None);
    for (reading, (requests, _)) in readings.iter().zip(&counted) {
        // A fall may be a restart, and then all that it says is new.
        most += match (reading, last) {
            (Some(value), Some(last)) if value >= last => *value - *last,
            (Some(value), Some(_)) => *value,
            _ => 0.0,
        };
        last = reading.as_ref().or(last);
        assert!(
            reading.is_some() || requests.is_none(),
            "what failed says nothing"
        );
        if let Some(requests) = *requests {
            assert!(requests >= before, "{before} {requests}");
            assert!(
                requests <= (most * (1.0 + 1e-9)).ceil() as u64,
                "{requests} {most}"
            );
            before = requests;
        }
    }
});
