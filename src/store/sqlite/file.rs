//! Opens the file: which files are refused, the settings, and the schema.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::problem::{self, Refusal};
use crate::store::StoreError;

/// "OIDd": marks a file as one of this crate.
const APPLICATION: i64 = 0x4f49_4464;

/// The steps of the schema. Only append to them: the `user_version` of a file is the number of steps applied to it. A
/// step that only adds does not change the version in the table `compatibility`, so that older releases continue to
/// work.
pub(super) const STEPS: [&str; 4] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
];

/// The length of the write-ahead log at which it is copied into the database, in pages of 4 KiB.
const LOG_PAGES: i64 = 4_000;

/// The writer's page cache. It holds the index by due time of a few hundred thousand rows and the pages in use.
const CACHE_KIBIBYTES: i64 = 16 * 1024;

/// How long to wait for programs that use the write-ahead log before it is emptied.
const SCRUB_TIMEOUT: Duration = Duration::from_secs(5);

/// The number of compiled statements to keep.
const STATEMENTS: usize = 64;

/// Creates the file if it does not exist, readable for this user only, and returns its canonical path. SQLite gives the
/// companion files `-wal` and `-shm` the same permissions.
pub(super) fn prepare(path: &Path) -> Result<PathBuf, StoreError> {
    create(path).map_err(problem::of_file)?;
    // An absolute path has no special meaning to SQLite, unlike `:memory:` and an empty path.
    let path = fs::canonicalize(path).map_err(problem::of_file)?;
    if !fs::metadata(&path).map_err(problem::of_file)?.is_file() {
        return Err(Refusal::NotAFile(path).into());
    }
    match network_file_system(&path) {
        Some(kind) => Err(Refusal::Network(path, kind).into()),
        None => Ok(path),
    }
}

fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

/// Opens a connection that writes, and brings the schema up to date.
pub(super) fn open_writer(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let connection = connect(path, busy_timeout).map_err(|error| problem::of_database(&error))?;
    // The check comes before anything is written, and in a transaction, because another process may be creating the
    // file.
    let execute = |sql| connection.execute_batch(sql).map_err(|error| problem::of_database(&error));
    execute("BEGIN")?;
    check(&connection, path)?;
    execute("COMMIT")?;
    set_up(&connection, path)?;
    Ok(connection)
}

/// Opens a connection that only reads. The writer must have been opened before.
pub(super) fn open_reader(path: &Path, busy_timeout: Duration) -> Result<Connection, StoreError> {
    let open = || {
        let connection = connect(path, busy_timeout)?;
        connection.pragma_update(None, "query_only", true)?;
        Ok(connection)
    };
    open().map_err(|error: rusqlite::Error| problem::of_database(&error))
}

/// Opens a connection to a file that exists.
pub(super) fn connect(path: &Path, busy_timeout: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    connection.pragma_update(None, "trusted_schema", false)?;
    // Otherwise the copies of pages for savepoints would go through files.
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection)
}

/// Copies the write-ahead log into the database and empties it. Returns whether it is empty; another program may be
/// reading from it.
pub(super) fn empty_log(path: &Path) -> Result<bool, StoreError> {
    let empty = || {
        let connection = connect(path, SCRUB_TIMEOUT)?;
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
    };
    empty().map(|is_busy| !is_busy).map_err(|error| problem::of_database(&error))
}

/// Checks that the file is empty or belongs to this crate, and that no newer release has made it incompatible. Returns
/// how many of the known steps were applied to it.
fn check(connection: &Connection, path: &Path) -> Result<usize, StoreError> {
    let read = || {
        let application: i64 = connection.pragma_query_value(None, "application_id", |row| row.get(0))?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        let objects: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
        Ok((application, version, objects))
    };
    let (application, version, objects) = read().map_err(|error: rusqlite::Error| problem::of_database(&error))?;
    let is_empty = application == 0 && version == 0 && objects == 0;
    if application != APPLICATION && !is_empty {
        return Err(Refusal::Foreign(path.to_owned()).into());
    }
    let known = STEPS.len();
    match usize::try_from(version) {
        Ok(seen) if seen <= known => Ok(seen),
        Ok(_) if is_compatible(connection, known).map_err(|error| problem::of_database(&error))? => Ok(known),
        _ => Err(Refusal::Newer { path: path.to_owned(), found: version, known: known as i64 }.into()),
    }
}

