//! An OAuth error response, as a value.

use std::fmt;

use super::Verdict;
use crate::text;

/// An error that the OP stated (RFC 6749 §4.1.2.1 and §5.2; DTR §Token Request Error Response), or a protected resource
/// (RFC 6750 §3.1).
///
/// `Display` and `Debug` show the code and the HTTP status. They leave out the description, because it is untrusted
/// text that could repeat anything.
#[derive(Clone, PartialEq, Eq)]
pub struct ErrorResponse {
    code: String,
    description: Option<String>,
    status: Option<u16>,
    scope: Option<String>,
    /// The code means "pending" in the dialect of the request.
    is_pending: bool,
}

/// Codes longer than this, or with characters outside of RFC 6749's `NQSCHAR`, are shown as this.
const UNPRINTABLE: &str = "unprintable_error_code";
const CODE_LIMIT: usize = 64;
const SCOPE_LIMIT: usize = 1_000;

impl ErrorResponse {
    /// From a received response. The code is bounded and limited to the characters that RFC 6749 allows.
    pub(crate) fn new(code: &str, description: Option<&str>, status: Option<u16>) -> Self {
        // RFC 6749 §5.2: "Values for the "error" parameter MUST NOT include characters outside the set
        // %x20-21 / %x23-5B / %x5D-7E."
        let printable = |byte: u8| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e);
        let well_formed = !code.is_empty() && code.len() <= CODE_LIMIT && code.bytes().all(printable);
        Self {
            code: if well_formed { code } else { UNPRINTABLE }.to_owned(),
            description: description.and_then(text::untrusted),
            status,
            scope: None,
            is_pending: false,
        }
    }

    /// Marks the answer to a poll whose code means in the dialect of the poll that the OP has not decided.
    pub(crate) fn into_pending(mut self) -> Self {
        self.is_pending = true;
        self
    }

    /// Adds the scope that a protected resource requires, if it is well-formed.
    pub(crate) fn with_scope(mut self, scope: Option<&str>) -> Self {
        // RFC 6749 §3.3: space-delimited tokens of %x21 / %x23-5B / %x5D-7E.
        let well_formed = |scope: &&str| {
            let bytes = scope.as_bytes();
            (1..=SCOPE_LIMIT).contains(&bytes.len())
                && bytes.iter().all(|byte| matches!(byte, 0x20..=0x21 | 0x23..=0x5b | 0x5d..=0x7e))
        };
        self.scope = scope.filter(well_formed).map(str::to_owned);
        self
    }

    /// The error code, such as `invalid_grant`.
    pub fn code(&self) -> &str {
        &self.code
    }

    /// The OP's description, if it gave one: untrusted text, with control, bidirectional, zero-width and
    /// line-separating characters removed and cut to 1,000 characters. Escape it before you show it; do not log it.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The HTTP status of the response; `None` for an error that came through the browser.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// The required scope, if a protected resource named it (RFC 6750 §3).
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// What it means for the grant that was sent. An error that came through the browser has no status.
    pub(crate) fn verdict(&self) -> Verdict {
        if self.is_pending {
            return Verdict::Pending;
        }
        Verdict::of(self.status.unwrap_or(400), Some(&self.code))
    }

    /// Whether the error is transient.
    pub(crate) fn is_transient(&self) -> bool {
        match self.verdict() {
            Verdict::Pending | Verdict::SlowDown | Verdict::NotProcessed | Verdict::MayBeLost => true,
            _ => matches!(self.code(), "temporarily_unavailable" | "server_error"),
        }
    }
}

impl fmt::Display for ErrorResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.status {
            Some(status) => write!(formatter, "{} (HTTP status {status})", self.code),
            None => formatter.write_str(&self.code),
        }
    }
}

impl fmt::Debug for ErrorResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ErrorResponse")
            .field("code", &self.code)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_omits_the_description() {
        let response = ErrorResponse::new("invalid_grant", Some("code abc123 was used"), Some(400));
        assert_eq!(response.description(), Some("code abc123 was used"));
        assert!(!format!("{response} {response:?}").contains("abc123"));
    }

    #[test]
    fn a_malformed_error_code_is_not_repeated() {
        for code in ["", "with\nnewline", "a\"quote", &"x".repeat(65), "é"] {
            assert_eq!(ErrorResponse::new(code, None, None).code(), UNPRINTABLE);
        }
    }
}
