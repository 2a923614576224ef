//! `list`

use std::io::{self, BufRead as _, Read as _};
use std::time::{Duration, SystemTime};

use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};
use openid_deferred::operations::{Filter, Overview, SignIns};
use openid_deferred::store::{Place, Severity, State};
use openid_deferred::{Clock as _, Error, Keyring, Poller, SystemClock, poller};

use crate::Health;
use crate::failure::Failure;
use crate::keys::{Keys, warn_of_no_keys};
use crate::location::Opened;
use crate::output::{Output, name, rough, table, word};

#[derive(Args)]
pub(crate) struct List {
    /// Only sign-ins in this state. Repeat it to allow several states.
    #[arg(long, value_name = "STATE", value_parser = PossibleValuesParser::new(STATES.map(|(name, _)| name)).map(state))]
    state: Vec<State>,
    /// Only sign-ins that started at least this long ago, such as `90m` or `7d`.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    older_than: Option<Duration>,
    /// Only sign-ins that have been due for at least this long and that no replica has claimed, the longest first.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    overdue_for: Option<Duration>,
    /// Only sign-ins of this client.
    #[arg(long, num_args = 2, value_names = ["ISSUER", "CLIENT_ID"])]
    client: Option<Vec<String>>,
    /// Only sign-ins that were sealed with the key of this identifier, such as `0123abcd`. Repeat it to allow several.
    #[arg(long, value_name = "KEY_ID", value_parser = key_id)]
    key: Vec<String>,
    /// Only sign-ins that do not go on by themselves, or whose polls keep failing. With keys (`--key-file`,
    /// `--key-env`, SEALING_KEY) also those that need another key.
    #[arg(long)]
    stuck: bool,
    /// The maximum number of sign-ins of the page, up to 1000.
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: usize,
    /// Continue where another page said `next`.
    #[arg(long, value_name = "PLACE")]
    after: Option<Place>,
    /// Only sign-ins with this reference of the application, such as an account number. It needs the keys, with which
    /// the store's hashes of references were made. Other users of this machine can see arguments: `-` reads the
    /// reference from standard input.
    #[arg(long, value_name = "REFERENCE")]
    reference: Option<String>,
    #[command(flatten)]
    keys: Keys,
}

/// The longest reference that is read, in bytes.
const LONGEST_LINE: u64 = 64 * 1024;

const STATES: [(&str, State); 5] = [
    ("exchanging", State::Exchanging),
    ("waiting", State::Waiting),
    ("answered", State::Answered),
    ("decided", State::Decided),
    ("acknowledged", State::Acknowledged),
];

/// The state with one of the names above.
fn state(name: String) -> State {
    STATES.into_iter().find(|(known, _)| *known == name).map_or(State::Waiting, |(_, state)| state)
}

/// Reads a time such as `90s`, `15m`, `2h` or `7d`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    let units = [('s', 1), ('m', 60), ('h', 3_600), ('d', 86_400)];
    let parsed = units.into_iter().find_map(|(unit, seconds)| {
        let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(seconds)
    });
    parsed.map(Duration::from_secs).ok_or("write a whole number and a unit: 90s, 15m, 2h, 7d")
}

/// Checks the identifier of a key.
fn key_id(text: &str) -> Result<String, &'static str> {
    match text.len() == 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(text.to_owned()),
        false => Err("write the eight hexadecimal digits that `check`, `rotate` and `show` print"),
    }
}

impl List {
    pub(crate) async fn run(mut self, opened: &Opened, output: &mut Output) -> Result<Health, Failure> {
        let mut health = Health::Well;
        let page = match self.reference.take() {
            None => {
                let keyring = self.keys.given()?;
                if self.stuck && keyring.is_none() {
                    warn_of_no_keys();
                }
                opened.operations_with(keyring.as_ref()).list(self.filter()).await
            }
            Some(reference) => {
                let (reference, keyring) = (given(reference)?, self.keys.keyring()?);
                health = unsearched(opened, &keyring).await?;
                find(opened, keyring, &reference, self.filter()).await
            }
        };
        let page = page.map_err(|error| Failure::library("cannot list the sign-ins", &error))?;
        output.print(&page, || text(&page, SystemClock.now()))?;
        Ok(health)
    }

    fn filter(self) -> Filter {
        let mut filter = self.state.into_iter().fold(Filter::new().limit(self.limit), Filter::state);
        if let Some(age) = self.older_than {
            filter = filter.older_than(age);
        }
        if let Some(time) = self.overdue_for {
            filter = filter.overdue_for(time);
        }
        if let Some([issuer, client_id]) = self.client.as_deref() {
            filter = filter.client(issuer, client_id);
        }
        filter = self.key.iter().fold(filter, |filter, key_id| filter.key_id(key_id));
        if self.stuck {
            filter = filter.stuck();
        }
        match self.after {
            Some(place) => filter.after(place),
            None => filter,
        }
    }
}