/// Whether a release that knows this number of steps can use a file to which more were applied.
fn is_compatible(connection: &Connection, known: usize) -> rusqlite::Result<bool> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'compatibility'";
    if connection.query_row(tables, [], |row| row.get::<_, i64>(0))? == 0 {
        return Ok(false);
    }
    let oldest: Option<i64> = connection.query_row("SELECT max(oldest) FROM compatibility", [], |row| row.get(0))?;
    Ok(oldest.and_then(|oldest| usize::try_from(oldest).ok()).is_some_and(|oldest| oldest <= known))
}

fn set_up(connection: &Connection, path: &Path) -> Result<(), StoreError> {
    let failed = |error: rusqlite::Error| problem::of_database(&error);
    if log_ahead(connection).map_err(failed)? != "wal" {
        return Err(Refusal::NoWriteAheadLog(path.to_owned()).into());
    }
    let configure = || {
        connection.pragma_update(None, "synchronous", "full")?;
        connection.pragma_update(None, "foreign_keys", true)?;
        // Erased bodies are overwritten, also in pages that become free.
        connection.pragma_update(None, "secure_delete", "on")?;
        connection.pragma_update(None, "journal_size_limit", 64 * 1024 * 1024)?;
        // A page that many transactions change is copied into the database only once.
        connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
        connection.pragma_update(None, "cache_size", -CACHE_KIBIBYTES)?;
        connection.execute_batch("BEGIN IMMEDIATE")
    };
    configure().map_err(failed)?;
    // Checked again, because another process may have been faster. If a step fails, closing the connection rolls back
    // all of them.
    let seen = check(connection, path)?;
    let migrate = || {
        for step in STEPS.iter().skip(seen) {
            connection.execute_batch(step)?;
        }
        if seen < STEPS.len() {
            connection.pragma_update(None, "application_id", APPLICATION)?;
            connection.pragma_update(None, "user_version", STEPS.len() as i64)?;
        }
        connection.execute_batch("COMMIT")
    };
    migrate().map_err(failed)
}

/// Switches to write-ahead logging, a permanent setting of the file, and returns the resulting mode. If several
/// processes create the file together, SQLite does not wait but fails at once, so the wait is done here.
fn log_ahead(connection: &Connection) -> rusqlite::Result<String> {
    let mut attempts = 0..100;
    loop {
        let switched = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0));
        match switched {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && attempts.next().is_some() => {
                connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK")?;
            }
            switched => return switched,
        }
    }
}

/// The name of the file system that holds the file, if machines can share it.
#[cfg(target_os = "linux")]
fn network_file_system(path: &Path) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;

    const KINDS: [&str; 16] = [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "fuse.ceph",
        "fuse.glusterfs",
        "fuse.s3fs",
        "fuse.sshfs",
        "gfs2",
        "lustre",
        "nfs",
        "nfs4",
        "ocfs2",
        "smb3",
    ];
    let device = fs::metadata(path).ok()?.dev();
    // The same split of a device number as by the C library's `major` and `minor`.
    let major = (device >> 8) & 0xfff | (device >> 32) & !0xfff;
    let minor = device & 0xff | (device >> 12) & !0xff;
    let device = format!("{major}:{}", minor & 0xffff_ffff);
    // See proc_pid_mountinfo(5): number, parent, major:minor, …, "-", file system, …
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let kinds = mounts.lines().filter_map(|line| {
        let (mount, details) = line.split_once(" - ")?;
        (mount.split(' ').nth(2)? == device).then(|| details.split(' ').next())?
    });
    kinds.into_iter().find(|kind| KINDS.contains(kind)).map(str::to_owned)
}

#[cfg(not(target_os = "linux"))]
fn network_file_system(_path: &Path) -> Option<String> {
    None
}
