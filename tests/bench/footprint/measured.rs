//! What was measured of a program, and the table of several.

use std::env;
use std::fs;
use std::process::Child;
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::cpu::cpu_of;

/// Memory of processes, in KiB: of `/proc/PID/smaps_rollup`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory {
    pub rss: u64,
    pub pss: u64,
    pub anonymous: u64,
}

impl Memory {
    /// Of all together; one that has ended has none.
    pub fn of<'a>(processes: impl IntoIterator<Item = &'a Child>) -> Self {
        let mut sum = Self::default();
        for process in processes {
            let path = format!("/proc/{}/smaps_rollup", process.id());
            let said = fs::read_to_string(path).unwrap_or_default();
            let kib = |name: &str| -> u64 {
                let value = said.lines().find_map(|line| line.strip_prefix(name));
                let digits = value.and_then(|value| value.split_whitespace().next());
                digits.map_or(0, |digits| digits.parse().unwrap())
            };
            sum.rss += kib("Rss:");
            sum.pss += kib("Pss:");
            sum.anonymous += kib("Anonymous:");
        }
        sum
    }
}

/// What a program does while it has nothing to do, in an hour.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    cpu: Duration,
    wakeups: u64,
    watched: Duration,
}

impl Idle {
    /// Watches it for as long as `FOOTPRINT_MINUTES` says.
    pub fn watch(process: &Child) -> Self {
        let minutes = env::var("FOOTPRINT_MINUTES").map_or(10.0, |m| m.parse::<f64>().unwrap());
        let (began, cpu, wakeups) = (Instant::now(), cpu_of(process), wakeups_of(process));
        sleep(Duration::from_secs_f64(60.0 * minutes));
        Self {
            cpu: cpu_of(process) - cpu,
            wakeups: wakeups_of(process) - wakeups,
            watched: began.elapsed(),
        }
    }
}

/// How often a thread of it has gone to sleep of itself, and so woke up (man 5 proc_pid_status).
fn wakeups_of(process: &Child) -> u64 {
    let threads = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let switches = threads.map_while(Result::ok).filter_map(|thread| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        let mut lines = status.lines();
        let count = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        count.trim().parse::<u64>().ok()
    });
    switches.sum()
}

/// The values of one column, in the order of [`ROWS`].
pub struct Measured([f64; ROWS.len()]);

const ROWS: [(&str, &str); 14] = [
    ("program", "MB"),
    ("start until it accepts connections, median", "ms"),
    ("p99", "ms"),
    ("RSS while serving", "KiB"),
    ("PSS", "KiB"),
    ("anonymous", "KiB"),
    ("RSS in a drain, all its processes", "KiB"),
    ("PSS", "KiB"),
    ("anonymous", "KiB"),
    ("RSS after it", "KiB"),
    ("PSS", "KiB"),
    ("anonymous", "KiB"),
    ("CPU while serving, a minute", "ms"),
    ("wake-ups while serving, a minute", ""),
];

impl Measured {
    pub fn new(
        bytes: u64,
        mut starts: Vec<Duration>,
        [serving, draining, after]: [Memory; 3],
        idle: Idle,
    ) -> Self {
        starts.sort();
        let start = |part: f64| {
            let at = ((starts.len() - 1) as f64 * part).round() as usize;
            1000.0 * starts[at].as_secs_f64()
        };
        let minutes = idle.watched.as_secs_f64() / 60.0;
        let of = |memory: Memory| [memory.rss, memory.pss, memory.anonymous].map(|kib| kib as f64);
        let values = [
            &[bytes as f64 / 1e6, start(0.5), start(0.99)][..],
            &of(serving),
            &of(draining),
            &of(after),
            &[
                1000.0 * idle.cpu.as_secs_f64() / minutes,
                idle.wakeups as f64 / minutes,
            ],
        ];
        Self(values.concat().try_into().unwrap())
    }

    /// For the process that started this one.
    pub fn line(&self) -> String {
        self.0.map(|value| value.to_string()).join(" ")
    }

    /// What [`Measured::line`] says.
    pub fn parse(line: &str) -> Self {
        let values: Vec<f64> = line
            .split_whitespace()
            .map(|w| w.parse().unwrap())
            .collect();
        Self(values.try_into().unwrap())
    }
}

/// Each value, and how many times the first column's it is.
pub fn table(columns: &[(&str, Measured)]) {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    println!("| | {} |", names.join(" | "));
    println!("| --- |{}", " --- |".repeat(columns.len()));
    let first = &columns[0].1.0;
    for (n, (what, unit)) in ROWS.iter().enumerate() {
        print!("| {what} |");
        for (column, (_, measured)) in columns.iter().enumerate() {
            let value = measured.0[n];
            if *unit == "KiB" && value == 0.0 {
                print!(" it has ended |");
                continue;
            }
            let digits = if value < 100.0 { 2 } else { 0 };
            print!(" {value:.digits$} {unit}");
            if column > 0 && first[n] > 0.0 {
                print!(" ({:.1} ×)", value / first[n]);
            }
            print!(" |");
        }
        println!();
    }
}
