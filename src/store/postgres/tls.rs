//! TLS to the database.

use std::fs;
use std::path::{Path, PathBuf};

use openssl::error::ErrorStack;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslMethod, SslVersion};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::{TlsConnector, TlsStream};
use tokio_postgres::Socket;
use tokio_postgres::tls::MakeTlsConnect;

use super::conninfo::Parameters;
use super::problem::Refusal;

/// The ALPN protocol (RFC 7301), for connections that begin with TLS.
const ALPN: &[u8] = b"\x0apostgresql";

/// The TLS settings of a connection string.
#[derive(Clone)]
pub(super) struct TlsSettings {
    mode: Mode,
    files: Files,
    sends_name: bool,
    is_direct: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Not set, or `allow` or `prefer`, with which an attacker on the network could disable TLS.
    Unsaid,
    Disable,
    Require,
    VerifyCa,
    VerifyFull,
}

/// The certificate files. They are read for each connection, because certificates are replaced while replicas run.
#[derive(Clone)]
struct Files {
    /// The trusted authorities; `None` for those of the system.
    root: Option<PathBuf>,
    /// The client's certificate with its chain, and its key.
    identity: Option<(PathBuf, PathBuf)>,
    /// The password of the key.
    password: String,
    oldest: SslVersion,
    newest: Option<SslVersion>,
}

/// How far away a server is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Distance {
    /// A Unix socket.
    Socket,
    /// A loopback address.
    ThisMachine,
    Network,
}

impl TlsSettings {
    pub(super) fn of(parameters: &Parameters) -> Result<Self, Refusal> {
        let wrong = "is not `disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`";
        let mode = parameters.choice("sslmode", wrong, |word| match word {
            "disable" => Some(Mode::Disable),
            "allow" | "prefer" => Some(Mode::Unsaid),
            "require" => Some(Mode::Require),
            "verify-ca" => Some(Mode::VerifyCa),
            "verify-full" => Some(Mode::VerifyFull),
            _ => None,
        })?;
        let is_direct = parameters.choice("sslnegotiation", "is not `postgres` or `direct`", |word| match word {
            "postgres" => Some(false),
            "direct" => Some(true),
            _ => None,
        })?;
        let sends_name = parameters.choice("sslsni", "is not `0` or `1`", |word| match word {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        })?;
        Ok(Self {
            mode: mode.unwrap_or(Mode::Unsaid),
            files: Files::of(parameters)?,
            sends_name: sends_name.unwrap_or(true),
            is_direct: is_direct.unwrap_or(false),
        })
    }

    /// Creates the connector. `given` is the connector of the application, if there is one.
    pub(super) fn connector(self, given: Option<SslConnector>, distance: Distance) -> Result<Connector, Refusal> {
        let Self { mode, files, sends_name, is_direct } = self;
        if given.is_some() && files.are_named() {
            return Err(Refusal::TwoConnectors);
        }
        let is_on = match mode {
            _ if distance == Distance::Socket => false,
            Mode::Disable => false,
            Mode::Unsaid => distance == Distance::Network || files.are_named() || is_direct,
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => true,
        };
        if mode == Mode::Disable && is_direct {
            return Err(Refusal::Parameter("sslnegotiation", "is `direct`, which needs TLS, and sslmode is `disable`"));
        }
        if mode == Mode::VerifyCa && files.root.is_none() && given.is_none() {
            let why = "is `verify-ca`, which needs the file of an authority in sslrootcert: the system's authorities \
                       issue certificates to anyone";
            return Err(Refusal::Parameter("sslmode", why));
        }
        // In libpq, `require` means `verify-ca` if there is a file, and no check at all otherwise.
        let checks_name = match mode {
            Mode::VerifyCa => false,
            Mode::Require => files.root.is_none(),
            Mode::Unsaid | Mode::Disable | Mode::VerifyFull => true,
        };
        let connector = match given {
            Some(connector) => connector,
            // The files are read now, so that an unusable file is reported at once.
            None if is_on => files.connector()?,
            None => files.builder().map_err(Refusal::openssl)?.build(),
        };
        let files = (is_on && files.are_named()).then_some(files);
        Ok(Connector { is_on, is_direct: is_direct && is_on, checks_name, sends_name, connector, files })
    }
}

