//! `openid-deferred`, the command-line tool for operators of a [`Poller`](openid_deferred::Poller).
//!
//! It works on the poller's store, beside the replicas that run. `docs/operations/command-line.md` describes every
//! command. What a command does is a method of the library; this program parses its arguments and prints its result.

mod commands;
mod failure;
mod keys;
mod location;
mod output;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use commands::{check, generate, list, one, rotate, stats, transfer};
use failure::Failure;
use output::{Form, Output};

/// Looks into the store of pending sign-ins, and repairs it, beside the replicas that run.
///
/// Exit codes: 0 the command succeeded; 1 it failed, or `check` found something wrong; 2 wrong arguments.
#[derive(Parser)]
#[command(name = "openid-deferred", version, max_term_width = 100)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Args)]
struct Global {
    /// The store: `sqlite:PATH`, `postgres://USER@HOST/DATABASE` or another connection string of libpq. Other users of
    /// this machine can see arguments: put a password into OPENID_DEFERRED_STORE.
    ///
    /// Without this option, the environment variable OPENID_DEFERRED_STORE names the store.
    #[arg(long, global = true, value_name = "STORE")]
    store: Option<String>,
    /// The schema of the tables in PostgreSQL.
    #[arg(long, global = true, value_name = "NAME", default_value = "openid_deferred")]
    schema: String,
    /// Print JSON instead of text: one document on standard output, or one with the error on standard error.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Count the sign-ins of each client by state, with the age of the oldest that are due or undelivered.
    Stats,
    /// List sign-ins, a page at a time.
    List(list::List),
    /// Show what the store says about a sign-in, and what it waits for.
    Show(one::Compared),
    /// Bring the next poll of a sign-in forward, as far as the OP permits.
    PollNow(one::Compared),
    /// Release an outcome whose consumer hangs, or a sign-in that was set aside.
    Requeue(one::Compared),
    /// Cancel a sign-in: a replica tells the OP at the next poll, and the outcome is delivered as usual.
    Cancel(one::Compared),
    /// Erase a sign-in in any state, with its sealed data. Nothing is delivered. This cannot be undone.
    Forget(one::One),
    /// Write all rows, sealed as they are, to a new file.
    Export(transfer::FileName),
    /// Add the rows of an exported file. Rows that are there already are skipped.
    Import(transfer::FileName),
    /// Write a consistent copy of an SQLite file, beside programs that use it.
    Backup(transfer::FileName),
    /// Create the tables, or bring them up to date.
    Migrate,
    /// Check a deployment: tables, keys, settings, clock, TLS, and rows that no replica processes.
    Check(keys::OptionalKeys),
    /// Seal every row again with the primary key, so that an older key can be retired.
    Rotate(keys::Keys),
    /// Make keys.
    #[command(subcommand)]
    Key(KeyCommand),
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Make a sealing key from the operating system's randomness.
    Generate(generate::Generate),
}

fn main() -> ExitCode {
    let Arguments { global, command } = Arguments::parse();
    let mut output = Output::new(if global.json { Form::Json } else { Form::Text });
    let result = run(global, command, &mut output);
    output.finish(result)
}

/// Runs the command. Returns whether all is well.
fn run(global: Global, command: Command, output: &mut Output) -> Result<Health, Failure> {
    if let Command::Key(KeyCommand::Generate(generate)) = command {
        return generate.run(output);
    }
    let location = location::Location::of(global.store, global.schema)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new("cannot start the program").because(&error))?;
    runtime.block_on(async {
        match command {
            Command::Stats => stats::run(&location.open().await?, output).await,
            Command::List(list) => list.run(&location.open().await?, output).await,
            Command::Show(one) => one.show(&location.open().await?, output).await,
            Command::PollNow(one) => one.poll_now(&location.open().await?, output).await,
            Command::Requeue(one) => one.requeue(&location.open().await?, output).await,
            Command::Cancel(one) => one.cancel(&location.open().await?, output).await,
            Command::Forget(one) => one.forget(&location.open().await?, output).await,
            Command::Export(file) => file.export(&location.open().await?, output).await,
            Command::Import(file) => file.import(&location.open().await?, output).await,
            Command::Backup(file) => file.backup(&location.open().await?, output).await,
            Command::Migrate => location.migrate(output).await,
            Command::Check(keys) => check::run(&location.open().await?, keys, output).await,
            Command::Rotate(keys) => rotate::run(&location.open().await?, &keys, output).await,
            Command::Key(_) => Ok(Health::Well),
        }
    })
}

/// Whether a command found something wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    Unwell,
}
