//! No text makes a check panic, in any format, nor its fixes; and a fix leaves what can be read again.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    gracekeeper::check::check_text(text);
});
