//! Limits of the load of one replica on one client's OP.

use std::time::Duration;

use crate::client::Client;

/// The maximum number of polls and exchanges of one client in flight, and the maximum rate of polls. The limits apply
/// to each replica: divide what the OP allows by the number of replicas.
///
/// ```
/// use std::time::Duration;
/// use openid_deferred::poller::Limits;
///
/// let limits = Limits::new().in_flight(16).rate(100, Duration::from_secs(1));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "limits do nothing until they are given to a poller"]
pub struct Limits {
    pub(super) in_flight: usize,
    pub(super) rate: Option<Rate>,
    pub(super) exchanges: usize,
}

/// A client for a poller, with limits of its own.
///
/// [`PollerBuilder::client`](super::PollerBuilder::client) and [`Poller::add_client`](super::Poller::add_client) take it,
/// and a [`Client`] alone, which then has the [limits of the poller](super::PollerBuilder::limits).
///
/// ```
/// # fn example(builder: openid_deferred::poller::PollerBuilder, client: openid_deferred::Client) {
/// use openid_deferred::poller::{LimitedClient, Limits};
///
/// let builder = builder.client(LimitedClient::new(client, Limits::new().in_flight(4)));
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "a client does nothing until it is given to a poller"]
pub struct LimitedClient {
    pub(super) client: Client,
    /// `None` for the limits of the poller.
    pub(super) limits: Option<Limits>,
}

impl LimitedClient {
    /// Creates a client with these limits.
    pub fn new(client: Client, limits: Limits) -> Self {
        Self { client, limits: Some(limits) }
    }
}

impl From<Client> for LimitedClient {
    fn from(client: Client) -> Self {
        Self { client, limits: None }
    }
}

/// The maximum number of polls in any time of the length `per`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rate {
    polls: u32,
    per: Duration,
}

impl Limits {
    /// Returns the default limits: 64 polls and 256 exchanges in flight, and no limit on the rate.
    pub fn new() -> Self {
        Self { in_flight: 64, rate: None, exchanges: 256 }
    }

    /// Sets the maximum number of polls in flight, at least one. As many stored successes may be verified in addition;
    /// the rate limit, the circuit breaker and the pause of the client do not delay verification.
    pub fn in_flight(mut self, polls: usize) -> Self {
        self.in_flight = polls.max(1);
        self
    }

    /// Sets the maximum number of polls that begin in any time of the length `per`, at least one. A poll is one
    /// request, and up to three if the OP requires another DPoP nonce or the time of its own clock. Polls beyond the
    /// limit wait, the longest overdue first.
    pub fn rate(mut self, polls: u32, per: Duration) -> Self {
        self.rate = Some(Rate { polls: polls.max(1), per });
        self
    }

    /// Sets the maximum number of exchanges in flight, at least one. If more users return at once, the others wait for
    /// a free slot in the order of their arrival, for 30 s at most. Then
    /// [`Poller::authorization_response`](super::Poller::authorization_response) returns
    /// [`Busy`](crate::ErrorKind::Busy).
    pub fn exchanges(mut self, exchanges: usize) -> Self {
        self.exchanges = exchanges.max(1);
        self
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self::new()
    }
}

impl Rate {
    /// How many polls may begin at once, because rows are claimed in batches.
    fn burst(self) -> u32 {
        (self.polls / 10).max(1)
    }

    /// The time that each poll is charged. With it, a burst and the polls in the rest of the time stay below the
    /// rate.
    fn spacing(self) -> Duration {
        // Rounded up, because otherwise rounding would admit one more poll at the end.
        (self.per / (self.polls - (self.burst() - 1))).saturating_add(Duration::from_nanos(1))
    }
}

/// How much of a rate is used, on the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Meter {
    /// When the charges of all polls that have begun are used up.
    paid_at: Duration,
}

impl Meter {
    /// Returns how many of `free` polls may begin now, and if none may, the time until some may.
    pub(super) fn admits(&self, rate: Option<Rate>, free: usize, now: Duration) -> (usize, Option<Duration>) {
        let Some(rate) = rate else { return (free, None) };
        let (burst, spacing) = (rate.burst(), rate.spacing());
        let debt = self.paid_at.saturating_sub(now);
        let credit = spacing.saturating_mul(burst).saturating_sub(debt);
        let admitted = usize::try_from(credit.as_nanos() / spacing.as_nanos()).unwrap_or(usize::MAX);
        if admitted == 0 {
            // Waits until half a burst may begin, so that not every poll needs a call to the store.
            let enough = spacing.saturating_mul(burst.div_ceil(2)).saturating_sub(credit);
            return (0, Some(enough));
        }
        (free.min(admitted), None)
    }

    /// Records that a poll begins.
    pub(super) fn takes(&mut self, rate: Option<Rate>, now: Duration) {
        if let Some(rate) = rate {
            self.paid_at = self.paid_at.max(now).saturating_add(rate.spacing());
        }
    }

    /// Undoes the record of a poll that was not sent.
    pub(super) fn takes_back(&mut self, rate: Option<Rate>) {
        if let Some(rate) = rate {
            self.paid_at = self.paid_at.saturating_sub(rate.spacing());
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_a_rate_limit_all_slots_are_used() {
        assert_eq!(Meter::default().admits(None, 64, Duration::from_secs(9)), (64, None));
    }

    #[test]
    fn a_rate_of_one_poll_per_period_waits_for_the_period() {
        let rate = Limits::new().rate(1, Duration::from_secs(10)).rate;
        let (mut meter, now) = (Meter::default(), Duration::from_secs(100));
        assert_eq!(meter.admits(rate, 64, now), (1, None));
        meter.takes(rate, now);
        let (admitted, wait) = meter.admits(rate, 64, now);
        assert_eq!((admitted, wait.map(|wait| wait.as_secs())), (0, Some(10)));
        assert_eq!(meter.admits(rate, 64, now + wait.unwrap()), (1, None));
    }

    proptest! {
        /// For any times of the calls and any number of waiting polls.
        #[test]
        fn no_window_has_more_polls_than_the_rate_limit(
            polls in 1..500_u32,
            per in 100..5_000_u64,
            pauses in prop::collection::vec(0..300_u64, 1..200),
        ) {
            let per = Duration::from_millis(per);
            let rate = Limits::new().rate(polls, per).rate;
            let (mut meter, mut now) = (Meter::default(), Duration::from_secs(1));
            let mut begun: Vec<Duration> = Vec::new();
            for pause in pauses {
                let (admitted, wait) = meter.admits(rate, 10_000, now);
                prop_assert_eq!(admitted == 0, wait.is_some());
                for _ in 0..admitted {
                    meter.takes(rate, now);
                    begun.push(now);
                }
                // The caller waits at least as long as it was told.
                now += wait.unwrap_or_default().max(Duration::from_millis(pause));
            }
            for (index, start) in begun.iter().enumerate() {
                let within = begun[index..].iter().take_while(|time| **time < *start + per).count();
                prop_assert!(within <= polls as usize, "{within} of {polls} within {per:?}");
            }
        }
    }
}
