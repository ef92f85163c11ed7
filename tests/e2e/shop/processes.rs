//! Other processes of the pod, where it shares them.

use std::path::Path;

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The id of a process whose command line has these words, other than this one.
fn find(words: &str) -> Option<i32> {
    let own = i32::try_from(std::process::id()).ok();
    let folders = Path::new("/proc").read_dir().ok()?.flatten();
    folders
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|&id| Some(id) != own)
        .find(|id| {
            let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
            line.replace('\0', " ").contains(words)
        })
}

/// How many KiB it has resident.
pub fn memory(words: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", find(words)?)).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub fn kill(words: &str) -> anyhow::Result<()> {
    let id = find(words).with_context(|| format!("no process: {words}"))?;
    let pid = Pid::from_raw(id).context("no process id")?;
    kill_process(pid, Signal::KILL)?;
    Ok(())
}