/// The reference, or the line on standard input.
fn given(reference: String) -> Result<String, Failure> {
    if reference != "-" {
        return Ok(reference);
    }
    let mut line = String::new();
    let read = io::stdin().lock().take(LONGEST_LINE).read_line(&mut line);
    read.map_err(|error| Failure::new("cannot read the reference from standard input").because(&error))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// Warns of rows that cannot be searched by a reference, because their hashes were made with a key that was not given.
async fn unsearched(opened: &Opened, keyring: &Keyring) -> Result<Health, Failure> {
    let findings = poller::check(&*opened.store(), Some(keyring)).await;
    let findings = findings.map_err(|error| Failure::library("cannot look for missing keys", &error))?;
    let mut health = Health::Well;
    for found in findings.iter().filter(|found| found.subject == "keys" && found.severity > Severity::Fine) {
        eprintln!("warning: not all sign-ins are searched: {}; give this key with another --key-file", found.text);
        health = Health::Unwell;
    }
    Ok(health)
}

/// Finds sign-ins with a poller that does not poll, because it has the keyring.
async fn find(opened: &Opened, keyring: Keyring, reference: &str, filter: Filter) -> Result<SignIns, Error> {
    let poller = Poller::builder(opened.store(), keyring).connect().await?;
    let page = poller.find(reference, filter).await;
    poller.shutdown(Duration::ZERO).await;
    page
}

fn text(page: &SignIns, now: SystemTime) -> String {
    let headings = [
        "ID",
        "CLIENT",
        "ISSUER",
        "CLIENT ID",
        "STATE",
        "WAITS FOR",
        "STUCK",
        "AGE",
        "DUE",
        "ATTEMPTS",
        "KEY",
        "LAST TROUBLE",
    ];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(page.sign_ins.iter().map(|sign_in| row(sign_in, now)));
    let table = match (page.sign_ins.is_empty(), &page.next) {
        (true, None) => "no sign-ins".to_owned(),
        (true, Some(_)) => "no sign-ins on this page".to_owned(),
        (false, _) => table(&rows),
    };
    match &page.next {
        Some(next) => format!("{table}\n\nmore: --after {next}"),
        None => table,
    }
}

fn row(sign_in: &Overview, now: SystemTime) -> Vec<String> {
    let age = sign_in.started_at.map(|at| now.duration_since(at).unwrap_or_default());
    vec![
        sign_in.id.to_string(),
        sign_in.client.0.to_string(),
        name(sign_in.issuer.as_deref()),
        name(sign_in.client_id.as_deref()),
        word(&sign_in.state),
        word(&sign_in.waits_for),
        sign_in.stuck.as_ref().map_or("-".to_owned(), word),
        rough(age),
        due(sign_in.due_at, now),
        sign_in.attempts.to_string(),
        sign_in.key_id.clone(),
        trouble(sign_in),
    ]
}

/// When something is due: `in 4m`, or `4m ago`.
pub(crate) fn due(at: Option<SystemTime>, now: SystemTime) -> String {
    let Some(at) = at else { return "-".to_owned() };
    match at.duration_since(now) {
        Ok(left) => format!("in {}", rough(Some(left))),
        Err(past) => format!("{} ago", rough(Some(past.duration()))),
    }
}

/// The last trouble in a few words.
pub(crate) fn trouble(sign_in: &Overview) -> String {
    let Some(trouble) = &sign_in.trouble else { return "-".to_owned() };
    let status = trouble.status.map(|status| status.to_string());
    let parts = [Some(word(&trouble.kind)), status, trouble.code.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7_200)));
        assert_eq!(duration("7d"), Ok(Duration::from_secs(604_800)));
        for text in ["", "7", "d", "-1d", "1.5h", "9999999999999999999d", "1 d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_identifier_of_a_key_has_eight_digits() {
        assert_eq!(key_id("0123abCD").as_deref(), Ok("0123abCD"));
        for text in ["", "0123abc", "0123abcg", "+123abcd", "0123abcde"] {
            assert!(key_id(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_due_time_is_relative() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100_000);
        assert_eq!(due(Some(now + Duration::from_secs(60)), now), "in 60s");
        assert_eq!(due(Some(now - Duration::from_secs(7_200)), now), "2h ago");
        assert_eq!(due(None, now), "-");
    }
}
