//! Listing rows for operators: which rows, what is shown of them, and how pages follow each other.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::ProcessId;
use super::row::{Cancellation, Fingerprint, Partition, State};

/// The number of rows that a store reads for one page, at least the page itself.
pub(super) const ROWS_PER_SCAN: usize = 2_000;

/// The rows to list; see [`Store::list`](super::Store::list). Rows have to meet all conditions.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Listing {
    /// Where to look.
    pub among: Among,
    /// The states of the rows; empty for every state.
    pub states: Vec<State>,
    /// The client of the rows.
    pub partition: Option<Partition>,
    /// The keys that sealed the bodies of the rows; `None` for every key. Rows without a body meet no key.
    pub keys: Option<Vec<[u8; 4]>>,
    /// How long ago the rows were inserted, at least. It holds for rows that were inserted before the store recorded
    /// that.
    pub started_for: Option<Duration>,
    /// How long the rows have been due, at least. Rows with a lease that has not expired, rows that are set aside, and
    /// tombstones are not due. With this condition the rows are in the order in which they became due.
    pub overdue_for: Option<Duration>,
    /// Where the page before ended.
    pub after: Option<Place>,
    /// The maximum number of rows of the page.
    pub limit: usize,
}

/// The rows among which to look.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Among {
    /// All rows.
    All,
    /// The rows with these identifiers.
    Ids(Vec<ProcessId>),
    /// The rows with one of these [references](super::NewProcess::references).
    References(Vec<Fingerprint>),
}

impl Listing {
    /// Creates the first page of all rows.
    pub fn new(limit: usize) -> Self {
        Self {
            among: Among::All,
            states: Vec::new(),
            partition: None,
            keys: None,
            started_for: None,
            overdue_for: None,
            after: None,
            limit,
        }
    }

    /// Whether a row meets the conditions on its columns. [`among`](Self::among) and [`after`](Self::after) are for the
    /// store.
    pub fn takes(&self, row: &RowOverview, now: SystemTime) -> bool {
        let since = |then: SystemTime| now.duration_since(then).unwrap_or_default();
        (self.states.is_empty() || self.states.contains(&row.state))
            && self.partition.is_none_or(|partition| partition == row.partition)
            && self.keys.as_ref().is_none_or(|keys| row.has_body && keys.contains(&row.key))
            && self.started_for.is_none_or(|age| row.started_at.is_none_or(|at| since(at) >= age))
            && self.overdue_for.is_none_or(|age| row.overdue_for(now).is_some_and(|overdue| overdue >= age))
    }
}

/// What a listing shows of a row. It contains nothing of the sealed body. Times are those of the store's clock.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct RowOverview {
    /// Its identifier.
    pub id: ProcessId,
    /// Its place in the listing.
    pub place: Place,
    /// Its client.
    pub partition: Partition,
    /// Its state.
    pub state: State,
    /// Whether a success that arrives later replaces the outcome.
    pub provisional: bool,
    /// Whether the application has cancelled it.
    pub cancellation: Cancellation,
    /// When it was inserted; `None` if a release inserted it that did not record this.
    pub started_at: Option<SystemTime>,
    /// When the sign-in expires at the OP, if the OP set a limit.
    pub expires_at: Option<SystemTime>,
    /// When the current outcome was decided.
    pub decided_at: Option<SystemTime>,
    /// When it is due; `None` if it was [set aside](super::Store#a-row).
    pub due_at: Option<SystemTime>,
    /// The end of the current claim of work, if it was not settled; it may be past.
    pub leased_until: Option<SystemTime>,
    /// The earliest time to which a ping may move `due_at`; `None` if no ping may move it.
    pub not_before: Option<SystemTime>,
    /// When the last ping arrived that no claim has followed.
    pub pinged_at: Option<SystemTime>,
    /// The number of claims.
    pub epoch: i64,
    /// The number of claims in this state.
    pub attempts: u32,
    /// See [`Settlement::schedule`](super::Settlement::schedule).
    pub schedule: String,
    /// The format of the body.
    pub format: u8,
    /// The key that sealed the body.
    pub key: [u8; 4],
    /// Whether it has a body.
    pub has_body: bool,
}

impl RowOverview {
    /// Creates the overview of a row that was just inserted and is due at once.
    pub fn new(id: ProcessId, partition: Partition, state: State, now: SystemTime) -> Self {
        Self {
            id,
            place: Place { order: 0, id },
            partition,
            state,
            provisional: false,
            cancellation: Cancellation::None,
            started_at: Some(now),
            expires_at: None,
            decided_at: None,
            due_at: Some(now),
            leased_until: None,
            not_before: None,
            pinged_at: None,
            epoch: 0,
            attempts: 0,
            schedule: String::new(),
            format: 1,
            key: [0; 4],
            has_body: true,
        }
    }

