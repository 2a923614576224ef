//! Connection strings in libpq's format, as URLs and as pairs of keys and values:
//! <https://www.postgresql.org/docs/current/libpq-connect.html>.

use std::collections::BTreeMap;

use super::problem::Refusal;

/// The supported parameters.
const UNDERSTOOD: [&str; 29] = [
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssencmode",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "load_balance_hosts",
    "options",
    "password",
    "port",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslpassword",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
];

/// Parameters that are accepted without a check of their own: `user`, and a parameter that libpq ignores.
const ALSO_TAKEN: [&str; 2] = ["sslcompression", "user"];

/// Other parameters of libpq. They are refused, because ignoring one could weaken security.
const NOT_SUPPORTED: [&str; 20] = [
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "max_protocol_version",
    "min_protocol_version",
    "oauth_client_id",
    "oauth_client_secret",
    "oauth_issuer",
    "oauth_scope",
    "passfile",
    "replication",
    "require_auth",
    "requirepeer",
    "requiressl",
    "scram_client_key",
    "scram_server_key",
    "service",
    "sslcrl",
    "sslcrldir",
    "sslkeylogfile",
];

/// The parameters of a connection string. If a parameter occurs twice, the last value counts. A parameter with an empty
/// value is ignored.
pub(super) struct Parameters(BTreeMap<&'static str, String>);

impl Parameters {
    pub(super) fn parse(text: &str) -> Result<Self, Refusal> {
        let url = text.strip_prefix("postgresql://").or_else(|| text.strip_prefix("postgres://"));
        let (unnamed, named) = url.map_or_else(|| Ok((Vec::new(), pairs_in_words(text)?)), pairs_in_url)?;
        let mut parameters = BTreeMap::from_iter(unnamed);
        // An error must not repeat an unknown key, because it may be a part of a password that contains special
        // characters.
        for (number, (key, value)) in (1..).zip(named) {
            if let Some(unsupported) = NOT_SUPPORTED.into_iter().find(|known| *known == key) {
                return Err(Refusal::Unsupported(unsupported));
            }
            let mut known = UNDERSTOOD.into_iter().chain(ALSO_TAKEN);
            let key = known.find(|known| *known == key);
            let key = key.ok_or(Refusal::UnknownParameter(number))?;
            parameters.insert(key, value);
        }
        parameters.retain(|_, value| !value.is_empty());
        Ok(Self(parameters))
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Returns a value that is a comma-separated list, with one entry for each host.
    pub(super) fn list(&self, key: &str) -> Vec<&str> {
        self.get(key).map_or_else(Vec::new, |value| value.split(',').map(str::trim).collect())
    }

    pub(super) fn number(&self, name: &'static str) -> Result<Option<i64>, Refusal> {
        let parse = |value: &str| value.trim().parse().map_err(|_| Refusal::Parameter(name, "is not a whole number"));
        self.get(name).map(parse).transpose()
    }

    /// Returns a value that must be one of a few words.
    pub(super) fn choice<T>(
        &self,
        name: &'static str,
        wrong: &'static str,
        choose: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        self.get(name).map(|value| choose(value).ok_or(Refusal::Parameter(name, wrong))).transpose()
    }
}

type Pairs = Vec<(String, String)>;
/// Pairs with known keys.
type KnownPairs = Vec<(&'static str, String)>;

/// Parses `user:password@host:port,host:port/dbname?key=value&key=value`, in which each part is optional. Returns the
/// pairs before the question mark and those after it.
fn pairs_in_url(url: &str) -> Result<(KnownPairs, Pairs), Refusal> {
    let (rest, query) = url.split_once('?').unwrap_or((url, ""));
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (credentials, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = credentials.split_once(':').unwrap_or((credentials, ""));
    let (hosts, ports): (Vec<_>, Vec<_>) =
        hosts.split(',').map(host_and_port).collect::<Result<Vec<_>, _>>()?.into_iter().unzip();
    let (hosts, mut ports) = (hosts.join(","), ports.join(","));
    if ports.trim_matches(',').is_empty() {
        ports.clear();
    }
    let mut unnamed = Vec::new();
    for (key, value) in
        [("user", user), ("password", password), ("dbname", database), ("host", &*hosts), ("port", &*ports)]
    {
        unnamed.push((key, decoded(value)?));
    }
    let mut named = Vec::new();
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (key, value) = parameter.split_once('=').ok_or(Refusal::Syntax("a parameter has no `=`"))?;
        let (key, value) = (decoded(key)?, decoded(value)?);
        // libpq accepts this form for compatibility with other drivers.
        named.push(if (key.as_str(), value.as_str()) == ("ssl", "true") {
            ("sslmode".to_owned(), "require".to_owned())
        } else {
            (key, value)
        });
    }
    Ok((unnamed, named))
}

fn host_and_port(host: &str) -> Result<(&str, &str), Refusal> {
    let Some(bracketed) = host.strip_prefix('[') else {
        return Ok(host.split_once(':').unwrap_or((host, "")));
    };
    let (address, rest) = bracketed.split_once(']').ok_or(Refusal::Syntax("a `[` has no `]`"))?;
    match rest.strip_prefix(':') {
        Some(port) => Ok((address, port)),
        None if rest.is_empty() => Ok((address, "")),
        None => Err(Refusal::Syntax("there is text between `]` and the port")),
    }
}

fn decoded(text: &str) -> Result<String, Refusal> {
    let wrong = || Refusal::Syntax("a `%` without two hexadecimal digits must be written as `%25`");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| wrong())?);
    }
    let text = String::from_utf8(bytes).map_err(|_| Refusal::Syntax("it is not UTF-8"))?;
    if text.contains('\0') { Err(Refusal::Syntax("it contains a zero byte")) } else { Ok(text) }
}

