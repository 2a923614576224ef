//! The application's own tables: people, outcomes of sign-ins, and sessions.

use std::time::{Duration, SystemTime};

use openid_deferred::store::ProcessId;

use crate::database::{Database, Row, Statement};
use crate::outcomes::{Ending, Person};

/// How long a session lasts.
pub const SESSION: Duration = Duration::from_secs(12 * 3600);

/// How long an approval can be used again. A second click on "Continue", or a repetition after a lost response, must
/// not cost the user the whole sign-in.
const USE_AGAIN: Duration = Duration::from_secs(120);

/// One statement each. Change tables with a migration tool of your own once you have data.
const SCHEMA: [&str; 3] = [
    "CREATE TABLE IF NOT EXISTS people (
        issuer TEXT NOT NULL,
        subject TEXT NOT NULL,   -- unique at the issuer; everything else may change
        name TEXT,
        email TEXT,
        PRIMARY KEY (issuer, subject)
    )",
    "CREATE TABLE IF NOT EXISTS outcomes (
        process TEXT PRIMARY KEY, -- the poller's identifier of the sign-in
        purpose TEXT NOT NULL,    -- the context of the sign-in
        ending TEXT NOT NULL,
        issuer TEXT,
        subject TEXT,
        session TEXT,             -- the session that used it last
        used_at BIGINT,           -- when it was used first, in seconds since 1970
        FOREIGN KEY (issuer, subject) REFERENCES people
    )",
    "CREATE TABLE IF NOT EXISTS sessions (
        token TEXT PRIMARY KEY,   -- a hash, so that a reader of this table cannot take over a session
        issuer TEXT NOT NULL,
        subject TEXT NOT NULL,
        expires_at BIGINT NOT NULL, -- in seconds since 1970
        FOREIGN KEY (issuer, subject) REFERENCES people
    )",
];

const KEEP_PERSON: &str = "
    INSERT INTO people (issuer, subject, name, email) VALUES ($1, $2, $3, $4)
    ON CONFLICT (issuer, subject) DO UPDATE SET name = excluded.name, email = excluded.email";

/// A repeated delivery changes nothing. A late success of the OP replaces an outcome that was not final.
const KEEP_OUTCOME: &str = "
    INSERT INTO outcomes (process, purpose, ending, issuer, subject) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (process) DO UPDATE
    SET ending = excluded.ending, issuer = excluded.issuer, subject = excluded.subject
    WHERE outcomes.ending IN ('unknown', 'failed')";

/// The new session replaces the one that an earlier use began.
const END_SESSION_OF_OUTCOME: &str = "
    DELETE FROM sessions WHERE token IN (SELECT session FROM outcomes WHERE process = $1 AND used_at > $2)";

const USE_OUTCOME: &str = "
    UPDATE outcomes SET session = $1, used_at = COALESCE(used_at, $2)
    WHERE process = $3 AND ending = 'approved' AND (used_at IS NULL OR used_at > $4)";

const BEGIN_SESSION_OF_OUTCOME: &str = "
    INSERT INTO sessions (token, issuer, subject, expires_at)
    SELECT session, issuer, subject, $1 FROM outcomes WHERE session = $2
    RETURNING token";

const BEGIN_SESSION: &str = "INSERT INTO sessions (token, issuer, subject, expires_at) VALUES ($1, $2, $3, $4)";
const END_SESSION: &str = "DELETE FROM sessions WHERE token = $1";
const END_OLD_SESSIONS: &str = "DELETE FROM sessions WHERE expires_at <= $1";
const FIND_OUTCOME: &str = "SELECT ending FROM outcomes WHERE process = $1";
const FIND_PERSON: &str = "
    SELECT people.issuer, people.subject, people.name, people.email FROM sessions
    JOIN people ON people.issuer = sessions.issuer AND people.subject = sessions.subject
    WHERE sessions.token = $1 AND sessions.expires_at > $2";

/// The application's tables. Clones share the database.
#[derive(Clone)]
pub struct Tables(Database);

