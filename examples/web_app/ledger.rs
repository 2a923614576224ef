//! The application's own data: bookings with their endings, and sessions. A real application would delete old ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use openid_deferred::store::ProcessId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::ending::{Ending, Person};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS bookings (
        process TEXT PRIMARY KEY,    -- the poller's identifier of the sign-in
        boat TEXT NOT NULL,
        ending TEXT,                 -- in JSON
        is_final INTEGER NOT NULL DEFAULT 0,
        is_used INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE TABLE IF NOT EXISTS sessions (
        token BLOB PRIMARY KEY,      -- a hash, so that a reader of this file cannot take over a session
        person TEXT NOT NULL         -- in JSON
    ) STRICT;";

/// An SQLite file. Clones share it.
#[derive(Clone)]
pub struct Ledger(Arc<Mutex<Connection>>);

/// A booking of a boat, for a user whose identity must be verified.
pub struct Booking {
    pub id: ProcessId,
    pub boat: String,
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

    /// Stores a booking. Its outcome may have arrived before.
    pub async fn book(&self, id: ProcessId, boat: String) -> anyhow::Result<()> {
        let insert = "INSERT INTO bookings (process, boat) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.run(move |connection| connection.execute(insert, params![id.to_string(), boat])).await?;
        Ok(())
    }

    /// Stores the ending of a booking. Outcomes are delivered at least once, so this may happen twice. If the earlier
    /// ending is `Unknown` or `Failed`, the OP's late success replaces it.
    pub async fn end(&self, id: ProcessId, boat: String, ending: Ending) -> anyhow::Result<()> {
        let upsert = "INSERT INTO bookings (process, boat, ending, is_final) VALUES (?1, ?2, ?3, ?4)
                      ON CONFLICT DO UPDATE SET ending = ?3, is_final = ?4 WHERE is_final = 0";
        let (json, is_final) = (serde_json::to_string(&ending)?, ending.is_final());
        self.run(move |connection| connection.execute(upsert, params![id.to_string(), boat, json, is_final])).await?;
        Ok(())
    }

    /// A booking. If this application was killed before it stored the boat, the outcome will name it.
    pub async fn booking(&self, id: ProcessId) -> anyhow::Result<Booking> {
        let query = "SELECT boat, ending FROM bookings WHERE process = ?1";
        let booking = move |row: &Row<'_>| Ok(Booking { id, boat: row.get(0)?, ending: json(row, 1)? });
        let found = self.run(move |connection| connection.query_row(query, [id.to_string()], booking).optional());
        Ok(found.await?.unwrap_or_else(|| Booking { id, boat: "boat".to_owned(), ending: None }))
    }

    pub async fn bookings(&self, ids: impl Iterator<Item = ProcessId>) -> anyhow::Result<Vec<Booking>> {
        let mut bookings = Vec::new();
        for id in ids {
            bookings.push(self.booking(id).await?);
        }
        Ok(bookings)
    }

    /// The verified person of a booking, once.
    pub async fn enter(&self, id: ProcessId) -> anyhow::Result<Option<Person>> {
        let update =
            "UPDATE bookings SET is_used = 1 WHERE process = ?1 AND is_used = 0 AND is_final = 1 RETURNING ending";
        let ending = |row: &Row<'_>| json::<Ending>(row, 0);
        let ending = self.run(move |connection| connection.query_row(update, [id.to_string()], ending).optional());
        Ok(match ending.await?.flatten() {
            Some(Ending::Approved(person)) => Some(person),
            _ => None,
        })
    }

    pub async fn sign_in(&self, token: [u8; 32], person: &Person) -> anyhow::Result<()> {
        let person = serde_json::to_string(person)?;
        let insert = "INSERT INTO sessions (token, person) VALUES (?1, ?2)";
        self.run(move |connection| connection.execute(insert, params![token, person])).await?;
        Ok(())
    }

    pub async fn person(&self, token: [u8; 32]) -> anyhow::Result<Option<Person>> {
        let query = "SELECT person FROM sessions WHERE token = ?1";
        let person = |row: &Row<'_>| json(row, 0);
        Ok(self.run(move |connection| connection.query_row(query, [token], person).optional()).await?.flatten())
    }

    pub async fn sign_out(&self, token: [u8; 32]) -> anyhow::Result<()> {
        self.run(move |connection| connection.execute("DELETE FROM sessions WHERE token = ?1", [token])).await?;
        Ok(())
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

fn json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    text.map(|text| serde_json::from_str(&text)).transpose().map_err(wrong)
}
