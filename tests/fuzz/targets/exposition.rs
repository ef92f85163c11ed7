//! A metrics page reads the same in whatever pieces it comes, and to look for names finds what reading every line finds.

#![no_main]

use gracekeeper::inflight::exposition::{Error, Names, Scanner};
use libfuzzer_sys::fuzz_target;

type Found = Vec<(String, Vec<(String, String)>, u64)>;

fuzz_target!(|input: &[u8]| {
    // What is left of a page of real software as it is when its end is taken for this.
    let Some((&how, page)) = input.split_last() else {
        return;
    };
    let (open_metrics, whole, size) = (how & 1 > 0, how & 2 > 0, 1 + usize::from(how >> 2));
    let names = |names: &[&str]| Names::of(names.iter().map(|&name| name.to_owned()));
    let scan = |pieces: &mut dyn Iterator<Item = &[u8]>, names: &Names| -> Option<Found> {
        scan(pieces, names, open_metrics, whole).ok()
    };
    let every = scan(&mut page.chunks(usize::MAX), &Names::Any);
    for wanted in [&["m"][..], &["m", "n"], &["go_threads"], &["up", "x"]] {
        let looked_for = names(wanted);
        let at_once = scan(&mut page.chunks(usize::MAX), &looked_for);
        assert_eq!(scan(&mut page.chunks(size), &looked_for), at_once);
        if let Some(every) = &every {
            let of = |found: &&(String, _, _)| wanted.contains(&found.0.as_str());
            assert_eq!(at_once, Some(every.iter().filter(of).cloned().collect()));
        }
    }
    assert_eq!(scan(&mut page.chunks(size), &Names::Any), every);
});

/// Values are compared by their bits, since NaN is not equal to itself.
fn scan(
    pieces: &mut dyn Iterator<Item = &[u8]>,
    names: &Names,
    open_metrics: bool,
    whole: bool,
) -> Result<Found, Error> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(names, open_metrics);
    let mut take = |sample: gracekeeper::inflight::exposition::Sample<'_>| {
        let labels = sample.labels.to_vec();
        found.push((sample.name.to_owned(), labels, sample.value.to_bits()));
    };
    for piece in pieces {
        scanner.feed(piece, &mut take)?;
    }
    scanner.finish(whole, &mut take)?;
    Ok(found)
}
