//! Which store the program works on.

use std::path::PathBuf;
use std::sync::Arc;

use openid_deferred::Keyring;
use openid_deferred::operations::Operations;
use openid_deferred::store::{Finding, PostgresStore, SqliteStore, Store, StoreError};
use serde_json::json;

use crate::Health;
use crate::failure::Failure;
use crate::output::Output;

/// The environment variable that names the store.
const VARIABLE: &str = "OPENID_DEFERRED_STORE";

/// Where a store is. Its text can contain a password and is never printed.
pub(crate) enum Location {
    Sqlite(PathBuf),
    Postgres { connection: String, schema: String },
}

/// An open store.
pub(crate) enum Opened {
    Sqlite(Arc<SqliteStore>),
    Postgres(Arc<PostgresStore>),
}

impl Location {
    /// Reads the option or, without it, the environment variable.
    pub(crate) fn of(option: Option<String>, schema: String) -> Result<Self, Failure> {
        let named = |place: &str, text: &str| Self::parse(text, schema.clone()).ok_or_else(|| unknown(place));
        match (option, std::env::var(VARIABLE)) {
            (Some(text), _) => named("--store", &text),
            (None, Ok(text)) => named(VARIABLE, &text),
            (None, Err(_)) => Err(Failure::usage("no store is named")
                .advise(format!("pass --store sqlite:PATH, or set {VARIABLE} to sqlite:PATH or postgres://…"))),
        }
    }

    fn parse(text: &str, schema: String) -> Option<Self> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            // `sqlite:///path` is how URLs of SQLite are often written.
            let path = path.strip_prefix("//").unwrap_or(path);
            return (!path.is_empty()).then(|| Self::Sqlite(path.into()));
        }
        let is_url = ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme));
        // Pairs of keys and values, which libpq takes as well.
        let is_pairs = text.contains('=') && !text.contains("://");
        (is_url || is_pairs).then(|| Self::Postgres { connection: text.to_owned(), schema })
    }

    /// Opens the store. A file that does not exist is an error, because the name may be a mistake.
    pub(crate) async fn open(&self) -> Result<Opened, Failure> {
        match self {
            Self::Sqlite(path) if !path.exists() => {
                Err(Failure::new(format!("cannot open the store: the file {} does not exist", path.display()))
                    .advise("correct the path, or create the store with `openid-deferred migrate`"))
            }
            _ => self.open_or_create().await,
        }
    }

    async fn open_or_create(&self) -> Result<Opened, Failure> {
        match self {
            Self::Sqlite(path) => match SqliteStore::open(path).await {
                Ok(store) => Ok(Opened::Sqlite(Arc::new(store))),
                Err(error) => Err(Failure::store(format!("cannot open {}", path.display()), &error)),
            },
            Self::Postgres { connection, schema } => {
                let store = PostgresStore::builder(connection).schema(schema).pool_size(2).connect().await;
                match store {
                    Ok(store) => Ok(Opened::Postgres(Arc::new(store))),
                    Err(error) => Err(Failure::store("cannot connect to the database", &error)),
                }
            }
        }
    }

    /// Creates the tables, or brings them up to date.
    pub(crate) async fn migrate(&self, output: &mut Output) -> Result<Health, Failure> {
        // Opening a file does it.
        let opened = self.open_or_create().await?;
        if let Opened::Postgres(store) = &opened {
            store.migrate().await.map_err(|error| Failure::store("cannot bring the tables up to date", &error))?;
        }
        output.print(&json!({ "is_up_to_date": true }), || "the tables are up to date".to_owned())?;
        Ok(Health::Well)
    }
}

fn unknown(place: &str) -> Failure {
    Failure::usage(format!("{place} does not name a store")).advise(
        "write sqlite:PATH, or postgres://USER:PASSWORD@HOST/DATABASE with special characters as % and their code",
    )
}

impl Opened {
    pub(crate) fn store(&self) -> Arc<dyn Store> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres(store) => store.clone(),
        }
    }

    pub(crate) fn operations(&self) -> Operations {
        Operations::new(self.store())
    }

    /// The same, which says which sign-ins need another key than these, if there are any.
    pub(crate) fn operations_with(&self, keyring: Option<&Keyring>) -> Operations {
        match keyring {
            Some(keyring) => self.operations().with_keyring(keyring),
            None => self.operations(),
        }
    }

    /// Checks the store itself, without its rows.
    pub(crate) async fn check(&self) -> Result<Vec<Finding>, StoreError> {
        match self {
            Self::Sqlite(store) => store.check().await,
            Self::Postgres(store) => store.check().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_names_the_kind_of_its_store() {
        let of = |text: &str| match Location::parse(text, "schema".to_owned()) {
            Some(Location::Sqlite(path)) => format!("file {}", path.display()),
            Some(Location::Postgres { connection, .. }) => format!("database {connection}"),
            None => "nothing".to_owned(),
        };
        assert_eq!(of("sqlite:pending.db"), "file pending.db");
        assert_eq!(of("sqlite:/var/lib/pending.db"), "file /var/lib/pending.db");
        assert_eq!(of("sqlite:///var/lib/pending.db"), "file /var/lib/pending.db");
        assert_eq!(of("postgres://db/app"), "database postgres://db/app");
        assert_eq!(of("postgresql://db/app"), "database postgresql://db/app");
        assert_eq!(of("host=db dbname=app"), "database host=db dbname=app");
        for text in ["", "sqlite:", "sqlite://", "pending.db", "mysql://db/app", "mysql://db/app?x=y"] {
            assert_eq!(of(text), "nothing", "{text}");
        }
    }
}
