//! `export`, `import` and `backup`

use std::fs::{File, OpenOptions};
use std::io::{BufReader, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use openid_deferred::operations::{ImportReport, TransferError};

use crate::Health;
use crate::failure::Failure;
use crate::location::Opened;
use crate::output::{Output, bar, counted};

#[derive(Args)]
pub(crate) struct FileName {
    /// The file.
    path: PathBuf,
}

impl FileName {
    /// Writes all rows to a new file that only this user can read.
    pub(crate) async fn export(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let path = &self.path;
        let file = new_file(path).map_err(|error| {
            let failure = Failure::new(format!("cannot create {}", path.display())).because(&error);
            failure.advise("name a file that does not exist, in a folder that exists")
        })?;
        let total = opened.store().stats().await.map_err(|error| Failure::store("cannot count the rows", &error))?;
        let bar = bar(output.form(), "exporting {bar:40} {pos} of {len} rows, {eta} left");
        bar.set_length(total.iter().map(|stats| stats.open() + stats.decided + stats.acknowledged).sum());
        let mut file = BufWriter::new(file);
        let exported = opened.operations().export(&mut file, |progress| bar.set_position(progress.rows)).await;
        bar.finish_and_clear();
        let failed = |error| failed("the export failed", path, error, "remove the file and export again");
        let exported = exported.map_err(failed)?;
        file.flush().and_then(|()| file.get_ref().sync_all()).map_err(|error| failed(error.into()))?;
        output.print(&exported, || {
            format!("{}, {} bytes are in {}", counted(exported.rows, "row", "rows"), exported.bytes, path.display())
        })?;
        Ok(Health::Well)
    }

    /// Adds the rows of a file.
    pub(crate) async fn import(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let path = &self.path;
        let open = || {
            let file = File::open(path)?;
            let length = file.metadata()?.len();
            Ok((file, length))
        };
        let (file, length) = open().map_err(|error: std::io::Error| {
            let failure = Failure::new(format!("cannot read {}", path.display())).because(&error);
            failure.advise("name a file that `openid-deferred export` has written")
        })?;
        let bar = bar(output.form(), "importing {bar:40} {bytes} of {total_bytes}, {eta} left");
        bar.set_length(length);
        let progress = |report: &ImportReport| bar.set_position(report.bytes);
        let report = opened.operations().import(BufReader::new(file), progress).await;
        bar.finish_and_clear();
        let advice = "the rows before it stay; correct this and repeat the command";
        let report = report.map_err(|error| failed("the import failed", path, error, advice))?;
        output.print(&report, || text(&report))?;
        Ok(if report.conflicts == 0 { Health::Well } else { Health::Unwell })
    }

    /// Writes a copy of an SQLite file.
    pub(crate) async fn backup(self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let path = &self.path;
        let Opened::Sqlite(store) = opened else {
            return Err(
                Failure::usage("backup is for SQLite").advise("back PostgreSQL up with pg_dump or its base backups")
            );
        };
        let backup = store.backup(path).await;
        let backup =
            backup.map_err(|error| Failure::store(format!("the backup to {} failed", path.display()), &error))?;
        output.print(&backup, || {
            format!("{}, {} bytes are in {}", counted(backup.rows, "row", "rows"), backup.bytes, path.display())
        })?;
        Ok(Health::Well)
    }
}

fn new_file(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn failed(what: &str, path: &Path, error: TransferError, advice: &'static str) -> Failure {
    let what = format!("{what}: {}", path.display());
    match &error {
        TransferError::Store(error) => Failure::library(what, error),
        error => Failure::new(what).because(error).advise(advice),
    }
}

fn text(report: &ImportReport) -> String {
    let ImportReport { added, present, conflicts, conflicting, .. } = report;
    let mut text = format!("{} added; already there: {present}", counted(*added, "row was", "rows were"));
    if *conflicts > 0 {
        let ids: Vec<_> = conflicting.iter().map(ToString::to_string).collect();
        text.push_str(&format!(
            "\n{} not added, because the store has another sign-in of the same session: {}",
            counted(*conflicts, "row was", "rows were"),
            ids.join(", ")
        ));
    }
    text
}
