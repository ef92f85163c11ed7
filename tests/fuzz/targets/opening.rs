//! What a page is by its first bytes does not depend on the pieces that it comes in, and no bytes make it panic.
//!
//! The input is a byte for the size of the pieces, a Content-Type, a zero byte, and a page.

#![no_main]

use gracekeeper::inflight::opening::{Expected, Opening, first_words, quote};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let Some((&size, rest)) = input.split_first() else {
        return;
    };
    let mut halves = rest.splitn(2, |&byte| byte == 0);
    let (Some(content_type), Some(page)) = (halves.next(), halves.next()) else {
        return;
    };
    let whole = opening(content_type, page, usize::MAX);
    let pieces = opening(content_type, page, 1 + usize::from(size));
    for expected in [Expected::Metrics, Expected::Json, Expected::Text] {
        let objection = whole.objection(expected);
        assert_eq!(pieces.objection(expected), objection);
        // A message is one line, whatever the page has.
        assert!(objection.is_none_or(|message| !message.contains('\n')));
    }
    assert_eq!(pieces.doubt(), whole.doubt());
    assert!(!quote(&first_words(page)).contains('\n'));
});

fn opening(content_type: &[u8], page: &[u8], size: usize) -> Opening {
    let mut opening = Opening::new(Some(content_type));
    for piece in page.chunks(size) {
        opening.take(piece);
    }
    opening
}
