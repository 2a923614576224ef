//! Checks of the rows of a store: whether the keyring opens them, and whether replicas process them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::record::FORMAT;
use super::rotate::{KeyUse, key_uses};
use crate::error::Error;
use crate::keyring::Keyring;
use crate::operations::{Clients, held_by_retry_after};
use crate::store::{Finding, KeyStats, Listing, Partition, PartitionStats, State, Store};

/// How long a row may be overdue before it is reported: longer than the usual interval of an OP.
const LONG_OVERDUE: Duration = Duration::from_secs(600);
/// The number of rows that are read at once.
const ROWS: usize = 1_000;
/// The number of times that rows are read, so that a check of millions of rows stays fast.
const PAGES: usize = 20;
/// How long an outcome may be undelivered before it is reported.
const LONG_UNDELIVERED: Duration = Duration::from_secs(600);

/// Checks the rows of a store: whether the keyring has the keys that they need, whether this release can read them,
/// whether polls and deliveries keep up, whether an OP forbids polls for long, and whether sealed data are missing.
/// Without a keyring it lists the keys that the rows need.
///
/// It reads the columns of all rows and opens none, changes nothing, and needs no poller and no client. It looks for
/// long `Retry-After` among 20,000 rows at most. The store itself is checked by `SqliteStore::check` and
/// `PostgresStore::check`.
///
/// ```
/// # async fn example(keyring: openid_deferred::Keyring) -> Result<(), openid_deferred::Error> {
/// use openid_deferred::poller;
/// use openid_deferred::store::{MemoryStore, Severity};
///
/// let findings = poller::check(&MemoryStore::new(), Some(&keyring)).await?;
/// for finding in findings.iter().filter(|finding| finding.severity > Severity::Fine) {
///     eprintln!("{}: {}; {}", finding.subject, finding.text, finding.advice.unwrap_or_default());
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// [`Store`](crate::ErrorKind::Store). A problem that was found is not an error.
pub async fn check(store: &dyn Store, keyring: Option<&Keyring>) -> Result<Vec<Finding>, Error> {
    let keys = store.keys().await?;
    let stats = store.stats().await?;
    let mut findings = match keyring {
        Some(keyring) => of_keys(&key_uses(&keyring.ids(), &keys)),
        None => vec![of_unknown_keys(&key_uses(&[], &keys))],
    };
    findings.extend(of_formats(&keys));
    let mut clients = Clients::of(store);
    clients.look_up(stats.iter().map(|stats| stats.partition)).await;
    findings.push(of_polls(&stats, &clients));
    findings.extend(of_retry_after(&held(store).await, &clients));
    findings.push(of_deliveries(&stats, &clients));
    findings.extend(of_set_aside(&stats));
    Ok(findings)
}

fn of_keys(uses: &[KeyUse]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for key in uses {
        let KeyUse { key_id, sealed, waiting, .. } = key;
        findings.push(if key.is_known && key.is_primary {
            Finding::fine("keys", format!("the key {key_id} seals, and {} it", need(*sealed)))
        } else if key.is_known && key.is_needed() {
            let rows = *sealed.max(waiting);
            let still = if rows == 1 { "still needs" } else { "still need" };
            Finding::fine("keys", format!("{} {still} the older key {key_id}", counted(rows, "row")))
        } else if key.is_known {
            Finding::fine("keys", format!("no row needs the older key {key_id}"))
        } else if *sealed > 0 {
            Finding::wrong(
                "keys",
                format!(
                    "{} the key {key_id}, which the keyring lacks; replicas neither poll nor deliver them",
                    need(*sealed)
                ),
                "add the key to the keyring of every replica (`also_opens`)",
            )
        } else {
            Finding::warning(
                "keys",
                format!(
                    "{} began under the key {key_id}, which the keyring lacks; pings for them are refused",
                    counted(*waiting, "sign-in")
                ),
                "add the key to the keyring of every replica (`also_opens`) until they have ended",
            )
        });
    }
    findings
}

/// The keys that the rows need, if there is no keyring to compare them with.
fn of_unknown_keys(uses: &[KeyUse]) -> Finding {
    let keys: Vec<_> =
        uses.iter().map(|key| format!("{} ({})", key.key_id, counted(key.sealed.max(key.waiting), "row"))).collect();
    match keys.is_empty() {
        true => Finding::fine("keys", "no row needs a key"),
        false => Finding::fine("keys", format!("no keyring was given; the rows need these keys: {}", keys.join(", "))),
    }
}

fn of_formats(keys: &[KeyStats]) -> Option<Finding> {
    let newer: u64 = keys.iter().filter(|key| key.format > FORMAT).map(|key| key.bodies).sum();
    (newer > 0).then(|| {
        Finding::warning(
            "formats",
            format!("only a newer release can read {}", counted(newer, "row")),
            "deploy that release, unless it is being rolled out",
        )
    })
}

