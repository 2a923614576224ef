//! All randomness of a simulation.

use std::time::Duration;

use openid_deferred::Random as _;
use openid_deferred::testing::SeededRandom;

/// A random stream that depends only on the seed.
#[derive(Debug)]
pub struct Chance(SeededRandom);

impl Chance {
    pub fn new(seed: u64) -> Self {
        // Neighbouring seeds of the generator would give similar streams.
        Self(SeededRandom::new(seed.wrapping_mul(0xa076_1d64_78bd_642f).rotate_left(29)))
    }

    pub fn word(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes).expect("the generator does not fail");
        u64::from_le_bytes(bytes)
    }

    /// A number from 0 to `limit - 1`.
    pub fn below(&self, limit: usize) -> usize {
        (self.word() % limit.max(1) as u64) as usize
    }

    /// A number between the two, inclusive.
    pub fn between_numbers(&self, least: usize, most: usize) -> usize {
        least + self.below(most + 1 - least)
    }

    /// `true` with this probability.
    pub fn odds(&self, probability: f64) -> bool {
        self.share() < probability
    }

    pub fn pick<T: Copy>(&self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    pub fn up_to(&self, longest: Duration) -> Duration {
        Duration::from_millis((longest.as_millis() as f64 * self.share()) as u64)
    }

    /// A duration between the two, with every order of magnitude equally likely.
    pub fn between(&self, shortest: Duration, longest: Duration) -> Duration {
        let (from, to) = (shortest.as_secs_f64().max(0.001).ln(), longest.as_secs_f64().max(0.001).ln());
        Duration::from_millis(((from + (to - from) * self.share()).exp() * 1000.0) as u64)
    }

    fn share(&self) -> f64 {
        (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
