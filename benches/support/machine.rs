//! What the kernel reports about a program and about the machine.

use std::error::Error;
use std::fs::read_to_string;
use std::time::Duration;

/// The CPU time of a program in ticks of 10 ms, user and system, of all its threads.
pub(crate) fn cpu_time(process: u32) -> Result<Duration, Box<dyn Error + Send + Sync>> {
    let stat = read_to_string(format!("/proc/{process}/stat"))?;
    let fields = stat.rsplit_once(')').ok_or("no fields")?.1.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.map(str::parse::<u64>).sum::<Result<_, _>>()?;
    Ok(Duration::from_millis(ticks * 10))
}

/// The three load averages, which show whether anything else was running.
pub(crate) fn load() -> String {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    load.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// The model and number of the processors.
pub(crate) fn processors() -> String {
    let list = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = list.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    format!("{} x {}", processors_count(), name.map_or("unknown", |(_, name)| name.trim()))
}

pub(crate) fn processors_count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}
