//! The settings of the IETF dialect.

use std::time::Duration;

use super::builder::TestProviderBuilder;
use super::dialect::Dialects;
use super::settings::DiscoveryForm;

impl TestProviderBuilder {
    /// Speaks OAuth 2.0 Deferred Token Response, the draft of the IETF, instead of the OpenID draft.
    ///
    /// A token request with `completion_mode=deferred` is answered with `authorization_pending` and a `deferral_code`,
    /// which the client polls with. The grants are `authorization_code`, `client_credentials`, token exchange
    /// ([`subject_token`](super::TestProvider::subject_token)) and JWT bearer
    /// ([`assertion`](super::TestProvider::assertion)). Decisions, faults, callbacks and recorded requests are those of
    /// the OpenID draft.
    ///
    /// ```
    /// use openid_deferred::testing::{DecisionPolicy, TestClient, TestProvider};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// let op = TestProvider::builder()
    ///     .ietf()
    ///     .client(TestClient::secret_basic("my-service", "s3cret"))
    ///     .decisions(DecisionPolicy::after_polls(2))
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn ietf(mut self) -> Self {
        self.settings.dialects = Dialects { openid: false, ietf: true, ..self.settings.dialects };
        self
    }

    /// Speaks both drafts. The client chooses with its requests.
    pub fn both_dialects(mut self) -> Self {
        self.settings.dialects = Dialects { openid: true, ietf: true, ..self.settings.dialects };
        self
    }

    /// Answers token requests that may be deferred (IETF dialect) with the tokens at once.
    pub fn answers_at_once(mut self) -> Self {
        self.settings.ietf.answers_at_once = true;
        self
    }

    /// Defers token requests (IETF dialect) only for amounts above this limit.
    ///
    /// The amount is the largest `instructedAmount.amount` in the `authorization_details`, a number or a text. Up to the
    /// limit the request is answered at once. A request without an amount is deferred.
    pub fn defers_above(mut self, limit: u64) -> Self {
        self.settings.ietf.limit = Some(limit);
        self
    }

    /// Requires the user in every deferred process (IETF dialect).
    ///
    /// The deferred response and the polls are `interaction_required` with an `interaction_uri`. When the URI is opened,
    /// polls are answered with `interaction_pending`. The page has buttons to approve and to deny; a test can use
    /// [`open_interaction`](super::TestProvider::open_interaction) instead. A
    /// [`DecisionPolicy`](super::DecisionPolicy) decides nothing until
    /// [`TestProcess::resume`](super::TestProcess::resume).
    pub fn requires_interaction(mut self) -> Self {
        self.settings.ietf.requires_interaction = true;
        self
    }

    /// Issues refresh tokens for grants without a user too (IETF dialect). By default it does not, as RFC 6749 §4.4.3
    /// advises for client credentials.
    pub fn refresh_tokens_for_all_grants(mut self) -> Self {
        self.settings.ietf.refreshes_all_grants = true;
        self
    }

    /// Repeats `deferral_code`, `interval` and the remaining `expires_in` in pending answers to polls, as some servers
    /// do.
    pub fn repeats_members(mut self) -> Self {
        self.settings.ietf.repeats_members = true;
        self
    }

    /// Cannot revoke deferral codes: the metadata does not list their type, and their revocation is answered with 200
    /// and does nothing.
    pub fn without_deferral_code_revocation(mut self) -> Self {
        self.settings.ietf.cannot_revoke_codes = true;
        self
    }

    /// Behaves like the demo of the IETF draft's authors, in addition to [`ietf`](Self::ietf).
    ///
    /// - Metadata is served in the form of RFC 8414 only, and has neither `jwks_uri` nor `authorization_endpoint`.
    /// - Failed client authentication is answered with 400 and `invalid_request`.
    /// - `expires_in` is 600 and `interval` is 4.
    /// - A poll is checked in the order `invalid_grant`, `expired_token`, `slow_down`, result. An early poll is slowed
    ///   down even if the result is there.
    /// - JWT bearer begins with `interaction_required`, whose answers to polls repeat code, interval and lifetime.
    /// - Client credentials are deferred only with `authorization_details`. Add
    ///   [`defers_above`](Self::defers_above) for its limit.
    pub fn like_the_demo(mut self) -> Self {
        self.settings.ietf.is_the_demo = true;
        self.settings.discovery = DiscoveryForm::OAuth;
        self.ietf().expires_in(Duration::from_secs(600)).interval(Duration::from_secs(4))
    }
}
