//! Other processes of the pod, where it shares them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, Signal, kill_process};

/// The folder in /proc of a process whose command line has these words, other than this one.
fn find(words: &str) -> Option<PathBuf> {
    let own = std::process::id().to_string();
    let folders = Path::new("/proc").read_dir().ok()?.flatten();
    folders
        .map(|entry| entry.path())
        .filter(|folder| !folder.ends_with(&own) && !folder.ends_with("self"))
        .find(|folder| {
            let line = std::fs::read_to_string(folder.join("cmdline")).unwrap_or_default();
            line.replace('\0', " ").contains(words)
        })
}

/// How many KiB it has resident.
pub fn memory(words: &str) -> Option<u64> {
    let status = std::fs::read_to_string(find(words)?.join("status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

pub fn kill(words: &str) -> anyhow::Result<()> {
    let folder = find(words).with_context(|| format!("no process: {words}"))?;
    let pid = folder
        .file_name()
        .and_then(|name| name.to_str()?.parse().ok());
    let pid = pid.and_then(Pid::from_raw).context("no process id")?;
    kill_process(pid, Signal::KILL)?;
    Ok(())
}
