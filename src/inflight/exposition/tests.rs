use super::*;
use proptest::prelude::*;

type Found = Vec<(String, Vec<(String, String)>, f64)>;

fn names<const N: usize>(names: [&str; N]) -> Names {
    Names::of(names.map(str::to_owned))
}

fn scan_in(pieces: &[&[u8]], names: &Names, open_metrics: bool) -> Result<Found, Error> {
    let mut found = Vec::new();
    let mut scanner = Scanner::new(names, open_metrics);
    for piece in pieces {
        scanner.feed(piece, &mut |s| {
            found.push((s.name.to_owned(), s.labels.to_vec(), s.value))
        })?;
    }
    scanner.finish(false, &mut |_| ())?;
    Ok(found)
}

fn scan(page: &str, name: &str) -> Result<Found, Error> {
    scan_in(&[page.as_bytes()], &names([name]), false)
}

fn values(page: &str, name: &str) -> Vec<f64> {
    scan(page, name).unwrap().into_iter().map(|s| s.2).collect()
}

#[test]
fn only_the_named_metric_counts() {
    let page = "# HELP busy busy things\n# TYPE busy gauge\nbusy 3\nbusy_total 7\nnot_busy 9\nbusy:rate 1\n\
                other{x=\"busy 5\"} 4\n  busy{a=\"b\"} 2\n";
    assert_eq!(values(page, "busy"), [3.0, 2.0]);
    assert_eq!(values(page, "busy_total"), [7.0]);
}

#[test]
fn created_and_total_are_names_of_their_own() {
    let page = "jobs_total 5\njobs_created 1.7e9\njobs 1\n";
    assert_eq!(values(page, "jobs"), [1.0]);
    assert_eq!(values(page, "jobs_total"), [5.0]);
}

#[test]
fn label_values_are_unescaped() {
    let found = scan("m{a=\"x\\\\y\\\"z\\n\",b=\"} 9 #\",} 1\n", "m").unwrap();
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(found[0].1, [label("a", "x\\y\"z\n"), label("b", "} 9 #")]);
    assert_eq!(found[0].2, 1.0);
}

#[test]
fn timestamps_and_exemplars_are_no_values() {
    assert_eq!(values("m 1 1700000000000\n", "m"), [1.0]);
    assert_eq!(
        values("m{le=\"1\"} 17 # {trace=\"m 5\"} 0.3 1.7e9\n", "m"),
        [17.0]
    );
    assert_eq!(values("m 2 1700000000.5 # {} 0.3\n", "m"), [2.0]);
}

#[test]
fn special_numbers_are_read() {
    let found = values("m NaN\nm +Inf\nm -Inf\nm 1e3\n", "m");
    assert!(found[0].is_nan());
    assert_eq!(found[1..], [f64::INFINITY, f64::NEG_INFINITY, 1000.0]);
}

#[test]
fn windows_line_ends_are_line_ends() {
    assert_eq!(values("m 1\r\nm{a=\"b\"} 2\r\n", "m"), [1.0, 2.0]);
    let wanted = names(["m"]);
    assert!(scan_in(&[b"m 1\r\n# EOF\r\n"], &wanted, true).is_ok());
}

#[test]
fn a_quoted_name_is_found() {
    assert_eq!(
        values("{\"m\",a=\"b\"} 4\n{a=\"m\", \"other\"} 5\n", "m"),
        [4.0]
    );
}

#[test]
fn a_page_cut_off_is_an_error_and_not_a_smaller_sum() {
    let page = "m{a=\"1\"} 12\nm{a=\"2\"} 34\nz 1\n";
    for end in 1..page.len() {
        let whole_lines = page.as_bytes()[end - 1] == b'\n';
        assert_eq!(
            scan(&page[..end], "m").is_ok(),
            whole_lines,
            "{:?}",
            &page[..end]
        );
    }
    let wanted = names(["m"]);
    let open = "m 12\nz 1\n# EOF";
    for end in 1..open.len() {
        let cut = scan_in(&[&open.as_bytes()[..end]], &wanted, true);
        assert!(matches!(cut, Err(Error::CutOff(_))), "{:?}", &open[..end]);
    }
    // The last line end is optional in OpenMetrics.
    assert!(scan_in(&[open.as_bytes()], &wanted, true).is_ok());
    assert!(scan_in(&[open.as_bytes(), b"\n"], &wanted, true).is_ok());
}