impl Tables {
    /// Creates the tables that do not exist. Replicas may start together.
    pub async fn create(database: Database) -> anyhow::Result<Self> {
        database.create(SCHEMA).await?;
        Ok(Self(database))
    }

    /// Keeps the outcome of a sign-in, in one transaction. It may be called again with the same outcome.
    pub async fn keep_outcome(&self, process: ProcessId, purpose: &str, ending: &Ending) -> anyhow::Result<()> {
        let process = process.to_string();
        let person = ending.person();
        let (issuer, subject) = person.map(|person| (person.issuer.as_str(), person.subject.as_str())).unzip();
        let outcome =
            vec![process.as_str().into(), purpose.into(), ending.name().into(), issuer.into(), subject.into()];
        let mut statements: Vec<_> = person.map(keep_person).into_iter().collect();
        statements.push((KEEP_OUTCOME, outcome));
        self.0.transaction(statements).await?;
        Ok(())
    }

    /// The name of the ending of a sign-in.
    pub async fn ending(&self, process: ProcessId) -> anyhow::Result<Option<String>> {
        let rows = self.0.transaction(vec![(FIND_OUTCOME, vec![process.to_string().as_str().into()])]).await?;
        Ok(rows.into_iter().flatten().flatten().next())
    }

    /// Begins a session for the person whom an outcome approved. It can be used again for two minutes, and then the new
    /// session replaces the old one. Returns whether a session began.
    pub async fn use_outcome(&self, process: ProcessId, token: &str) -> anyhow::Result<bool> {
        let process = process.to_string();
        let process = process.as_str();
        let used_after = now() - USE_AGAIN.as_secs() as i64;
        let statements = vec![
            end_old_sessions(),
            (END_SESSION_OF_OUTCOME, vec![process.into(), used_after.into()]),
            (USE_OUTCOME, vec![token.into(), now().into(), process.into(), used_after.into()]),
            (BEGIN_SESSION_OF_OUTCOME, vec![session_end().into(), token.into()]),
        ];
        Ok(!self.0.transaction(statements).await?.is_empty())
    }

    /// Begins a session for a person whom the OP approved at once.
    pub async fn begin_session(&self, person: &Person, token: &str) -> anyhow::Result<()> {
        let session =
            vec![token.into(), person.issuer.as_str().into(), person.subject.as_str().into(), session_end().into()];
        self.0.transaction(vec![end_old_sessions(), keep_person(person), (BEGIN_SESSION, session)]).await?;
        Ok(())
    }

    pub async fn end_session(&self, token: &str) -> anyhow::Result<()> {
        self.0.transaction(vec![(END_SESSION, vec![token.into()])]).await?;
        Ok(())
    }

    /// The person who is signed in with this token.
    pub async fn person(&self, token: &str) -> anyhow::Result<Option<Person>> {
        let rows = self.0.transaction(vec![(FIND_PERSON, vec![token.into(), now().into()])]).await?;
        Ok(rows.into_iter().next().and_then(person_of))
    }

    /// Whether the database answers.
    pub async fn check(&self) -> anyhow::Result<()> {
        self.0.transaction(vec![("SELECT 'well'", Vec::new())]).await?;
        Ok(())
    }
}

fn keep_person(person: &Person) -> Statement {
    let values = vec![
        person.issuer.as_str().into(),
        person.subject.as_str().into(),
        person.name.as_deref().into(),
        person.email.as_deref().into(),
    ];
    (KEEP_PERSON, values)
}

fn end_old_sessions() -> Statement {
    (END_OLD_SESSIONS, vec![now().into()])
}

fn person_of(row: Row) -> Option<Person> {
    let [issuer, subject, name, email] = <[_; 4]>::try_from(row).ok()?;
    Some(Person { issuer: issuer?, subject: subject?, name, email })
}

fn session_end() -> i64 {
    now() + SESSION.as_secs() as i64
}

/// In seconds since 1970.
fn now() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}
