//! The output in the terminal, all on stderr.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use openid_deferred::{PendingAuthentication, WaitEvent};

/// Numbered steps, and one live line while waiting.
pub struct Progress {
    line: ProgressBar,
    polls: AtomicU32,
    steps: AtomicU32,
    /// Returns the requests and responses since the last call.
    wire: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

impl Progress {
    pub fn new(wire: impl Fn() -> Vec<String> + Send + Sync + 'static) -> Self {
        let line = ProgressBar::new_spinner();
        line.set_style(ProgressStyle::with_template("{spinner:.cyan} {msg} [{elapsed}]").expect("a fixed template"));
        Self { line, polls: AtomicU32::new(0), steps: AtomicU32::new(0), wire: Box::new(wire) }
    }

    /// Prints a finished step, with its requests.
    pub fn step(&self, title: &str, explanation: &str) {
        let number = next(&self.steps);
        self.line.suspend(|| eprintln!("\n{number}. {title}: {explanation}"));
        self.print_wire();
    }

    pub fn note(&self, text: &str) {
        self.line.suspend(|| eprintln!("   ({text})"));
    }

    /// Shows the events of the wait.
    pub fn event(&self, pending: &PendingAuthentication, event: &WaitEvent<'_>) {
        self.print_wire();
        // The progress text comes from the provider. The library has removed control characters, so it is safe for a
        // terminal.
        let said = pending.progress().unwrap_or("the provider has not decided yet");
        match event {
            WaitEvent::Sleeping { due_in } => {
                self.line.enable_steady_tick(Duration::from_millis(100));
                self.line.set_message(format!("{said}; next poll in {:.0} s", due_in.as_secs_f64().ceil()));
            }
            WaitEvent::Pending => {
                let number = next(&self.polls);
                self.line.suspend(|| eprintln!("   poll {number}: {said}"));
            }
            WaitEvent::SlowDown => {
                let number = next(&self.polls);
                self.line.suspend(|| eprintln!("   poll {number}: slow down, so 5 s more between polls"));
            }
            WaitEvent::Answered => {
                let number = next(&self.polls);
                self.line.suspend(|| eprintln!("   poll {number}: here is the answer"));
            }
            WaitEvent::TransientError { error } => {
                self.line.suspend(|| eprintln!("   temporary error, trying again: {error}"))
            }
            _ => {}
        }
    }

    pub fn finish(&self) {
        self.line.finish_and_clear();
    }

    fn print_wire(&self) {
        for line in (self.wire)() {
            self.line.suspend(|| eprintln!("     {line}"));
        }
    }
}

fn next(counter: &AtomicU32) -> u32 {
    counter.fetch_add(1, Ordering::Relaxed) + 1
}