fn of_polls(stats: &[PartitionStats], clients: &Clients<'_>) -> Finding {
    let open: u64 = stats.iter().map(PartitionStats::open).sum();
    let oldest = stats.iter().filter_map(|stats| Some((stats.overdue?, stats.partition))).max();
    let Some((overdue, client)) = oldest.filter(|(overdue, _)| *overdue >= LONG_OVERDUE) else {
        let are = if open == 1 { "is" } else { "are" };
        let pending = counted(open, "sign-in");
        return Finding::fine("polls", format!("{pending} {are} pending, and none has been due for long"));
    };
    let (minutes, client) = (overdue.as_secs() / 60, clients.name(client));
    Finding::warning(
        "polls",
        format!("a sign-in of the client {client} has been due for {minutes} minutes without being polled"),
        "see whether a replica with its client runs, whether the OP refuses the client, and its limits",
    )
}

/// The sign-ins of one client that the OP's `Retry-After` holds for long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Held {
    client: Partition,
    sign_ins: u64,
    /// The longest time until `Retry-After` ends.
    longest: Duration,
}

/// Reads some of the rows that wait for the OP: clients whose sign-ins are held have many of them, and a store need not
/// list rows.
async fn held(store: &dyn Store) -> Vec<Held> {
    let mut all: BTreeMap<Partition, Held> = BTreeMap::new();
    let mut after = None;
    for _ in 0..PAGES {
        let listing = Listing { states: vec![State::Waiting], after, ..Listing::new(ROWS) };
        let Ok(page) = store.list(listing).await else { break };
        for row in &page.rows {
            let Some(left) = held_by_retry_after(row, page.now) else { continue };
            let first = Held { client: row.partition, sign_ins: 0, longest: Duration::ZERO };
            let held = all.entry(row.partition).or_insert(first);
            (held.sign_ins, held.longest) = (held.sign_ins + 1, held.longest.max(left));
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    all.into_values().collect()
}

/// A finding for each client whose OP forbids polls for long.
fn of_retry_after(held: &[Held], clients: &Clients<'_>) -> Vec<Finding> {
    let findings = held.iter().map(|Held { client, sign_ins, longest }| {
        let (sign_ins, client) = (counted(*sign_ins, "sign-in"), clients.name(*client));
        let minutes = longest.as_secs().div_ceil(60);
        Finding::warning(
            "polls",
            format!(
                "the OP forbids polls for {sign_ins} of the client {client} for up to {minutes} minutes (Retry-After)"
            ),
            "ask the OP; polls go on by themselves when Retry-After ends",
        )
    });
    findings.collect()
}

fn of_deliveries(stats: &[PartitionStats], clients: &Clients<'_>) -> Finding {
    let decided: u64 = stats.iter().map(|stats| stats.decided).sum();
    let oldest = stats.iter().filter_map(|stats| Some((stats.undelivered?, stats.partition))).max();
    let Some((undelivered, client)) = oldest.filter(|(undelivered, _)| *undelivered >= LONG_UNDELIVERED) else {
        return Finding::fine(
            "deliveries",
            match decided {
                1 => "1 outcome is not acknowledged, but not for longer than ten minutes".to_owned(),
                _ => format!("{decided} outcomes are not acknowledged, and none for longer than ten minutes"),
            },
        );
    };
    let (minutes, client) = (undelivered.as_secs() / 60, clients.name(client));
    Finding::warning(
        "deliveries",
        format!("an outcome of the client {client} was decided {minutes} minutes ago and is not acknowledged"),
        "see whether the application's consumer of outcomes runs, what it waits for, and whether it fails (see its log)",
    )
}

/// Rows without their sealed data, if there are any.
fn of_set_aside(stats: &[PartitionStats]) -> Option<Finding> {
    let set_aside: u64 = stats.iter().map(|stats| stats.set_aside).sum();
    (set_aside > 0).then(|| {
        Finding::warning(
            "data",
            format!("the sealed data of {} are missing, so replicas skip them", counted(set_aside, "sign-in")),
            "list them with `list --stuck`; then restore their data, or forget them",
        )
    })
}

/// A number with its noun.
fn counted(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// How many rows need something.
fn need(rows: u64) -> String {
    format!("{} {}", counted(rows, "row"), if rows == 1 { "needs" } else { "need" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock as _, SystemClock};
    use crate::store::{ClientNote, MemoryStore, NewProcess, ProcessId, SealedBody, Severity};
    use std::time::UNIX_EPOCH;

    #[test]
    fn one_row_is_counted_in_the_singular() {
        let store = MemoryStore::new();
        let clients = Clients::of(&store);
        let stats = |waiting, decided, set_aside| PartitionStats {
            waiting,
            decided,
            set_aside,
            ..PartitionStats::empty(Partition(1))
        };
        let text = |stats: PartitionStats| {
            let found =
                [of_polls(&[stats], &clients), of_deliveries(&[stats], &clients), of_set_aside(&[stats]).unwrap()];
            found.map(|found| found.text)
        };
        let one = text(stats(1, 1, 1));
        assert!(one[0].starts_with("1 sign-in is pending") && one[1].starts_with("1 outcome is not"), "{one:?}");
        assert!(one[2].contains("of 1 sign-in are"), "{one:?}");
        let two = text(stats(2, 2, 2));
        assert!(two[0].starts_with("2 sign-ins are pending") && two[1].starts_with("2 outcomes are not"), "{two:?}");
        let keys = |bodies| {
            let stats = KeyStats { key: [0, 0, 0, 7], format: 1, bodies, waiting: 0 };
            of_keys(&key_uses(&[[0, 0, 0, 1]], &[stats])).remove(1).text
        };
        assert!(keys(1).starts_with("1 row needs the key") && keys(2).starts_with("2 rows need the key"));
    }

    #[tokio::test]
    async fn an_op_that_forbids_polls_for_long_is_reported_for_each_client() {
        let store = MemoryStore::new();
        let now = SystemClock.now().duration_since(UNIX_EPOCH).unwrap().as_millis();
        for (id, client, minutes) in [(1, 1, 1_440), (2, 1, 60), (3, 2, 5), (4, 2, 0)] {
            let body = SealedBody::new(1, [7; 4], b"sealed".to_vec());
            let row = NewProcess::new(ProcessId::from_bytes([id; 16]), Partition(client), State::Waiting, body);
            let of = minutes * 60_000;
            let held = format!(r#"{{"at":{},"of":{of}}}"#, now + of);
            let schedule = format!(r#"{{"int":60000,"sent":0,"recv":0,"due":{held},"nb":{held}}}"#);
            store.insert(NewProcess { schedule, ..row }).await.unwrap();
        }
        let found = of_retry_after(&held(&store).await, &Clients::of(&store));
        assert_eq!((found.len(), found[0].severity), (1, Severity::Warning), "{found:?}");
        assert!(found[0].text.contains("for 2 sign-ins of the client number 1 for up to 1440 minutes"), "{found:?}");
        let all = check(&store, None).await.unwrap();
        assert!(all.contains(&found[0]), "{all:?}");
    }

    #[test]
    fn a_missing_key_is_a_problem_while_a_body_needs_it() {
        let stats = |bodies, waiting| KeyStats { key: [0, 0, 0, 7], format: 1, bodies, waiting };
        let severities = |stats| {
            of_keys(&key_uses(&[[0, 0, 0, 1]], &[stats])).iter().map(|found| found.severity).collect::<Vec<_>>()
        };
        assert_eq!(severities(stats(3, 3)), [Severity::Fine, Severity::Wrong]);
        assert_eq!(severities(stats(0, 3)), [Severity::Fine, Severity::Warning]);
        let found = of_keys(&key_uses(&[[0, 0, 0, 1], [0, 0, 0, 7]], &[stats(3, 2)]));
        assert_eq!(found[1].text, "3 rows still need the older key 00000007");
    }

    #[test]
    fn rows_that_are_overdue_or_undelivered_for_long_are_reported() {
        let rows = |overdue, undelivered| PartitionStats {
            overdue: Some(Duration::from_secs(overdue)),
            undelivered: Some(Duration::from_secs(undelivered)),
            ..PartitionStats::empty(Partition(1))
        };
        let store = MemoryStore::new();
        let clients = Clients::of(&store);
        let severities = |rows| (of_polls(&[rows], &clients).severity, of_deliveries(&[rows], &clients).severity);
        assert_eq!(severities(rows(599, 599)), (Severity::Fine, Severity::Fine));
        assert_eq!(severities(rows(600, 600)), (Severity::Warning, Severity::Warning));
    }

    #[tokio::test]
    async fn the_client_of_the_oldest_row_is_named() {
        let store = MemoryStore::new();
        store.note_clients(vec![ClientNote::new(Partition(2), "https://op.test", "the-app")]).await.unwrap();
        let rows = |number, minutes: u64| PartitionStats {
            overdue: Some(Duration::from_secs(60 * minutes)),
            undelivered: Some(Duration::from_secs(60 * minutes)),
            ..PartitionStats::empty(Partition(number))
        };
        let mut clients = Clients::of(&store);
        clients.look_up([Partition(1), Partition(2)]).await;
        let text = |stats: [PartitionStats; 2]| of_polls(&stats, &clients).text + &of_deliveries(&stats, &clients).text;
        let name = "the client the-app at https://op.test (number 2)";
        assert_eq!(text([rows(1, 20), rows(2, 30)]).matches(name).count(), 2);
        assert_eq!(text([rows(1, 40), rows(2, 30)]).matches("the client number 1 ").count(), 2);
    }

    #[test]
    fn rows_without_their_data_are_reported() {
        let rows = |set_aside| PartitionStats { set_aside, ..PartitionStats::empty(Partition(1)) };
        assert_eq!(of_set_aside(&[rows(0)]), None);
        let found = of_set_aside(&[rows(2), rows(1)]).unwrap();
        assert!(found.severity == Severity::Warning && found.text.contains("of 3 sign-ins"), "{found:?}");
    }

    #[test]
    fn rows_of_a_newer_release_are_reported() {
        let stats = |format| KeyStats { key: [1; 4], format, bodies: 2, waiting: 0 };
        assert_eq!(of_formats(&[stats(FORMAT)]), None);
        assert!(of_formats(&[stats(FORMAT), stats(FORMAT + 1)]).unwrap().text.ends_with("read 2 rows"));
    }
}
