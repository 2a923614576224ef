//! The meaning of the parameters of a connection string.

use std::net::IpAddr;
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::ChannelBinding;

use super::conninfo::Parameters;
use super::problem::Refusal;
use super::tls::{Distance, TlsSettings};

/// How long a connection is idle before the operating system sends a keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// The pause between two keepalive probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// The number of unanswered probes after which the connection counts as broken.
const KEEPALIVES: u32 = 3;

#[derive(Clone)]
pub(super) struct Settings {
    /// All parameters except the hosts.
    pub(super) config: Config,
    pub(super) targets: Vec<Target>,
    /// Whether the targets are tried in a random order.
    pub(super) shuffles: bool,
    /// Whether servers that accept no writes are skipped.
    pub(super) needs_writes: bool,
    pub(super) connect_timeout: Option<Duration>,
    pub(super) tls: TlsSettings,
}

/// A server to connect to.
#[derive(Clone)]
pub(super) struct Target {
    /// A name, an address, or the directory of a Unix socket.
    pub(super) host: String,
    /// The address of the host, unless its name must be looked up.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn is_socket(&self) -> bool {
        cfg!(unix) && self.host.starts_with('/')
    }

    fn distance(&self) -> Distance {
        let is_local_name =
            || self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        if self.is_socket() {
            Distance::Socket
        } else if is_local_name() && self.address.is_none_or(|address| address.is_loopback()) {
            Distance::ThisMachine
        } else {
            Distance::Network
        }
    }
}

impl Settings {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let parameters = Parameters::parse(text)?;
        check_ignored(&parameters)?;
        let mut config = Config::new();
        identify(&mut config, &parameters)?;
        keep_alive(&mut config, &parameters)?;
        let wrong = "is not `disable` or `random`";
        let shuffles = parameters.choice("load_balance_hosts", wrong, |word| match word {
            "disable" => Some(false),
            "random" => Some(true),
            _ => None,
        })?;
        let wrong = "is not `any`, `primary` or `read-write`, and a store must be able to write";
        let needs_writes = parameters.choice("target_session_attrs", wrong, |word| match word {
            "any" => Some(false),
            "primary" | "read-write" => Some(true),
            _ => None,
        })?;
        Ok(Self {
            config,
            targets: targets(&parameters)?,
            shuffles: shuffles.unwrap_or(false),
            needs_writes: needs_writes.unwrap_or(true),
            connect_timeout: seconds(&parameters, "connect_timeout")?,
            tls: TlsSettings::of(&parameters)?,
        })
    }

    /// The farthest of the servers.
    pub(super) fn distance(&self) -> Distance {
        self.targets.iter().map(Target::distance).max().unwrap_or(Distance::Network)
    }
}

/// Checks parameters that are accepted only with values that describe the fixed behaviour.
fn check_ignored(parameters: &Parameters) -> Result<(), Refusal> {
    parameters.choice("client_encoding", "is not `UTF8`", |encoding| {
        ["utf8", "utf-8", "unicode", "auto"].contains(&&*encoding.to_ascii_lowercase()).then_some(())
    })?;
    let wrong = "is not `disable` or `prefer`: GSSAPI is not supported";
    parameters.choice("gssencmode", wrong, |mode| ["disable", "prefer"].contains(&mode).then_some(()))?;
    Ok(())
}

/// Sets the user, the password, the database and the name of the application.
fn identify(config: &mut Config, parameters: &Parameters) -> Result<(), Refusal> {
    if let Some(user) = parameters.get("user") {
        config.user(user);
    }
    if let Some(password) = parameters.get("password") {
        config.password(password);
    }
    if let Some(database) = parameters.get("dbname") {
        config.dbname(database);
    }
    if let Some(options) = parameters.get("options") {
        config.options(options);
    }
    let name = parameters.get("application_name").or_else(|| parameters.get("fallback_application_name"));
    config.application_name(name.unwrap_or("openid-deferred"));
    let wrong = "is not `disable`, `prefer` or `require`";
    let binding = parameters.choice("channel_binding", wrong, |word| match word {
        "disable" => Some(ChannelBinding::Disable),
        "prefer" => Some(ChannelBinding::Prefer),
        "require" => Some(ChannelBinding::Require),
        _ => None,
    })?;
    config.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
    Ok(())
}

/// Sets how the operating system detects a broken connection.
fn keep_alive(config: &mut Config, parameters: &Parameters) -> Result<(), Refusal> {
    config.keepalives(parameters.number("keepalives")?.is_none_or(|number| number != 0));
    config.keepalives_idle(seconds(parameters, "keepalives_idle")?.unwrap_or(KEEPALIVE_IDLE));
    config.keepalives_interval(seconds(parameters, "keepalives_interval")?.unwrap_or(KEEPALIVE_INTERVAL));
    let count = parameters.number("keepalives_count")?.and_then(|count| u32::try_from(count).ok());
    config.keepalives_retries(count.filter(|count| *count > 0).unwrap_or(KEEPALIVES));
    if let Some(timeout) = positive(parameters, "tcp_user_timeout")? {
        config.tcp_user_timeout(Duration::from_millis(timeout));
    }
    Ok(())
}

fn positive(parameters: &Parameters, name: &'static str) -> Result<Option<u64>, Refusal> {
    Ok(parameters.number(name)?.and_then(|number| u64::try_from(number).ok()).filter(|number| *number > 0))
}