#[test]
fn a_page_that_is_known_to_be_whole_needs_no_last_line_end() {
    let wanted = names(["m"]);
    let read = |page: &str, open_metrics: bool| {
        let mut sum = 0.0;
        let mut scanner = Scanner::new(&wanted, open_metrics);
        scanner.feed(page.as_bytes(), &mut |s| sum += s.value)?;
        scanner.finish(true, &mut |s| sum += s.value)?;
        Ok::<f64, Error>(sum)
    };
    assert_eq!(read("m{a=\"1\"} 12\nm{a=\"2\"} 34", false), Ok(46.0));
    assert_eq!(read("m 12\nn{a=\"2", false), Ok(12.0));
    assert_eq!(read("m 12\n", false), Ok(12.0));
    assert!(matches!(
        read("m 12\nm{a=\"2", false),
        Err(Error::Line { .. })
    ));
    assert!(matches!(read("m 12\n", true), Err(Error::CutOff(_))));
}

#[test]
fn nothing_may_follow_the_end_of_an_open_metrics_page() {
    let wanted = names(["m"]);
    for more in ["m 1\n", "m 1\n# EOF\n", "# EOF\n", "\n", "x"] {
        let whole = format!("m 1\n# EOF\n{more}");
        assert!(
            scan_in(&[whole.as_bytes()], &wanted, true).is_err(),
            "{more:?}"
        );
        let pieces: [&[u8]; 2] = [b"m 1\n# EOF\n", more.as_bytes()];
        assert!(scan_in(&pieces, &wanted, true).is_err(), "{more:?}");
    }
    assert_eq!(values("# EOF\nm 1\n", "m"), [1.0]); // Text 0.0.4: a comment.
    let page: &[u8] = b"m{a=\"# EOF\"} 1\n## EOF\n # EOF\n# EOF x\nm{a=\"\\n# EOF\"} 1\n# EOF\n";
    assert_eq!(scan_in(&[page], &wanted, true).unwrap().len(), 2);
}

#[test]
fn a_bad_line_of_another_metric_does_no_harm() {
    assert_eq!(values("other{ 3\n\u{fe0f}\nm 1\n", "m"), [1.0]);
    assert_eq!(values("m-2 5\nm.x 5\nm+3\nm\u{a0}4\nm 1\n", "m"), [1.0]);
}

#[test]
fn a_bad_line_of_the_wanted_metric_is_an_error() {
    for line in [
        "m",
        "m x",
        "m{a=} 1",
        "m{a=\"b} 1",
        "m{a=\"b\" c=\"d\"} 1",
        "m 1 2 3",
        "m{=\"b\"} 1",
        "m 1 x",
        "m{a=\"1\",b=\"2\",a=\"3\"} 1",
        "m{__name__=\"m\"} 1",
        "m{1a=\"1\"} 1",
        "m{a:b=\"1\"} 1",
    ] {
        assert!(
            matches!(scan(&format!("{line}\n"), "m"), Err(Error::Line { .. })),
            "{line}"
        );
    }
}

#[test]
fn of_several_names_each_line_counts_once() {
    let page =
        "# TYPE a gauge\na 1\naa 2\nb{x=\"a\"} 3\n\tb 4\n{\"a\",x=\"b\"} 5\n{x=\"b\"} 6\nab 7\n";
    let wanted = names(["b", "a", "b"]);
    let found = scan_in(&[page.as_bytes()], &wanted, false).unwrap();
    let found: Vec<(&str, f64)> = found.iter().map(|s| (s.0.as_str(), s.2)).collect();
    assert_eq!(found, [("a", 1.0), ("b", 3.0), ("b", 4.0), ("a", 5.0)]);
}

