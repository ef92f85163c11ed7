//! A source is shown without credentials, and what is shown is the same source.

#![no_main]

use gracekeeper::inflight::Source;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| match Source::parse(text) {
    Ok(source) => {
        let shown = source.to_string();
        let again = Source::parse(&shown);
        assert_eq!(again.map(|again| again.to_string()), Ok(shown));
    }
    Err(why) => assert!(!why.is_empty()),
});
