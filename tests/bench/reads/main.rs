//! What a read of a source costs: scanning a metrics page, and going through the socket table; and the memory of a sidecar
//! that does the latter.
//!
//! Nothing here passes or fails: it prints. The targets are in the heads of the two files.

#![allow(clippy::disallowed_methods, clippy::disallowed_types)]
#![allow(clippy::print_stdout, clippy::unwrap_used)]

#[path = "../child.rs"]
mod child;
#[path = "../cpu.rs"]
mod cpu;
#[path = "../crowd.rs"]
mod crowd;
mod memory;
mod pages;
mod sidecar;
mod sockets;

use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, Criterion, SamplingMode};

type Group<'c> = BenchmarkGroup<'c, WallTime>;

fn main() {
    if crowd::is_crowd() {
        return crowd::crowd();
    }
    // Ten rounds of a large page take long enough; more would tell nothing new.
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    pages::bench(&mut criterion);
    sockets::bench(&mut criterion);
    criterion.final_summary();
    sidecar::bench();
}

/// A group whose rounds are all of the same length, as befits slow ones.
fn group<'c>(criterion: &'c mut Criterion, name: &str) -> Group<'c> {
    let mut group = criterion.benchmark_group(name);
    group.sampling_mode(SamplingMode::Flat);
    group
}

/// Measures the time that something takes, and first the memory.
fn measure(group: &mut Group<'_>, what: &str, mut something: impl FnMut()) {
    let mut grown = None;
    group.bench_function(what, |b| {
        grown.get_or_insert_with(|| memory::grown(&mut something));
        b.iter(&mut something);
    });
    if let Some(grown) = grown {
        println!("{:24}memory: {grown} KiB more at most", "");
    }
}
