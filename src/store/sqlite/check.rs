//! Checks of a file before a deployment.

use std::fs;
use std::path::Path;

use rusqlite::Connection;

use super::file::STEPS;
use super::{SqliteStore, problem};
use crate::store::{Finding, StoreError};

/// The length of a write-ahead log, in bytes, at which something prevents its end: four times the length to which it is
/// truncated.
const LONG_LOG: u64 = 256 * 1024 * 1024;

impl SqliteStore {
    /// Checks the file before a deployment: the schema, who may read the file, whether its pages are damaged
    /// (`PRAGMA quick_check`, which reads the whole file), and whether its write-ahead log has grown. It changes
    /// nothing.
    ///
    /// [`poller::check`](crate::poller::check) checks the rows and their keys.
    ///
    /// # Errors
    ///
    /// Those of any call. A problem that was found is not an error.
    pub async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        let mut findings = self.read(|file, _| Ok(vec![schema(file)?, pages(file)?])).await?;
        findings.push(log(&self.path));
        findings.extend(permissions(&self.path)?);
        findings.push(Finding::fine("clock", "due times are on the clock of this machine"));
        Ok(findings)
    }
}

fn schema(file: &Connection) -> rusqlite::Result<Finding> {
    let (found, known): (i64, _) = (file.pragma_query_value(None, "user_version", |row| row.get(0))?, STEPS.len());
    Ok(match usize::try_from(found) {
        Ok(found) if found <= known => Finding::fine("schema", format!("the file has schema {found}")),
        _ => Finding::fine("schema", format!("the file has schema {found} of a newer release, which this one can use")),
    })
}

fn pages(file: &Connection) -> rusqlite::Result<Finding> {
    let result: String = file.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok(match &*result {
        "ok" => Finding::fine("file", "the pages of the file are sound"),
        _ => Finding::wrong(
            "file",
            format!("the file is damaged: {}", result.lines().next().unwrap_or_default()),
            "stop all replicas, keep a copy of the file, and restore the last backup",
        ),
    })
}

fn log(path: &Path) -> Finding {
    let mut name = path.as_os_str().to_owned();
    name.push("-wal");
    let length = fs::metadata(&name).map_or(0, |log| log.len());
    let text = format!("the write-ahead log has {} MiB", length / (1024 * 1024));
    match length >= LONG_LOG {
        true => Finding::warning("log", text, "end programs that keep a read transaction of the file open"),
        false => Finding::fine("log", text),
    }
}

/// Who else may read the file. Other systems than Unix have no such mode.
#[cfg(unix)]
fn permissions(path: &Path) -> Result<Option<Finding>, StoreError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = fs::metadata(path).map_err(problem::of_file)?.permissions().mode() & 0o777;
    Ok(Some(match mode & 0o077 {
        0 => Finding::fine("permissions", "only its owner may read the file"),
        _ => Finding::warning(
            "permissions",
            format!("other users may read or write the file (mode {mode:o})"),
            "chmod 600 the file and its companions -wal and -shm",
        ),
    }))
}

#[cfg(not(unix))]
fn permissions(_path: &Path) -> Result<Option<Finding>, StoreError> {
    Ok(None)
}