    /// Whether its lease is set and has not expired.
    pub fn is_leased(&self, now: SystemTime) -> bool {
        self.leased_until.is_some_and(|until| until > now)
    }

    /// How long it has been due without a lease; `None` if it is not due, or a tombstone.
    pub fn overdue_for(&self, now: SystemTime) -> Option<Duration> {
        if self.state == State::Acknowledged || self.is_leased(now) {
            return None;
        }
        self.due_at.and_then(|due_at| now.duration_since(due_at).ok())
    }
}

/// A page of a listing.
#[non_exhaustive]
#[derive(Debug, Clone)]
pub struct Page {
    /// The store's time.
    pub now: SystemTime,
    /// The rows.
    pub rows: Vec<RowOverview>,
    /// Where the next page begins; `None` if there is none. A page that is not full, or even empty, can have a next
    /// one.
    pub next: Option<Place>,
}

impl Page {
    /// Creates a page without rows, which is the last one.
    pub fn empty(now: SystemTime) -> Self {
        Self { now, rows: Vec::new(), next: None }
    }
}

/// The place of a row in a listing. Its text form can be kept for a later page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The position in the order of a listing of overdue rows, which the store chooses; zero in other listings.
    pub order: i64,
    /// The row.
    pub id: ProcessId,
}

/// The error for a text that is not a [`Place`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a page position; use the value of `next` of the page before")]
pub struct ParsePlaceError;

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.order {
            0 => self.id.fmt(formatter),
            order => write!(formatter, "{order}.{}", self.id),
        }
    }
}

impl FromStr for Place {
    type Err = ParsePlaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (order, id) = text.split_once('.').unwrap_or(("0", text));
        let order = order.parse().map_err(|_| ParsePlaceError)?;
        Ok(Self { order, id: id.parse().map_err(|_| ParsePlaceError)? })
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The rows that a store has read of one queue for a page, in their order.
pub(super) struct Look {
    pub(super) rows: Vec<RowOverview>,
    /// The last place that was read, if more rows may follow.
    pub(super) end: Option<Place>,
}

impl Look {
    /// Creates a look that was limited to this number of rows.
    pub(super) fn limited(rows: Vec<RowOverview>, limit: usize) -> Self {
        let end = rows.last().map(|row| row.place).filter(|_| rows.len() >= limit);
        Self { rows, end }
    }
}

/// Combines looks at several queues into a page of the rows that meet the conditions.
pub(super) fn page(listing: &Listing, looks: Vec<Look>, now: SystemTime) -> Page {
    // Beyond the earliest end, rows of that queue may be missing.
    let end = looks.iter().filter_map(|look| look.end).min();
    let mut rows: Vec<_> = looks.into_iter().flat_map(|look| look.rows).collect();
    rows.sort_by_key(|row| row.place);
    rows.retain(|row| end.is_none_or(|end| row.place <= end) && listing.takes(row, now));
    let is_cut = rows.len() > listing.limit;
    rows.truncate(listing.limit);
    let next = if is_cut { rows.last().map(|row| row.place).or(listing.after) } else { end };
    Page { now, rows, next }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> ProcessId {
        ProcessId::from_bytes([number; 16])
    }

    fn row(number: u8) -> RowOverview {
        let place = Place { order: i64::from(number), id: id(number) };
        RowOverview { place, ..RowOverview::new(id(number), Partition(1), State::Waiting, NOW) }
    }

    fn numbers(page: &Page) -> Vec<u8> {
        page.rows.iter().map(|row| row.id.to_bytes()[0]).collect()
    }

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    #[test]
    fn a_page_position_is_restored_from_its_text() {
        for order in [0, 1, -7, i64::MAX] {
            let place = Place { order, id: id(9) };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert_eq!("nonsense".parse::<Place>(), Err(ParsePlaceError));
        assert_eq!("x.AAECAwQFBgcICQoLDA0ODw".parse::<Place>(), Err(ParsePlaceError));
    }

    #[test]
    fn rows_of_two_queues_are_merged_as_far_as_both_are_known() {
        let looks = || vec![Look::limited(vec![row(1), row(4)], 2), Look::limited(vec![row(2), row(3), row(5)], 9)];
        let all = page(&Listing::new(9), looks(), NOW);
        assert_eq!((numbers(&all), all.next), (vec![1, 2, 3, 4], Some(row(4).place)), "5 may not be the next one");
        let cut = page(&Listing::new(3), looks(), NOW);
        assert_eq!((numbers(&cut), cut.next), (vec![1, 2, 3], Some(row(3).place)));
        let other = Listing { partition: Some(Partition(2)), ..Listing::new(9) };
        let none = page(&other, looks(), NOW);
        assert_eq!((numbers(&none), none.next), (vec![], Some(row(4).place)), "more may follow an empty page");
    }
}