#[test]
fn of_several_names_a_bad_line_is_an_error_as_it_is_of_one() {
    for wanted in [names(["m"]), names(["m", "n"])] {
        for line in ["m", "m\r", "\x0cm x", "\rm", " m{", "m\tx"] {
            let page = format!("{line}\n");
            assert!(
                scan_in(&[page.as_bytes()], &wanted, false).is_err(),
                "{line:?}"
            );
        }
        for line in ["m-1", "m\u{a0}1", "mm x", "#m x", "m}"] {
            let page = format!("{line}\n");
            assert!(
                scan_in(&[page.as_bytes()], &wanted, false).is_ok(),
                "{line:?}"
            );
        }
    }
}

#[test]
fn a_name_that_is_escaped_on_the_page_is_found() {
    let wanted = names(["a\"b"]);
    let found = scan_in(&[b"{\"a\\\"b\"} 5\n"], &wanted, false).unwrap();
    assert_eq!(found[0].0, "a\"b");
}

#[test]
fn a_line_without_end_costs_no_memory() {
    let wanted = names(["m"]);
    let mut scanner = Scanner::new(&wanted, false);
    for _ in 0..1000 {
        scanner.feed(&[b'x'; 10_000], &mut |_| ()).unwrap();
        assert!(scanner.pending.capacity() <= 2 * LONGEST_LINE);
    }
    scanner
        .feed(b"\nm 5\n", &mut |s| assert_eq!(s.value, 5.0))
        .unwrap();
    scanner.finish(false, &mut |_| ()).unwrap();

    let mut scanner = Scanner::new(&wanted, false);
    let fed: Result<Vec<()>, Error> = (0..100)
        .map(|_| scanner.feed(b"m{aaaaaaaaa", &mut |_| ()))
        .collect();
    assert!(fed.is_ok());
    assert!((0..10).any(|_| scanner.feed(&[b'a'; 10_000], &mut |_| ()).is_err()));
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..300), open in any::<bool>()) {
        let _ = scan_in(&[&bytes], &names(["m"]), open);
        let _ = scan_in(&[&bytes], &Names::Any, open);
        let _ = scan_in(&[&bytes], &names(["m", "n"]), open);
    }

    #[test]
    fn pieces_of_any_size_read_as_the_whole(
        lines in proptest::collection::vec("(m|mm|n|# TYPE m|\\{\"m\"\\})(\\{a=\"[mx\\\\\\\\\"]{0,3}\"\\})? ?[0-9]{0,2}( 1)?\r?", 0..12),
        size in 1_usize..20,
        open in any::<bool>(),
    ) {
        let page = lines.iter().map(|line| format!("{line}\n")).collect::<String>() + "# EOF\n";
        let pieces: Vec<&[u8]> = page.as_bytes().chunks(size).collect();
        let several = names(["m", "n"]);
        for wanted in [names(["m"]), several, Names::Any] {
            prop_assert_eq!(scan_in(&pieces, &wanted, open), scan_in(&[page.as_bytes()], &wanted, open));
        }
    }

    #[test]
    fn looking_for_a_name_finds_what_reading_every_line_finds(
        lines in proptest::collection::vec("( m|m|mm|n|\\{\"m\"\\})(\\{m=\"[mx ]{0,3}\"\\})? [0-9]{1,2}", 0..12),
    ) {
        let page = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let every = scan_in(&[page.as_bytes()], &Names::Any, false);
        prop_assume!(every.is_ok());
        let every: Found = every.unwrap().into_iter().filter(|s| s.0 == "m").collect();
        let several = names(["m", "x"]);
        prop_assert_eq!(scan_in(&[page.as_bytes()], &several, false), Ok(every.clone()));
        prop_assert_eq!(scan(&page, "m"), Ok(every));
    }
}
