//! A consistent copy of the file, beside programs that use it.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::Connection;

use super::problem::{self, Refusal};
use super::{SqliteStore, file};
use crate::store::StoreError;

/// How long to wait for a lock of another program, such as one that creates the file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A finished backup of a [`SqliteStore`].
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Backup {
    /// The number of sign-ins in it, tombstones included.
    pub rows: u64,
    /// The size of the file.
    pub bytes: u64,
}

impl SqliteStore {
    /// Writes a consistent copy of the store to a new file, while this program and others use the store.
    ///
    /// The copy is the state of one moment, with everything in the write-ahead log, and without remains of erased rows.
    /// It is readable for the current user only. It is written under the name with `.partial` appended, checked, and
    /// renamed when it has reached the disk, so a file with the given name is complete. Writers do not wait. The
    /// write-ahead log cannot shrink meanwhile.
    ///
    /// To restore it, stop every program that uses the store, remove the store's file with its companions `-wal` and
    /// `-shm`, and put a copy of the backup in its place. Sign-ins that ended since then are polled again, and
    /// outcomes that were acknowledged since then are delivered again.
    ///
    /// ```
    /// use openid_deferred::store::SqliteStore;
    ///
    /// # async fn back_up(path: &std::path::Path) -> Result<(), openid_deferred::store::StoreError> {
    /// let store = SqliteStore::open(path).await?;
    /// let backup = store.backup(path.with_extension("backup")).await?;
    /// println!("{} sign-ins in {} bytes", backup.rows, backup.bytes);
    /// # Ok(())
    /// # }
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("deferred.sqlite");
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(back_up(&path)).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`Unusable`](crate::store::StoreProblem::Unusable) if the file exists already or cannot be created there, or if
    /// the copy is damaged; [`Unavailable`](crate::store::StoreProblem::Unavailable) if the disk is full or the store is
    /// locked. A partial file may remain, which the next backup to this name replaces.
    pub async fn backup(&self, target: impl AsRef<Path>) -> Result<Backup, StoreError> {
        let (source, target) = (self.path.clone(), target.as_ref().to_owned());
        let copy = tokio::task::spawn_blocking(move || copy(&source, &target));
        copy.await.unwrap_or_else(|_| Err(problem::thread_has_ended()))
    }
}

fn copy(source: &Path, target: &Path) -> Result<Backup, StoreError> {
    if target.try_exists().map_err(problem::of_file)? {
        return Err(Refusal::Exists(target.to_owned()).into());
    }
    let partial = partial_of(target);
    create_anew(&partial).map_err(problem::of_file)?;
    let name = partial.to_str().ok_or_else(|| StoreError::from(Refusal::Name(partial.clone())))?;
    // SQLite writes to an existing file only if it is empty, and keeps its permissions.
    let source = file::connect(source, BUSY_TIMEOUT).map_err(|error| problem::of_database(&error))?;
    source.execute("VACUUM INTO ?", [name]).map_err(|error| problem::of_database(&error))?;
    let rows = check(&partial)?;
    let finish = || {
        let written = File::open(&partial)?;
        written.sync_all()?;
        fs::rename(&partial, target)?;
        sync_folder(target)?;
        Ok(written.metadata()?.len())
    };
    Ok(Backup { rows, bytes: finish().map_err(problem::of_file)? })
}

fn partial_of(target: &Path) -> PathBuf {
    let mut name = OsString::from(target);
    name.push(".partial");
    PathBuf::from(name)
}

/// Creates an empty file that only this user can read. What an interrupted backup left is removed.
fn create_anew(partial: &Path) -> io::Result<()> {
    match fs::remove_file(partial) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(partial).map(drop)
}

/// Checks that the copy is undamaged, and returns the number of its rows.
fn check(copy: &Path) -> Result<u64, StoreError> {
    let read = || {
        let connection = Connection::open(copy)?;
        let result: String = connection.pragma_query_value(None, "quick_check", |row| row.get(0))?;
        let rows: i64 = connection.query_row("SELECT count(*) FROM process", [], |row| row.get(0))?;
        Ok((result, rows))
    };
    let (result, rows) = read().map_err(|error: rusqlite::Error| problem::of_database(&error))?;
    if result != "ok" {
        return Err(Refusal::Damaged(copy.to_owned()).into());
    }
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Makes the name of a file survive a crash of the machine.
#[cfg(unix)]
fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(not(unix))]
fn sync_folder(_file: &Path) -> io::Result<()> {
    Ok(())
}
