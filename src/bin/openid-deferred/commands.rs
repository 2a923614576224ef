//! The commands. Each is one call of the library, and how its result is printed.

pub(crate) mod check;
pub(crate) mod generate;
pub(crate) mod list;
pub(crate) mod one;
pub(crate) mod rotate;
pub(crate) mod stats;
pub(crate) mod transfer;
