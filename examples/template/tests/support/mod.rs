//! Places for data: a folder for SQLite, and a database of PostgreSQL if TEST_DATABASE_URL is set.

use std::sync::atomic::{AtomicU32, Ordering};

use sign_in_application::settings::Place;
use tempfile::TempDir;
use url::Url;

/// Every place, with the folder that is removed when it is dropped. Each test has its own.
pub async fn places() -> Vec<(Place, Option<TempDir>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let mut places = vec![(Place::Folder(folder.path().to_owned()), Some(folder))];
    if let Ok(server) = std::env::var("TEST_DATABASE_URL") {
        places.push((Place::Postgres(new_database(&server).await), None));
    }
    places
}

/// Makes a database on the server, and leaves it there.
async fn new_database(server: &str) -> String {
    let (client, connection) =
        tokio_postgres::connect(server, tokio_postgres::NoTls).await.expect("the server of TEST_DATABASE_URL");
    let connection = tokio::spawn(connection);
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("application_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("the role may create databases");
    drop(client);
    connection.await.expect("it ends").expect("it ends well");
    let mut url: Url = server.parse().expect("TEST_DATABASE_URL is a URL");
    url.set_path(&name);
    url.into()
}
