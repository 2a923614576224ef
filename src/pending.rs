//! x
mod answer;
mod schedule;
