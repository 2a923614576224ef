//! The logout tokens that were used, so that each ends sessions once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::client::LogoutToken;

/// The most tokens that are remembered. Only the OP can make tokens. Beyond this number, those that expire first are
/// forgotten, and could be used again until then.
const MOST_TOKENS: usize = 10_000;

/// The tokens of one client, by their `jti`.
#[derive(Clone, Default)]
pub(super) struct UsedTokens(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    tokens: HashMap<String, State>,
    by_expiry: BTreeSet<(SystemTime, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    InUse,
    Used,
}

/// What is known about a token that has arrived.
pub(super) enum Arrived {
    /// It arrives for the first time.
    New(Use),
    /// Another request with it is being processed.
    InUse,
    Used,
}

/// The use of one token. If it is dropped before [`done`](Self::done), the token can be used again.
pub(super) struct Use {
    tokens: UsedTokens,
    entry: (SystemTime, String),
    is_done: bool,
}

impl UsedTokens {
    /// Begins to use a token.
    pub(super) fn begin(&self, token: &LogoutToken, now: SystemTime) -> Arrived {
        self.begin_with(token.jti(), token.usable_until(), now)
    }

    fn begin_with(&self, jti: &str, until: SystemTime, now: SystemTime) -> Arrived {
        let mut inner = self.lock();
        inner.forget_expired(now);
        match inner.tokens.get(jti) {
            Some(State::InUse) => return Arrived::InUse,
            Some(State::Used) => return Arrived::Used,
            None => {}
        }
        if inner.tokens.len() >= MOST_TOKENS {
            inner.forget_first();
        }
        let entry = (until, jti.to_owned());
        inner.tokens.insert(jti.to_owned(), State::InUse);
        inner.by_expiry.insert(entry.clone());
        Arrived::New(Use { tokens: self.clone(), entry, is_done: false })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// A token is usable until its time, and not only before it.
    fn forget_expired(&mut self, now: SystemTime) {
        while self.by_expiry.first().is_some_and(|(until, _)| *until < now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((_, jti)) = self.by_expiry.pop_first() {
            self.tokens.remove(&jti);
        }
    }
}

impl Use {
    /// The sessions are ended: the token must not be used again.
    pub(super) fn done(mut self) {
        self.is_done = true;
        // It may have been forgotten meanwhile.
        if let Some(state) = self.tokens.lock().tokens.get_mut(&self.entry.1) {
            *state = State::Used;
        }
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        if !self.is_done {
            let mut inner = self.tokens.lock();
            if inner.by_expiry.remove(&self.entry) {
                inner.tokens.remove(&self.entry.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock::from_unix_seconds;

    const NOW: u64 = 1_800_000_000;

    fn begin(tokens: &UsedTokens, jti: &str, until: u64, now: u64) -> Arrived {
        tokens.begin_with(jti, from_unix_seconds(until), from_unix_seconds(now))
    }

    fn is_used(tokens: &UsedTokens, jti: &str, now: u64) -> bool {
        matches!(begin(tokens, jti, now + 1, now), Arrived::Used)
    }

    fn use_up(tokens: &UsedTokens, jti: &str, until: u64) {
        match begin(tokens, jti, until, NOW) {
            Arrived::New(new) => new.done(),
            Arrived::InUse | Arrived::Used => panic!("{jti} is not new"),
        }
    }

    #[test]
    fn a_token_is_used_once_until_it_expires() {
        let tokens = UsedTokens::default();
        use_up(&tokens, "a", NOW + 120);
        assert!(is_used(&tokens, "a", NOW) && is_used(&tokens, "a", NOW + 120));
        assert!(!is_used(&tokens, "a", NOW + 121));
        assert!(tokens.lock().tokens.is_empty(), "nothing is kept of it, and nothing of the use that was dropped");
    }

    #[test]
    fn a_use_that_fails_or_is_dropped_leaves_the_token_unused() {
        let tokens = UsedTokens::default();
        let Arrived::New(first) = begin(&tokens, "a", NOW + 120, NOW) else { panic!("it is new") };
        assert!(matches!(begin(&tokens, "a", NOW + 120, NOW), Arrived::InUse));
        drop(first);
        use_up(&tokens, "a", NOW + 120);
        assert!(is_used(&tokens, "a", NOW));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_what_expires_first() {
        let tokens = UsedTokens::default();
        for number in 0..=MOST_TOKENS {
            use_up(&tokens, &number.to_string(), NOW + 1 + number as u64);
        }
        assert_eq!(tokens.lock().tokens.len(), MOST_TOKENS);
        assert_eq!(tokens.lock().by_expiry.len(), MOST_TOKENS);
        assert!(is_used(&tokens, "1", NOW) && is_used(&tokens, &MOST_TOKENS.to_string(), NOW));
        assert!(!is_used(&tokens, "0", NOW));
    }

    #[test]
    fn a_use_that_outlives_its_token_does_not_free_a_later_one() {
        let tokens = UsedTokens::default();
        let Arrived::New(slow) = begin(&tokens, "a", NOW, NOW) else { panic!("it is new") };
        let later = from_unix_seconds(NOW) + Duration::from_secs(60);
        let Arrived::New(second) = tokens.begin_with("a", later, later) else { panic!("the first has expired") };
        drop(slow);
        assert!(matches!(tokens.begin_with("a", later, later), Arrived::InUse));
        second.done();
        assert!(matches!(tokens.begin_with("a", later, later), Arrived::Used));
    }
}
