//! How much of a CPU a process has had.

use std::fs;
use std::process::Child;
use std::time::Duration;

/// The time that its threads have had on a CPU, in their own code and in the kernel for it: the first number of
/// `/proc/PID/task/TID/schedstat`, in nanoseconds.
pub fn cpu_of(process: &Child) -> Duration {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let times = threads.map_while(Result::ok).filter_map(|thread| {
        let times = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        times.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(times.sum())
}