impl Files {
    fn of(parameters: &Parameters) -> Result<Self, Refusal> {
        let path = |name| parameters.get(name).map(PathBuf::from);
        let wrong = "is not `disable` or `allow`";
        let presents = parameters.choice("sslcertmode", wrong, |word| match word {
            "disable" => Some(false),
            "allow" => Some(true),
            _ => None,
        })?;
        let identity = match (path("sslcert"), path("sslkey")) {
            (Some(certificate), Some(key)) => presents.unwrap_or(true).then_some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Refusal::Parameter("sslkey", "is missing, beside sslcert")),
            (None, Some(_)) => return Err(Refusal::Parameter("sslcert", "is missing, beside sslkey")),
        };
        let wrong = "is not `TLSv1`, `TLSv1.1`, `TLSv1.2` or `TLSv1.3`";
        Ok(Self {
            root: path("sslrootcert").filter(|root| root.as_os_str() != "system"),
            identity,
            password: parameters.get("sslpassword").unwrap_or_default().to_owned(),
            oldest: parameters.choice("ssl_min_protocol_version", wrong, version)?.unwrap_or(SslVersion::TLS1_2),
            newest: parameters.choice("ssl_max_protocol_version", wrong, version)?,
        })
    }

    fn are_named(&self) -> bool {
        self.root.is_some() || self.identity.is_some()
    }

    fn builder(&self) -> Result<SslConnectorBuilder, ErrorStack> {
        let mut builder = SslConnector::builder(SslMethod::tls())?;
        builder.set_min_proto_version(Some(self.oldest))?;
        builder.set_max_proto_version(self.newest)?;
        Ok(builder)
    }

    fn connector(&self) -> Result<SslConnector, Refusal> {
        let mut builder = self.builder().map_err(Refusal::openssl)?;
        if let Some(path) = &self.root {
            let mut trusted = X509StoreBuilder::new().map_err(Refusal::openssl)?;
            for certificate in certificates("sslrootcert", path)? {
                trusted.add_cert(certificate).map_err(Refusal::openssl)?;
            }
            builder.set_cert_store(trusted.build());
        }
        if let Some((certificate, key)) = &self.identity {
            let mut chain = certificates("sslcert", certificate)?.into_iter();
            if let Some(certificate) = chain.next() {
                builder.set_certificate(&certificate).map_err(Refusal::openssl)?;
            }
            for certificate in chain {
                builder.add_extra_chain_cert(certificate).map_err(Refusal::openssl)?;
            }
            let private_key = private_key(key, self.password.as_bytes())?;
            let fits = builder.set_private_key(&private_key).and_then(|()| builder.check_private_key());
            fits.map_err(|_| Refusal::file("sslkey", key, "it is not the key of the certificate in sslcert"))?;
        }
        Ok(builder.build())
    }
}

fn version(word: &str) -> Option<SslVersion> {
    match &*word.to_ascii_lowercase() {
        "tlsv1" => Some(SslVersion::TLS1),
        "tlsv1.1" => Some(SslVersion::TLS1_1),
        "tlsv1.2" => Some(SslVersion::TLS1_2),
        "tlsv1.3" => Some(SslVersion::TLS1_3),
        _ => None,
    }
}

fn read(parameter: &'static str, path: &Path) -> Result<Vec<u8>, Refusal> {
    fs::read(path).map_err(|error| Refusal::file(parameter, path, error))
}

/// Reads the certificates of a file, at least one.
fn certificates(parameter: &'static str, path: &Path) -> Result<Vec<X509>, Refusal> {
    let certificates = X509::stack_from_pem(&read(parameter, path)?);
    let certificates = certificates.ok().filter(|certificates| !certificates.is_empty());
    certificates.ok_or_else(|| Refusal::file(parameter, path, "it contains no certificate in PEM"))
}

/// Reads a key in PEM or DER, as libpq does. The password is passed even if it is empty, because otherwise OpenSSL
/// would ask for one on the terminal.
fn private_key(path: &Path, password: &[u8]) -> Result<PKey<Private>, Refusal> {
    let key = zeroize::Zeroizing::new(read("sslkey", path)?);
    PKey::private_key_from_pem_passphrase(&key, password)
        .or_else(|_| PKey::private_key_from_der(&key))
        .or_else(|_| PKey::private_key_from_pkcs8_passphrase(&key, password))
        .map_err(|_| {
            Refusal::file("sslkey", path, "it contains no key in PEM or DER, or sslpassword does not decrypt it")
        })
}

