//! Violations of ID Tokens.

use crate::error::{Document, Rule, Violation};

pub(super) fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::IdToken)
}

pub(super) fn at(rule: Rule, claim: &'static str) -> Violation {
    violation(rule).at_member(claim)
}
