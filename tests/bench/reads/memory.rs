//! How much memory something takes at most, as the kernel counts it.

use std::fs;

/// Does something, and says by how many KiB the memory of this process grew meanwhile, at most.
pub fn grown(something: impl FnOnce()) -> u64 {
    // Forgets the most that there ever was (man 5 proc_pid_clear_refs).
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = kib("VmHWM");
    something();
    // The kernel counts in batches, and may have been ahead before.
    kib("VmHWM").saturating_sub(before)
}

fn kib(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    let digits: String = value.chars().filter(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