fn seconds(parameters: &Parameters, name: &'static str) -> Result<Option<Duration>, Refusal> {
    Ok(positive(parameters, name)?.map(Duration::from_secs))
}

fn targets(parameters: &Parameters) -> Result<Vec<Target>, Refusal> {
    let (hosts, addresses, ports) = (parameters.list("host"), parameters.list("hostaddr"), parameters.list("port"));
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err(Refusal::Parameter("host", "is missing"));
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(Refusal::Parameter("hostaddr", "has a different number of entries than host"));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(Refusal::Parameter("port", "has a different number of entries than host"));
    }
    let target = |index: usize| {
        let entry =
            |list: &[&str]| list.get(index).copied().filter(|entry: &&str| !entry.is_empty()).map(str::to_owned);
        let address = entry(&addresses)
            .map(|address| address.parse().map_err(|_| Refusal::Parameter("hostaddr", "is not an IP address")))
            .transpose()?;
        let host = entry(&hosts).or_else(|| address.map(|address: IpAddr| address.to_string()));
        let port = if ports.len() == 1 { ports.first().map(|port| (*port).to_owned()) } else { entry(&ports) };
        let port = port.filter(|port| !port.is_empty()).map_or(Ok(5432), |port| {
            port.parse().ok().filter(|port| *port > 0).ok_or(Refusal::Parameter("port", "is not a port number"))
        })?;
        Ok(Target { host: host.ok_or(Refusal::Parameter("host", "has an empty entry"))?, address, port })
    };
    (0..count).map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn targets_of(text: &str) -> Vec<(String, Option<IpAddr>, u16)> {
        let settings = Settings::parse(text).map_err(|refusal| refusal.to_string()).unwrap();
        settings.targets.into_iter().map(|target| (target.host, target.address, target.port)).collect()
    }

    #[test]
    fn each_host_has_its_address_and_port() {
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        for (text, expected) in [
            ("host=a", vec![("a", None, 5432)]),
            ("host=a,b port=1", vec![("a", None, 1), ("b", None, 1)]),
            ("postgres://a,b:2/", vec![("a", None, 5432), ("b", None, 2)]),
            ("host=a,b hostaddr=,10.0.0.1 port=1,", vec![("a", None, 1), ("b", Some(address), 5432)]),
            ("hostaddr=10.0.0.1", vec![("10.0.0.1", Some(address), 5432)]),
            ("postgres://%2Frun%2Fpostgresql/", vec![("/run/postgresql", None, 5432)]),
        ] {
            let expected: Vec<_> =
                expected.into_iter().map(|(host, address, port)| (host.to_owned(), address, port)).collect();
            assert_eq!(targets_of(text), expected, "{text}");
        }
    }

    #[test]
    fn only_loopback_names_and_socket_paths_mean_this_machine() {
        let is_this_machine =
            |text| Settings::parse(text).is_ok_and(|settings| settings.distance() < Distance::Network);
        for text in ["host=localhost", "host=127.0.0.1", "host=::1", "hostaddr=127.0.0.1", "host=/run/postgresql"] {
            assert!(is_this_machine(text), "{text}");
        }
        for text in ["host=db", "host=db hostaddr=127.0.0.1", "host=localhost hostaddr=10.0.0.1", "host=localhost,db"] {
            assert!(!is_this_machine(text), "{text}");
        }
    }

    #[test]
    fn errors_name_the_wrong_setting() {
        for (text, why) in [
            ("user=me", "host"),
            ("host=a,b port=1,2,3", "port"),
            ("host=a port=x", "port"),
            ("host=a port=0", "port"),
            ("host=a,b hostaddr=10.0.0.1", "hostaddr"),
            ("host=a hostaddr=b", "hostaddr"),
            ("host=a,", "host"),
            ("host=a connect_timeout=soon", "connect_timeout"),
            ("host=a keepalives=on", "keepalives"),
            ("host=a tcp_user_timeout=1s", "tcp_user_timeout"),
            ("host=a target_session_attrs=standby", "target_session_attrs"),
            ("host=a load_balance_hosts=yes", "load_balance_hosts"),
            ("host=a channel_binding=yes", "channel_binding"),
            ("host=a client_encoding=latin1", "client_encoding"),
            ("host=a gssencmode=require", "gssencmode"),
            ("host=a sslmode=verify", "sslmode"),
        ] {
            let refusal = Settings::parse(text).map(|_| ()).unwrap_err().to_string();
            assert!(refusal.starts_with(&format!("{why} in the connection string ")), "{text}: {refusal}");
        }
    }

    #[test]
    fn times_have_the_units_of_libpq() {
        let text = "host=a connect_timeout=4 tcp_user_timeout=1500 keepalives_idle=60 keepalives_interval=0";
        let settings = Settings::parse(text).map_err(|refusal| refusal.to_string()).unwrap();
        assert_eq!(settings.connect_timeout, Some(Duration::from_secs(4)));
        assert_eq!(settings.config.get_tcp_user_timeout(), Some(&Duration::from_millis(1500)));
        assert_eq!(settings.config.get_keepalives_idle(), Duration::from_secs(60));
        assert_eq!(settings.config.get_keepalives_interval(), Some(KEEPALIVE_INTERVAL));
    }
}
