//! Random choices that a seed determines.

use std::time::Duration;

use openid_deferred::Random as _;
use openid_deferred::testing::SeededRandom;

pub struct Chance(SeededRandom);

impl Chance {
    pub fn new(seed: u64) -> Self {
        Self(SeededRandom::new(seed))
    }

    /// A random part of a duration.
    pub fn share(&self, of: Duration) -> Duration {
        of.mul_f64(f64::from(self.number()) / 65_536.0)
    }

    /// A random number below `limit`.
    pub fn below(&self, limit: usize) -> usize {
        usize::from(self.number()) * limit / 65_536
    }

    fn number(&self) -> u16 {
        let mut bytes = [0; 2];
        self.0.fill(&mut bytes).expect("it is seeded");
        u16::from_be_bytes(bytes)
    }
}
