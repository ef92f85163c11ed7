//! Pages as our own scanner reads them.

use std::path::{Path, PathBuf};

use gracekeeper::inflight::exposition::{self, Error, Names, Scanner};

/// A page of metrics.
#[derive(Debug, Clone)]
pub struct Page {
    pub name: String,
    pub content: Vec<u8>,
    pub open_metrics: bool,
}

/// A sample: its name, its labels in order, and its value.
pub type Sample = (String, Vec<(String, String)>, Value);

/// A value that can be compared: every NaN is the same, and so is every zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Value(u64);

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value(
            if value.is_nan() {
                f64::NAN
            } else {
                value + 0.0
            }
            .to_bits(),
        )
    }
}

/// The samples of a page in order, or why there are none, in words.
pub type Read = Result<Vec<Sample>, String>;

/// Reads the wanted samples of a page.
pub fn scan(page: &Page, names: &Names) -> Result<Vec<Sample>, Error> {
    let mut samples = Vec::new();
    let mut take = |sample: exposition::Sample<'_>| {
        let mut labels = sample.labels.to_vec();
        labels.sort();
        samples.push((sample.name.to_owned(), labels, sample.value.into()));
    };
    let mut scanner = Scanner::new(names, page.open_metrics);
    for piece in page.content.chunks(1000) {
        scanner.feed(piece, &mut take)?;
    }
    scanner.finish(true, &mut take)?;
    samples.sort();
    Ok(samples)
}

/// Reads all samples of a page: every name by itself, several at once and all together must come to the same.
pub fn ours(page: &Page) -> Read {
    let every = scan(page, &Names::Any).map_err(|e| e.to_string())?;
    let mut names: Vec<String> = every.iter().map(|sample| sample.0.clone()).collect();
    names.dedup();
    let of = |wanted: &[String]| -> Vec<Sample> {
        let wanted = every.iter().filter(|sample| wanted.contains(&sample.0));
        wanted.cloned().collect()
    };
    let each = names.iter().map(std::slice::from_ref);
    for wanted in each.chain([&names[..], &names[names.len() / 2..]]) {
        let asked = Names::of(wanted.iter().cloned());
        // A name that is escaped on the page cannot be looked for; then it is ours to choose.
        if !matches!(asked, Names::Any) {
            assert_eq!(
                scan(page, &asked),
                Ok(of(wanted)),
                "{wanted:?} of {}",
                page.name
            );
        }
    }
    Ok(every)
}

/// The pages kept as files.
pub fn pages() -> Vec<Page> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder("tests/reference/pages"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    paths.sort();
    (paths.iter())
        .map(|path| Page {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            content: std::fs::read(path).unwrap(),
            open_metrics: path.extension().unwrap() == "openmetrics",
        })
        .collect()
}

/// A folder of the repository.
pub fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