/// Parses `key=value key='value with spaces'`, with a backslash before quotation marks and backslashes.
fn pairs_in_words(text: &str) -> Result<Pairs, Refusal> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=').ok_or(Refusal::Syntax("a key has no `=`"))?;
        let key = key.trim_end();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(Refusal::Syntax("a key has no `=`"));
        }
        let (value, after) = value_in_words(after.trim_start())?;
        pairs.push((key.to_owned(), value));
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// Parses the value at the start of a text, and returns it with the rest.
fn value_in_words(text: &str) -> Result<(String, &str), Refusal> {
    let (is_quoted, inside) = text.strip_prefix('\'').map_or((false, text), |inside| (true, inside));
    let mut value = String::new();
    let mut characters = inside.chars();
    loop {
        let before = characters.as_str();
        match characters.next() {
            Some('\\') => value.extend(characters.next()),
            Some('\'') if is_quoted => return Ok((value, characters.as_str())),
            Some(space) if !is_quoted && space.is_whitespace() => return Ok((value, before)),
            Some('\0') => return Err(Refusal::Syntax("it contains a zero byte")),
            Some(other) => value.push(other),
            None if is_quoted => return Err(Refusal::Syntax("a quoted value does not end")),
            None => return Ok((value, "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> String {
        let parameters = match Parameters::parse(text) {
            Ok(parameters) => parameters,
            Err(refusal) => return refusal.to_string(),
        };
        parameters.0.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn urls_are_parsed_as_by_libpq() {
        for (url, expected) in [
            ("postgres://", ""),
            ("postgresql://localhost", "host=localhost"),
            ("postgres://localhost:5433/app", "dbname=app host=localhost port=5433"),
            ("postgres://user@localhost", "host=localhost user=user"),
            ("postgres://user:p%40s%2Fs%3F@localhost/", "host=localhost password=p@s/s? user=user"),
            ("postgres://user:p@ss@localhost/", "host=localhost password=p@ss user=user"),
            ("postgres://a:1,b,c:3/app", "dbname=app host=a,b,c port=1,,3"),
            ("postgres://[2001:db8::1]:5433,[::1]/", "host=2001:db8::1,::1 port=5433,"),
            ("postgres://%2Frun%2Fpostgresql/app", "dbname=app host=/run/postgresql"),
            ("postgres:///app?host=/run/pgbouncer&port=6432", "dbname=app host=/run/pgbouncer port=6432"),
            (
                "postgres://db/?sslmode=verify-full&sslrootcert=%2Fetc%2Fca+1.pem",
                "host=db sslmode=verify-full sslrootcert=/etc/ca+1.pem",
            ),
            ("postgres://db/?ssl=true", "host=db sslmode=require"),
            ("postgres://db/?options=-c%20a%3Db", "host=db options=-c a=b"),
            ("postgres://db/app?dbname=other&host=", "dbname=other"),
        ] {
            assert_eq!(parsed(url), expected, "{url}");
        }
    }

    #[test]
    fn keyword_value_strings_are_parsed_as_by_libpq() {
        for (words, expected) in [
            ("", ""),
            ("  host = db   port=5433 ", "host=db port=5433"),
            (r"password='it\'s \\ here' user=me", r"password=it's \ here user=me"),
            (r"password=it\'s\ here", "password=it's here"),
            ("password='' host=db", "host=db"),
            ("host=a,b port=1,2 host=c", "host=c port=1,2"),
        ] {
            assert_eq!(parsed(words), expected, "{words}");
        }
    }

    #[test]
    fn errors_name_the_problem_without_repeating_the_string() {
        for (text, why) in [
            ("word", "has no `=`"),
            ("host=db wo rd=1", "has no `=`"),
            ("host=db password='word", "does not end"),
            ("host=db word=1", "parameter number 2"),
            ("postgres://user:pa?word=x@db/", "parameter number 1"),
            ("postgres://user:pa?word@db/", "has no `=`"),
            ("postgres://user:word%@db/", "%25"),
            ("postgres://user:word%zz@db/", "%25"),
            ("postgres://user:word%ff@db/", "UTF-8"),
            ("postgres://user:word%00@db/", "zero byte"),
            ("postgres://user:word@[::1/", "`]`"),
            ("postgres://user:word@[::1]x/", "`]`"),
            ("host=db passfile=word", "passfile"),
            ("host=db require_auth=word", "require_auth"),
        ] {
            let refusal = parsed(text);
            assert!(refusal.contains(why) && !refusal.contains("rd="), "{text}: {refusal}");
            assert!(!refusal.contains("word"), "{text}: {refusal}");
        }
    }
}
