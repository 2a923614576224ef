//! The pool of connections, and TLS.

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime};
use openssl::ssl::{SslConnector, SslMethod};
use postgres_openssl::MakeTlsConnector;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, SslMode};

use super::problem::{self, Refusal};
use crate::store::{StoreError, StoreProblem};

/// A pool that makes its connections when they are needed.
pub(super) fn pool(
    mut config: Config,
    tls: Option<SslConnector>,
    size: usize,
    timeout: Duration,
) -> Result<Pool, StoreError> {
    // `prefer` is the default, and an attacker on the way decides against TLS.
    if config.get_ssl_mode() == SslMode::Prefer {
        config.ssl_mode(if is_this_machine(&config) { SslMode::Disable } else { SslMode::Require });
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(timeout);
    }
    if config.get_application_name().is_none() {
        config.application_name("openid-deferred");
    }
    let tls = match tls {
        Some(tls) => tls,
        None => SslConnector::builder(SslMethod::tls()).map_err(problem::of_tls)?.build(),
    };
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_config(config, MakeTlsConnector::new(tls), recycling);
    let builder = Pool::builder(manager).max_size(size).runtime(Runtime::Tokio1);
    let builder = builder.wait_timeout(Some(timeout)).create_timeout(Some(timeout)).recycle_timeout(Some(timeout));
    builder.build().map_err(|error| StoreError::new(StoreProblem::Unusable).with_source(error))
}

fn is_this_machine(config: &Config) -> bool {
    let is_local = |host: &Host| match host {
        Host::Tcp(name) => {
            name == "localhost" || name.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
        }
        #[cfg(unix)]
        Host::Unix(_) => true,
    };
    config.get_hosts().iter().all(is_local) && config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback)
}

/// A connection that commits to disk before it answers.
pub(super) async fn take(pool: &Pool) -> Result<Object, StoreError> {
    let connection = pool.get().await.map_err(problem::of_pool)?;
    if Object::metrics(&connection).recycle_count == 0 {
        let result = connection.query_typed("SELECT current_setting('synchronous_commit') = 'off' AS off", &[]).await;
        let refusal = match result {
            Ok(rows) if rows.iter().any(|row| row.try_get("off").unwrap_or(true)) => {
                Some(Refusal::AsynchronousCommit.into())
            }
            Ok(_) => None,
            Err(error) => Some(problem::of_database(&error)),
        };
        if let Some(refusal) = refusal {
            drop(Object::take(connection));
            return Err(refusal);
        }
    }
    Ok(connection)
}
