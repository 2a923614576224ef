//! The agent's own data: its bills. The poller cannot list what waits, so the ledger also has the identifier of the
//! process of each bill.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;
use openid_deferred::store::ProcessId;
use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS bills (
        number TEXT PRIMARY KEY,
        euros INTEGER NOT NULL,
        process TEXT, -- the poller's identifier, once the OP has deferred its answer
        ending TEXT
    ) STRICT;";

#[derive(Clone)]
pub struct Bill {
    pub number: String,
    euros: u32,
    pub process: Option<ProcessId>,
}

impl Bill {
    /// What the token is for (RFC 9396), and what the payments API receives.
    pub fn details(&self) -> Value {
        let amount = json!({ "currency": "EUR", "amount": self.euros.to_string() });
        json!({ "type": "payment", "instructedAmount": amount, "bill": self.number })
    }
}

impl FromStr for Bill {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bill = text.split_once('=').and_then(|(number, euros)| Some((number, euros.parse().ok()?)));
        let (number, euros) = bill.filter(|(number, _)| !number.is_empty()).ok_or("write it as NUMBER=EUROS")?;
        Ok(Self { number: number.to_owned(), euros, process: None })
    }
}

impl fmt::Display for Bill {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({} EUR)", self.number, self.euros)
    }
}

/// An SQLite file. Its calls block for a moment, which an agent without other users can afford.
pub struct Ledger(Connection);

impl Ledger {
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let connection = Connection::open(path).with_context(|| format!("cannot use {}", path.display()))?;
        // An outcome is acknowledged when it is on the disk, so commits must be synchronous.
        connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        connection.execute_batch(SCHEMA)?;
        Ok(Self(connection))
    }

    /// Adds a bill. One that is known stays as it is.
    pub fn add(&self, bill: &Bill) -> anyhow::Result<()> {
        let insert = "INSERT INTO bills (number, euros) VALUES (?1, ?2) ON CONFLICT DO NOTHING";
        self.0.execute(insert, params![bill.number, bill.euros])?;
        Ok(())
    }

    /// The bills that are neither paid nor refused.
    pub fn open_bills(&self) -> anyhow::Result<Vec<Bill>> {
        let query = "SELECT number, euros, process FROM bills WHERE ending IS NULL ORDER BY rowid";
        let bill = |row: &Row<'_>| {
            let process: Option<String> = row.get(2)?;
            let process = process.and_then(|process| process.parse().ok());
            Ok(Bill { number: row.get(0)?, euros: row.get(1)?, process })
        };
        Ok(self.0.prepare(query)?.query_map([], bill)?.collect::<Result<_, _>>()?)
    }

    /// Notes the process that a bill waits for, if there is one.
    pub fn wait_for(&self, bill: &Bill, process: Option<ProcessId>) -> anyhow::Result<()> {
        let update = "UPDATE bills SET process = ?2 WHERE number = ?1";
        self.0.execute(update, params![bill.number, process.map(|process| process.to_string())])?;
        Ok(())
    }

    pub fn end(&self, bill: &Bill, ending: &str) -> anyhow::Result<()> {
        self.0.execute("UPDATE bills SET ending = ?2 WHERE number = ?1", params![bill.number, ending])?;
        println!("{bill}: {ending}");
        Ok(())
    }
}
