//! The alerts that were reported a short time ago. A lasting problem is reported when it begins, and then seldom.

use std::collections::BTreeMap;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use crate::store::{Partition, ProcessId};

/// How often a failing store is reported.
const STORE_ALERT_EVERY: Duration = Duration::from_secs(60);
/// How often pauses of a client are reported.
const PAUSE_ALERT_EVERY: Duration = Duration::from_secs(300);
/// How often any other problem is reported.
pub(super) const REMIND_EVERY: Duration = Duration::from_secs(3600);
/// The maximum number of rows, or error codes of one OP, that are reported in that time. Others have the same cause.
const ALERTS_OF_A_KIND: usize = 16;

/// A problem that is reported seldom while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    Store,
    /// The names of clients could not be recorded.
    ClientNotes,
    MissingKey([u8; 4]),
    NewerFormat(u8),
    UnknownClient(Partition),
    /// An error code that no specification defines, from the OP of this client.
    UnknownError(Partition, Arc<str>),
    Unreadable(ProcessId),
    /// The poll or the verification of this sign-in panicked.
    Panicked(ProcessId),
    /// This client pauses because of `Retry-After`.
    Paused(Partition),
}

impl Cause {
    fn every(&self) -> Duration {
        match self {
            Self::Store => STORE_ALERT_EVERY,
            Self::Paused(_) => PAUSE_ALERT_EVERY,
            _ => REMIND_EVERY,
        }
    }

    /// Whether the two are of a kind of which there may be any number.
    fn is_one_of_many_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::UnknownError(partition, _), Self::UnknownError(other, _)) => partition == other,
            (Self::Unreadable(_) | Self::Panicked(_), _) => discriminant(self) == discriminant(other),
            _ => false,
        }
    }
}

/// When each cause was last reported, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Reminders(BTreeMap<Cause, Duration>);

impl Reminders {
    /// Whether a report of a cause is due. If so, it counts as reported.
    pub(super) fn is_due(&mut self, cause: Cause, now: Duration) -> bool {
        self.0.retain(|known, at| now.saturating_sub(*at) < known.every());
        let alike = self.0.keys().filter(|known| cause.is_one_of_many_like(known)).count();
        let is_due = !self.0.contains_key(&cause) && alike < ALERTS_OF_A_KIND;
        if is_due {
            self.0.insert(cause, now);
        }
        is_due
    }

    /// Records that a cause was reported together with another one.
    pub(super) fn note(&mut self, cause: Cause, now: Duration) {
        self.0.insert(cause, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn each_cause_is_reported_when_it_begins_and_then_rarely() {
        let mut reminders = Reminders::default();
        let mut reports = |cause: Cause| {
            (0..4 * 3_600).filter(|second| reminders.is_due(cause.clone(), Duration::from_secs(*second))).count()
        };
        assert_eq!(reports(Cause::Store), 240);
        assert_eq!(reports(Cause::Paused(Partition(1))), 48);
        assert_eq!(reports(Cause::MissingKey([1; 4])), 4);
        assert_eq!(reports(Cause::UnknownError(Partition(1), "odd".into())), 4);
    }

    #[test]
    fn an_op_with_a_new_error_code_in_each_answer_is_not_reported_each_time() {
        let mut reminders = Reminders::default();
        let mut is_due = |partition, number: usize, now| {
            let code = format!("code {number}");
            reminders.is_due(Cause::UnknownError(Partition(partition), code.into()), now)
        };
        assert_eq!((0..1_000).filter(|number| is_due(1, *number, Duration::ZERO)).count(), ALERTS_OF_A_KIND);
        assert!(is_due(2, 1, Duration::ZERO), "the codes of each OP are counted separately");
        assert!(is_due(1, 1_000, HOUR));
    }

    #[test]
    fn a_million_rows_with_one_cause_give_few_reports() {
        let mut reminders = Reminders::default();
        let id = |number: u8| ProcessId::from_bytes([number; 16]);
        let reported = (0..200).filter(|number| reminders.is_due(Cause::Unreadable(id(*number)), HOUR)).count();
        assert_eq!(reported, ALERTS_OF_A_KIND);
        assert!(reminders.is_due(Cause::Panicked(id(1)), HOUR));
    }
}
