//! The application's own data: browsers, and the bookings that they made. A real application would delete abandoned
//! ones.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use openid_deferred::store::ProcessId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use tokio::sync::broadcast;

use super::ending::{Ending, Person};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS browsers (
        id INTEGER PRIMARY KEY,
        token BLOB NOT NULL UNIQUE,  -- a hash, so that a reader of this file cannot take over a session
        person TEXT                  -- who is signed in, in JSON
    ) STRICT;
    CREATE TABLE IF NOT EXISTS bookings (
        id TEXT PRIMARY KEY,
        browser INTEGER NOT NULL REFERENCES browsers (id),
        boat TEXT NOT NULL,
        cookie TEXT NOT NULL UNIQUE, -- the name of the cookie with the authorization session
        process TEXT,                -- the poller's identifier, once the user has come back
        ending TEXT,                 -- in JSON
        is_final INTEGER NOT NULL DEFAULT 0,
        is_used INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX IF NOT EXISTS bookings_of_a_browser ON bookings (browser);";

/// An SQLite file. Clones share it.
#[derive(Clone)]
pub struct Ledger {
    connection: Arc<Mutex<Connection>>,
    changed: broadcast::Sender<Arc<str>>,
}

/// A known browser, identified by its cookie.
pub struct Browser {
    pub id: i64,
    /// The person who is signed in.
    pub person: Option<Person>,
}

/// A booking of a boat, for a user whose identity must be verified.
#[derive(Clone)]
pub struct Booking {
    pub id: String,
    pub boat: String,
    /// `None` until the user has come back from the OP.
    pub process: Option<ProcessId>,
    pub ending: Option<Ending>,
}

impl Ledger {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("cannot use {}", path.display()))?;
        // An outcome is acknowledged when it is on the disk, so commits must be synchronous.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)), changed: broadcast::Sender::new(256) })
    }

    /// Sends the bookings that change, for the pages that show them.
    pub fn changes(&self) -> broadcast::Receiver<Arc<str>> {
        self.changed.subscribe()
    }

    pub async fn new_browser(&self, token: [u8; 32]) -> anyhow::Result<Browser> {
        self.run(move |connection| {
            connection.execute("INSERT INTO browsers (token) VALUES (?1)", [token])?;
            Ok(Browser { id: connection.last_insert_rowid(), person: None })
        })
        .await
    }

    pub async fn browser(&self, token: [u8; 32]) -> anyhow::Result<Option<Browser>> {
        self.run(move |connection| {
            let query = "SELECT id, person FROM browsers WHERE token = ?1";
            let browser = |row: &Row<'_>| Ok(Browser { id: row.get(0)?, person: from_json(row, 1)? });
            connection.query_row(query, [token], browser).optional()
        })
        .await
    }

    /// Signs the user out. The browser gets a new token, so that the old one is useless.
    pub async fn sign_out(&self, browser: i64, token: [u8; 32]) -> anyhow::Result<()> {
        self.run(move |connection| {
            let update = "UPDATE browsers SET person = NULL, token = ?2 WHERE id = ?1";
            connection.execute(update, params![browser, token])
        })
        .await?;
        Ok(())
    }

    /// Signs in the person of a booking, in the browser that made it and only once. Returns `false` if there is no
    /// person to sign in.
    pub async fn sign_in(&self, booking: &str, browser: i64, token: [u8; 32]) -> anyhow::Result<bool> {
        let booking = booking.to_owned();
        self.run(move |connection| {
            let transaction = connection.transaction()?;
            let query =
                "UPDATE bookings SET is_used = 1 WHERE id = ?1 AND browser = ?2 AND is_used = 0 RETURNING ending";
            let ending = |row: &Row<'_>| from_json(row, 0);
            let ending = transaction.query_row(query, params![booking, browser], ending).optional()?.flatten();
            let Some(Ending::Approved(person)) = ending else { return Ok(false) };
            let update = "UPDATE browsers SET person = ?2, token = ?3 WHERE id = ?1";
            transaction.execute(update, params![browser, to_json(&person)?, token])?;
            transaction.commit()?;
            Ok(true)
        })
        .await
    }

    /// Stores a booking before the user is sent to the OP, so that it is fixed what they come back to.
    pub async fn book(&self, id: &str, browser: i64, boat: &str, cookie: String) -> anyhow::Result<()> {
        let (id, boat) = (id.to_owned(), boat.to_owned());
        self.run(move |connection| {
            let insert = "INSERT INTO bookings (id, browser, boat, cookie) VALUES (?1, ?2, ?3, ?4)";
            connection.execute(insert, params![id, browser, boat, cookie])
        })
        .await?;
        Ok(())
    }

    pub async fn set_process(&self, booking: &str, process: ProcessId) -> anyhow::Result<()> {
        let id = booking.to_owned();
        self.run(move |connection| {
            let update = "UPDATE bookings SET process = ?2 WHERE id = ?1";
            connection.execute(update, params![id, process.to_string()])
        })
        .await?;
        self.notify(booking);
        Ok(())
    }

    /// Stores the ending of a booking. Outcomes are delivered at least once, so this may happen twice. If the earlier
    /// ending is `Unknown` or `Failed`, the OP's late success replaces it.
    pub async fn end(&self, booking: &str, ending: Ending) -> anyhow::Result<()> {
        let id = booking.to_owned();
        self.run(move |connection| {
            let update = "UPDATE bookings SET ending = ?2, is_final = ?3 WHERE id = ?1 AND is_final = 0";
            connection.execute(update, params![id, to_json(&ending)?, ending.is_final()])
        })
        .await?;
        self.notify(booking);
        Ok(())
    }

    /// The ending of a booking, if it has one.
    pub async fn ending(&self, booking: &str) -> anyhow::Result<Option<Ending>> {
        let id = booking.to_owned();
        self.run(move |connection| {
            let ending = |row: &Row<'_>| from_json(row, 0);
            Ok(connection.query_row("SELECT ending FROM bookings WHERE id = ?1", [id], ending).optional()?.flatten())
        })
        .await
    }

    /// Finds a booking, only for the browser that made it.
    pub async fn booking(&self, id: &str, browser: i64) -> anyhow::Result<Option<Booking>> {
        let id = id.to_owned();
        self.run(move |connection| {
            let query = "SELECT id, boat, process, ending FROM bookings WHERE id = ?1 AND browser = ?2";
            connection.query_row(query, params![id, browser], booking).optional()
        })
        .await
    }

    /// Finds a booking by the cookie of its authorization session.
    pub async fn booking_by_cookie(&self, cookie: &str, browser: i64) -> anyhow::Result<Option<Booking>> {
        let cookie = cookie.to_owned();
        self.run(move |connection| {
            let query = "SELECT id, boat, process, ending FROM bookings WHERE cookie = ?1 AND browser = ?2";
            connection.query_row(query, params![cookie, browser], booking).optional()
        })
        .await
    }

    /// The bookings of a browser, newest first.
    pub async fn bookings(&self, browser: i64) -> anyhow::Result<Vec<Booking>> {
        self.run(move |connection| {
            let query =
                "SELECT id, boat, process, ending FROM bookings WHERE browser = ?1 ORDER BY rowid DESC LIMIT 20";
            connection.prepare(query)?.query_map([browser], booking)?.collect()
        })
        .await
    }

    fn notify(&self, booking: &str) {
        // An error means that no page is open.
        let _ = self.changed.send(booking.into());
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let connection = self.connection.clone();
        let run = move || work(&mut connection.lock().unwrap_or_else(PoisonError::into_inner));
        Ok(tokio::task::spawn_blocking(run).await??)
    }
}

fn booking(row: &Row<'_>) -> rusqlite::Result<Booking> {
    let process: Option<String> = row.get(2)?;
    Ok(Booking {
        id: row.get(0)?,
        boat: row.get(1)?,
        process: process.and_then(|process| process.parse().ok()),
        ending: from_json(row, 3)?,
    })
}

fn from_json<T: serde::de::DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| serde_json::from_str(&text);
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error));
    text.map(parse).transpose().map_err(wrong)
}

fn to_json(value: &impl serde::Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value).map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}
