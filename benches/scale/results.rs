//! Results: a table to read, and a file to draw from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use openid_deferred::{Clock as _, SystemClock};
use serde::{Deserialize, Serialize};

use crate::Failed;
use crate::machine;
use crate::population::StoreKind;
use crate::run::Measured;

/// All results in one file, the latest with each setting.
pub(crate) struct Results {
    kind: &'static str,
    file: PathBuf,
    all: Vec<Kept>,
    /// The number of new ones.
    new: usize,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Kept {
    kind: String,
    /// Seconds since 1970.
    at: u64,
    processors: String,
    pub(crate) measured: Measured,
}

impl Results {
    pub(crate) fn new(kind: &'static str, file: &Path) -> Result<Self, Failed> {
        let all = match fs::read(file) {
            Ok(json) => serde_json::from_slice(&json)?,
            Err(_) => Vec::new(),
        };
        Ok(Self { kind, file: file.to_owned(), all, new: 0 })
    }

    /// The results of this kind.
    pub(crate) fn of_kind(&self) -> impl Iterator<Item = &Measured> {
        self.all.iter().filter(|kept| kept.kind == self.kind).map(|kept| &kept.measured)
    }

    /// Stores a result at once, in the place of an older one with the same settings.
    pub(crate) fn add(&mut self, measured: Measured) -> Result<(), Failed> {
        let settings = |of: &Measured| {
            let population = (of.store, of.pending, of.clients, of.interval_s);
            (population, of.transport, of.outage_s, of.snapshot, of.in_flight)
        };
        self.all.retain(|kept| kept.kind != self.kind || settings(&kept.measured) != settings(&measured));
        let at = SystemClock.now().duration_since(UNIX_EPOCH)?.as_secs();
        self.all.push(Kept { kind: self.kind.to_owned(), at, processors: machine::processors(), measured });
        self.new += 1;
        if let Some(folder) = self.file.parent() {
            fs::create_dir_all(folder)?;
        }
        Ok(fs::write(&self.file, serde_json::to_vec_pretty(&self.all)?)?)
    }

    /// Compares the memory of a pending sign-in with that of another library.
    pub(crate) fn compare_memory(&self, peer_bytes: usize) {
        let new = self.all[self.all.len() - self.new..].iter().map(|kept| &kept.measured);
        if let Some(most) = new.filter(|of| of.store == StoreKind::Memory).max_by_key(|of| of.pending) {
            let (ours, peer) = (most.bytes_each(), peer_bytes as f64);
            let (ours, share, peer) = (grouped(ours), ours / peer, grouped(peer));
            println!(
                "\nEach of the most in memory takes {ours} bytes, {share:.2} of the {peer} without a key elsewhere."
            );
        }
    }

    /// Prints a table of the new results, in Markdown.
    pub(crate) fn show(&self) {
        println!("\n{}, {}, load average {}\n", self.kind, machine::processors(), machine::load());
        println!(
            "| store | pending | clients | snapshot | interval | polls/s | CPU µs/poll | late p50 | p99 | p99.9 | max ms | early | memory MB | \
             bytes each | first poll ms |"
        );
        println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
        for Kept { measured, .. } in &self.all[self.all.len() - self.new..] {
            let is_in_memory = measured.store == StoreKind::Memory;
            let punctuality = &measured.punctuality;
            let cells = [
                format!("{:?}", measured.store),
                grouped(measured.pending as f64),
                grouped(measured.clients as f64),
                if measured.snapshot { "open" } else { "" }.to_owned(),
                format!("{} s", measured.interval_s),
                grouped(measured.polls_per_second()),
                format!("{:.1}", measured.cpu_micros_per_poll),
                format!("{:.1}", punctuality.p50_ms),
                format!("{:.1}", punctuality.p99_ms),
                format!("{:.1}", punctuality.p999_ms),
                format!("{:.1}", punctuality.max_ms),
                punctuality.early.to_string(),
                format!("{:.0}", measured.polling_mb),
                if is_in_memory { grouped(measured.bytes_each()) } else { String::new() },
                grouped(measured.first_poll_ms),
            ];
            println!("| {} |", cells.join(" | "));
        }
    }
}

/// A whole number with separators between thousands.
pub(crate) fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
