//! The memory of this program.

use std::time::Duration;

use openid_deferred::{Clock as _, SystemClock};

const MEBIBYTE: u64 = 1024 * 1024;

/// Runs the future. Returns its output and the largest growth of this program's memory during the run, in MiB.
///
/// Without `/proc`, the growth is always 0.
pub async fn growth_during<T>(burst: impl Future<Output = T>) -> (T, u64) {
    let before = resident();
    let mut most = before;
    let watch = async {
        loop {
            most = most.max(resident());
            SystemClock.sleep(Duration::from_millis(20)).await;
        }
    };
    let result = tokio::select! {
        biased;
        result = burst => result,
        () = watch => unreachable!("it has no end"),
    };
    (result, (most.max(resident()) - before) / MEBIBYTE)
}

fn resident() -> u64 {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return 0 };
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has it");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().expect("it is a number");
    kilobytes * 1024
}
