//! What an unsuccessful response means for the grant in the request.

/// The error codes that say that the mistake is the client's, and not that of one sign-in.
pub(crate) const REFUSALS_OF_CLIENTS: [&str; 5] =
    ["invalid_client", "unauthorized_client", "unsupported_grant_type", "invalid_scope", "invalid_dpop_proof"];

/// What an unsuccessful response means for the grant that was sent: an authorization code, a `deferred_auth_id` or a
/// refresh token.
///
/// The OP's error code counts with every HTTP status, with three exceptions: redirects, the statuses that gateways
/// generate, and `invalid_request`, which frameworks also send for unknown routes and methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `authorization_pending`.
    Pending,
    /// `slow_down`.
    SlowDown,
    /// `access_denied`.
    Denied,
    /// `expired_token`.
    Expired,
    /// `invalid_grant` or `invalid_request`.
    GrantRefused,
    /// The credentials, the registration or the DPoP proof of the client were refused. The OP checks these before the
    /// grant, which can be used again.
    ClientRefused,
    /// `invalid_scope`: the OP has processed the grant, but the mistake is the client's.
    ScopeRefused,
    /// Another error code. No tokens were issued; whether the grant can be used again is unknown.
    OtherwiseRefused,
    /// The request was refused before the OP processed the grant, which can be used again.
    NotProcessed,
    /// The OP may have acted on the request, and its answer may have been lost.
    MayBeLost,
}

impl Verdict {
    /// The verdict on a response with this status and this OAuth error code. `None` means that the body has no error
    /// code: an HTML page, an empty or a broken document.
    pub(crate) fn of(status: u16, code: Option<&str>) -> Self {
        let stated = code.map_or(Self::OtherwiseRefused, Self::stated_by);
        match status {
            300..=399 => Self::NotProcessed,
            // Only an OP sends these, and they end nothing.
            _ if matches!(stated, Self::Pending | Self::SlowDown) => stated,
            // Gateways answer with these after a timeout or a lost connection to the OP.
            408 | 499 | 502.. => Self::MayBeLost,
            // A gateway can replace the OP's answer by a broken document.
            200..=299 | 400 | 422 if code.is_none() => Self::MayBeLost,
            401 | 403 if code.is_none() => Self::NotProcessed,
            200..=299 | 400 | 401 | 403 | 422 => stated,
            _ if concerns_the_grant(stated) && code != Some("invalid_request") => stated,
            400..=499 => Self::NotProcessed,
            _ => Self::MayBeLost,
        }
    }

    /// The meaning of the code alone.
    fn stated_by(code: &str) -> Self {
        match code {
            "authorization_pending" => Self::Pending,
            "slow_down" => Self::SlowDown,
            "access_denied" => Self::Denied,
            "expired_token" => Self::Expired,
            "invalid_grant" | "invalid_request" => Self::GrantRefused,
            "invalid_client"
            | "unauthorized_client"
            | "unsupported_grant_type"
            | "invalid_dpop_proof"
            | "use_dpop_nonce" => Self::ClientRefused,
            "invalid_scope" => Self::ScopeRefused,
            _ => Self::OtherwiseRefused,
        }
    }

    /// Whether the grant can be sent again, because the OP has not processed it.
    pub(crate) fn keeps_the_grant(self) -> bool {
        matches!(self, Self::ClientRefused | Self::NotProcessed)
    }

    /// Whether the grant has ended permanently.
    pub(crate) fn is_end(self) -> bool {
        matches!(self, Self::Denied | Self::Expired | Self::GrantRefused)
    }
}

fn concerns_the_grant(stated: Verdict) -> bool {
    use Verdict::{ClientRefused, Denied, Expired, GrantRefused, ScopeRefused};
    matches!(stated, Denied | Expired | GrantRefused | ClientRefused | ScopeRefused)
}

#[cfg(test)]
mod tests {
    use super::Verdict::{self, *};

    /// One row for each kind of code, one column for each kind of status.
    #[test]
    fn every_status_and_every_code_has_its_verdict() {
        const SUCCESS: &[u16] = &[200, 201, 202, 206];
        const REDIRECT: &[u16] = &[301, 302, 303, 307, 308];
        const PLAIN: &[u16] = &[400, 422];
        const LOCKED: &[u16] = &[401, 403];
        const OTHER: &[u16] = &[402, 404, 405, 406, 409, 410, 411, 413, 414, 415, 418, 421, 425, 426, 428, 429, 431];
        const OWN: &[u16] = &[500, 501];
        const GATEWAY: &[u16] = &[408, 499, 502, 503, 504, 507, 520, 522, 524, 599];
        let columns = [SUCCESS, REDIRECT, PLAIN, LOCKED, OTHER, OWN, GATEWAY];
        let table: &[(&[Option<&str>], [Verdict; 7])] = &[
            (&[Some("authorization_pending")], [Pending, NotProcessed, Pending, Pending, Pending, Pending, Pending]),
            (&[Some("slow_down")], [SlowDown, NotProcessed, SlowDown, SlowDown, SlowDown, SlowDown, SlowDown]),
            (&[Some("access_denied")], [Denied, NotProcessed, Denied, Denied, Denied, Denied, MayBeLost]),
            (&[Some("expired_token")], [Expired, NotProcessed, Expired, Expired, Expired, Expired, MayBeLost]),
            (
                &[Some("invalid_grant")],
                [GrantRefused, NotProcessed, GrantRefused, GrantRefused, GrantRefused, GrantRefused, MayBeLost],
            ),
            (
                &[Some("invalid_request")],
                [GrantRefused, NotProcessed, GrantRefused, GrantRefused, NotProcessed, MayBeLost, MayBeLost],
            ),
            (
                &[
                    Some("invalid_client"),
                    Some("unauthorized_client"),
                    Some("unsupported_grant_type"),
                    Some("invalid_dpop_proof"),
                    Some("use_dpop_nonce"),
                ],
                [ClientRefused, NotProcessed, ClientRefused, ClientRefused, ClientRefused, ClientRefused, MayBeLost],
            ),
            (
                &[Some("invalid_scope")],
                [ScopeRefused, NotProcessed, ScopeRefused, ScopeRefused, ScopeRefused, ScopeRefused, MayBeLost],
            ),
            (
                &[Some("server_error"), Some("temporarily_unavailable"), Some("Not Found"), Some("")],
                [
                    OtherwiseRefused,
                    NotProcessed,
                    OtherwiseRefused,
                    OtherwiseRefused,
                    NotProcessed,
                    MayBeLost,
                    MayBeLost,
                ],
            ),
            (&[None], [MayBeLost, NotProcessed, MayBeLost, NotProcessed, NotProcessed, MayBeLost, MayBeLost]),
        ];
        for (codes, verdicts) in table {
            for (statuses, expected) in columns.iter().zip(verdicts) {
                for (status, code) in statuses.iter().flat_map(|status| codes.iter().map(move |code| (*status, *code)))
                {
                    assert_eq!(Verdict::of(status, code), *expected, "{status} {code:?}");
                }
            }
        }
    }
}
