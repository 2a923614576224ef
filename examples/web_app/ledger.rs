//! The application's own data: how bookings ended, and sessions. A real application would delete old ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use openid_deferred::poller::Status;
use openid_deferred::store::ProcessId;
use rusqlite::types::Type;
use rusqlite::{Connection, OptionalExtension as _, Params, Row};
use serde::de::DeserializeOwned;

use super::ending::{Ending, Person};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS endings (
        process TEXT PRIMARY KEY,    -- the poller's identifier of the sign-in
        boat TEXT NOT NULL,
        ending TEXT NOT NULL,        -- in JSON
        used_at INTEGER,             -- in seconds since 1970: when the user was first signed in by it
        session BLOB                 -- the hash of the token of the session that it began last
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        token BLOB PRIMARY KEY,      -- a hash, so that a reader of this file cannot take over a session
        person TEXT NOT NULL         -- in JSON
    ) STRICT;";

/// An approval that was not used yet, or less than two minutes ago.
const USABLE: &str = "
    SELECT ending ->> 'person', session FROM endings
    WHERE process = ?1 AND ending ->> 'person' IS NOT NULL AND coalesce(used_at > unixepoch() - 120, TRUE)";

const USE: &str = "UPDATE endings SET used_at = coalesce(used_at, unixepoch()), session = ?2 WHERE process = ?1";

/// An SQLite file. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Connection>>);

/// A booking of a boat, for a user whose identity must be verified.
pub struct Booking {
    pub id: ProcessId,
    pub boat: String,
    /// What the poller knows.
    pub status: Option<Status>,
    /// What this application has stored.
    pub ending: Option<Ending>,
}

impl Ledger {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("cannot use {}", path.display()))?;
        // An outcome is acknowledged when it is on the disk, so commits must be synchronous.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(Arc::new(Mutex::new(connection))))
    }

    /// Stores the ending of a booking. Outcomes are delivered at least once, so this may happen twice. The OP's late
    /// approval may replace another ending.
    pub async fn end(&self, id: ProcessId, boat: String, ending: &Ending) -> anyhow::Result<()> {
        let upsert = "INSERT INTO endings (process, boat, ending) VALUES (?1, ?2, ?3)
                      ON CONFLICT DO UPDATE SET ending = ?3 WHERE endings.ending ->> 'person' IS NULL";
        self.change(upsert, (id.to_string(), boat, serde_json::to_string(ending)?)).await
    }

    /// A booking with this status. Endings are stored before outcomes are acknowledged, so one that has ended has its
    /// ending here.
    pub async fn booking(&self, id: ProcessId, status: Option<Status>) -> anyhow::Result<Booking> {
        let query = "SELECT ending, boat FROM endings WHERE process = ?1";
        let found = self.find(query, [id.to_string()], |row| Ok((json(row)?, row.get(1)?))).await?;
        let (ending, boat) = found.map_or((None, None), |(ending, boat)| (Some(ending), Some(boat)));
        let named = status.as_ref().map(|status| String::from_utf8_lossy(status.context()).into_owned());
        let boat = boat.or(named).unwrap_or_else(|| "boat".to_owned());
        Ok(Booking { id, boat, status, ending })
    }

    /// Signs in the verified person of a booking. Returns whether there is one. Users click twice, so for two minutes
    /// it can be repeated; the new session then replaces the one before.
    pub async fn enter(&self, id: ProcessId, token: [u8; 32]) -> anyhow::Result<bool> {
        self.run(move |connection| {
            let (transaction, id) = (connection.unchecked_transaction()?, id.to_string());
            let read = |row: &Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, Option<Vec<u8>>>(1)?));
            let Some((person, former)) = transaction.query_row(USABLE, [&id], read).optional()? else {
                return Ok(false);
            };
            transaction.execute("DELETE FROM sessions WHERE token = ?1", [former])?;
            transaction.execute("INSERT INTO sessions (token, person) VALUES (?1, ?2)", (token, person))?;
            transaction.execute(USE, (id, token))?;
            transaction.commit()?;
            Ok(true)
        })
        .await
    }

    pub async fn sign_in(&self, token: [u8; 32], person: &Person) -> anyhow::Result<()> {
        let person = serde_json::to_string(person)?;
        self.change("INSERT INTO sessions (token, person) VALUES (?1, ?2)", (token, person)).await
    }

    pub async fn person(&self, token: [u8; 32]) -> anyhow::Result<Option<Person>> {
        self.find("SELECT person FROM sessions WHERE token = ?1", [token], json).await
    }

    pub async fn sign_out(&self, token: [u8; 32]) -> anyhow::Result<()> {
        self.change("DELETE FROM sessions WHERE token = ?1", [token]).await
    }

    async fn change(&self, sql: &'static str, values: impl Params + Send + 'static) -> anyhow::Result<()> {
        self.run(move |connection| connection.execute(sql, values).map(drop)).await
    }

    async fn find<T: Send + 'static>(
        &self,
        sql: &'static str,
        values: impl Params + Send + 'static,
        read: fn(&Row<'_>) -> rusqlite::Result<T>,
    ) -> anyhow::Result<Option<T>> {
        self.run(move |connection| connection.query_row(sql, values, read).optional()).await
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let connection = self.0.clone();
        let run = move || work(&connection.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tokio::task::spawn_blocking(run).await??)
    }
}

/// The value in the first column.
fn json<T: DeserializeOwned>(row: &Row<'_>) -> rusqlite::Result<T> {
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(0, Type::Text, Box::new(error));
    serde_json::from_str(&row.get::<_, String>(0)?).map_err(wrong)
}