/// Creates TLS connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) is_on: bool,
    /// Whether the connection begins with TLS, without a request for it.
    pub(super) is_direct: bool,
    checks_name: bool,
    sends_name: bool,
    connector: SslConnector,
    files: Option<Files>,
}

impl Connector {
    /// Returns the connector for one connection to a host.
    pub(super) fn to(&self, domain: &str) -> Result<TlsConnector, Refusal> {
        let connector = self.files.as_ref().map(Files::connector).transpose()?;
        let connector = connector.as_ref().unwrap_or(&self.connector);
        let mut connection = connector.configure().map_err(Refusal::openssl)?;
        connection.set_verify_hostname(self.checks_name);
        connection.set_use_server_name_indication(self.sends_name);
        if self.is_direct {
            connection.set_alpn_protos(ALPN).map_err(Refusal::openssl)?;
        }
        Ok(TlsConnector::new(connection, domain))
    }
}

impl MakeTlsConnect<Socket> for Connector {
    type Stream = TlsStream<Socket>;
    type TlsConnect = TlsConnector;
    type Error = Refusal;

    fn make_tls_connect(&mut self, domain: &str) -> Result<TlsConnector, Refusal> {
        self.to(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether TLS is on and the name is checked.
    fn of(text: &str, distance: Distance) -> Result<(bool, bool), String> {
        let settings = Parameters::parse(text).and_then(|parameters| TlsSettings::of(&parameters));
        let connector = settings.and_then(|settings| settings.connector(None, distance));
        connector.map(|connector| (connector.is_on, connector.checks_name)).map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn tls_is_on_and_strict_by_default() {
        let remote = |text| of(text, Distance::Network);
        assert_eq!(remote(""), Ok((true, true)));
        assert_eq!(remote("sslmode=allow"), Ok((true, true)));
        assert_eq!(remote("sslmode=prefer"), Ok((true, true)));
        assert_eq!(remote("sslmode=require"), Ok((true, true)));
        assert_eq!(remote("sslmode=verify-full"), Ok((true, true)));
        assert_eq!(remote("sslmode=verify-full sslrootcert=system"), Ok((true, true)));
        assert_eq!(remote("sslmode=disable").map(|(is_on, _)| is_on), Ok(false));
        for text in ["sslmode=verify-ca", "sslmode=verify-ca sslrootcert=system"] {
            assert!(remote(text).unwrap_err().contains("sslrootcert"), "{text}");
        }
    }

    #[test]
    fn connections_to_this_machine_are_without_tls_by_default() {
        let local = |text| of(text, Distance::ThisMachine).map(|(is_on, _)| is_on);
        assert_eq!(local(""), Ok(false));
        assert_eq!(local("sslmode=prefer"), Ok(false));
        assert_eq!(local("sslmode=require"), Ok(true));
        assert_eq!(local("sslnegotiation=direct"), Ok(true));
        // The error shows that the file was read.
        assert!(local("sslrootcert=/nowhere/root.crt").unwrap_err().contains("/nowhere/root.crt"));
        assert_eq!(
            of("sslmode=verify-full sslrootcert=/nowhere/root.crt", Distance::Socket).map(|(is_on, _)| is_on),
            Ok(false)
        );
    }

    #[test]
    fn errors_name_the_wrong_tls_setting() {
        for (text, why) in [
            ("sslmode=full", "sslmode"),
            ("sslmode=disable sslnegotiation=direct", "sslnegotiation"),
            ("sslnegotiation=tls", "sslnegotiation"),
            ("sslsni=yes", "sslsni"),
            ("sslcertmode=require", "sslcertmode"),
            ("sslcert=a.crt", "sslkey"),
            ("sslkey=a.key", "sslcert"),
            ("ssl_min_protocol_version=1.2", "ssl_min_protocol_version"),
            ("ssl_max_protocol_version=SSLv3", "ssl_max_protocol_version"),
        ] {
            let refusal = of(text, Distance::Network).unwrap_err();
            assert!(refusal.starts_with(&format!("{why} in the connection string ")), "{text}: {refusal}");
        }
    }
}
