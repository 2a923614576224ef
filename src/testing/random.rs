//! Repeatable randomness.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::Error;
use crate::random::Random;

/// A seeded source of randomness, so that a test is repeatable. **For tests only**: anyone who knows the seed, or eight
/// bytes of the output, knows all later output.
///
/// The generator is SplitMix64 (Steele, Lea and Flood, 2014).
///
/// ```
/// use openid_deferred::{Random, testing::SeededRandom};
///
/// let (mut first, mut second) = ([0; 16], [0; 16]);
/// SeededRandom::new(7).fill(&mut first)?;
/// SeededRandom::new(7).fill(&mut second)?;
/// assert_eq!(first, second);
/// # Ok::<(), openid_deferred::Error>(())
/// ```
#[derive(Debug)]
pub struct SeededRandom(AtomicU64);

impl SeededRandom {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

    /// Starts with a seed.
    pub fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    fn next(&self) -> u64 {
        let mut word = self.0.fetch_add(Self::STEP, Ordering::Relaxed).wrapping_add(Self::STEP);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), Error> {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_sequence() {
        let random = SeededRandom::new(1_234_567);
        let drawn = [(); 3].map(|()| random.next());
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
