//! What survives a restart, and what nobody gets to see.

use openid_deferred::{Keyring, SealingKey, SystemRandom};

pub fn keyring() -> Keyring {
    Keyring::new(SealingKey::generate(&SystemRandom).expect("the system has randomness"))
}
