//! RFC 6749 §6 and OpenID Connect Core 1.0 §12: gets new tokens with the refresh token of an earlier outcome.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::Client;
use super::authentication::{Body, TokenType};
use super::issued_tokens;
use super::refreshed::Refreshed;
use super::revoke::{Revocation, tokens_to_revoke};
use super::setting::setting;
use super::token_holder::{HeldTokens, HeldTokensMut, Holder, TokenHolder};
use super::token_response::{Binding, KEYS_PATIENCE, TOKEN_RESPONSE_LIMIT, Tokens, final_violation, not_interim};
use crate::clock::Clock;
use crate::dpop::DpopKey;
use crate::endpoint::{Answer, ClientIdentity, EndpointRequest, Endpoints, ErrorAnswer, Failure};
use crate::error::{Document, Error, ErrorKind, Misuse, Verdict, Violation};
use crate::id_token::{self, IdToken};
use crate::pending::{Checks, is_given_up};
use crate::secret::Secret;

mod flight;

pub(super) use flight::Flights;

const STEP: &str = "refreshing the tokens";

impl Client {
    /// Gets new tokens with the refresh token, bound to the same DPoP key, and stores them in `tokens`: those of a
    /// sign-in, or those of a grant without a user.
    ///
    /// If the answer has a refresh token, it replaces the old one; otherwise the old one stays. Seal and store the
    /// tokens again at once: an OP that replaces refresh tokens treats a second use of the old one as theft.
    ///
    /// Callers that refresh the same tokens at the same time, each with its own copy, share one request and its answer.
    /// So does a copy that is refreshed up to a minute later, or after a caller was dropped during the request. Several
    /// programs must coordinate this themselves, for example with a lock in their database.
    ///
    /// A new ID Token is compared with that of the sign-in: it must be about the same user and the same authentication
    /// (OpenID Connect Core 1.0 §12.2). For a grant without a user it is ignored.
    ///
    /// ```
    /// # use openid_deferred::{Authentication, Client, Error, ErrorKind};
    /// # async fn example(client: &Client, authentication: &mut Authentication) -> Result<(), Error> {
    /// match client.refresh(authentication).await {
    ///     Ok(()) => {} // seal and store `authentication`
    ///     Err(error) if error.is_transient() => {} // later again; store it all the same
    ///     Err(error) if error.error_response().is_some_and(|answer| answer.code() == "invalid_grant") => {
    ///         // expired, revoked or used before: the user has to sign in again
    ///     }
    ///     Err(error) => return Err(error),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// Without a user, the request is repeated if there is no refresh token, or no longer a valid one:
    ///
    /// ```
    /// # use openid_deferred::{Client, Error, Grant, IssuedTokens, TokenAnswer};
    /// # async fn example(client: &Client, tokens: &mut IssuedTokens) -> Result<(), Error> {
    /// if tokens.refresh_token().is_some() {
    ///     client.refresh(tokens).await?; // seal and store `tokens`
    /// } else if let TokenAnswer::Complete(new) = client.token_request(Grant::client_credentials()).send().await? {
    ///     *tokens = new;
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// After an error the tokens are still the old ones. [`is_transient`](Error::is_transient) states whether to try
    /// again.
    ///
    /// - [`Transport`](ErrorKind::Transport): nothing was sent.
    /// - [`OutcomeUnknown`](ErrorKind::OutcomeUnknown): the request may have been processed and the answer is lost. It
    ///   is transient, because nothing else can be done but to try again. An OP that replaces refresh tokens may then
    ///   answer `invalid_grant`.
    /// - [`ErrorResponse`](ErrorKind::ErrorResponse): the OP refused. After `invalid_grant` the user has to sign in
    ///   again, or the grant has to be requested again.
    /// - [`Protocol`](ErrorKind::Protocol): the answer broke a rule. If the error is transient, such as
    ///   [`Rule::KeysUnavailable`](crate::error::Rule::KeysUnavailable), the answer is kept in the authentication, also
    ///   when it is sealed. The next call validates it again without a request. It is kept for 24 hours and at least
    ///   200 attempts, whichever ends later. Calls in quick succession count as one attempt: at first they must be a
    ///   second apart, and in a long outage ten minutes. If the error is not transient, or after that time, the new
    ///   tokens are revoked.
    /// - [`Misuse`](ErrorKind::Misuse): there is no refresh token, or the tokens belong to another client.
    pub async fn refresh(&self, tokens: &mut impl TokenHolder) -> Result<(), Error> {
        let HeldTokensMut(holder) = tokens.tokens_mut();
        let key = holder.tokens().dpop_key.cloned();
        self.refresh_with(holder, async |_| Ok(key)).await
    }

    /// Like [`refresh`](Self::refresh), with a new DPoP key that the new tokens are bound to.
    ///
    /// This requires that the client authenticates: its refresh tokens are then bound to the client and not to the key
    /// (RFC 9449 §5).
    ///
    /// Callers that ask for a new key at the same time share one request and one new key. There may be a
    /// [`refresh`](Self::refresh) of the same tokens that is in flight or has just ended, or an answer to one in
    /// `tokens`. Then this call takes its tokens first, and refreshes them with the new key.
    ///
    /// # Errors
    ///
    /// The errors of [`refresh`](Self::refresh), and [`Configuration`](ErrorKind::Configuration) for a public client or
    /// one without DPoP.
    ///
    /// After an error the tokens are bound to the old key. They can be newer than before if another refresh returned
    /// them, so seal and store them after an error too.
    pub async fn refresh_with_new_key(&self, tokens: &mut impl TokenHolder) -> Result<(), Error> {
        const SETTING: &str = "refresh_with_new_key";
        if self.identity().await?.authentication.method() == "none" {
            return Err(setting(SETTING, "the refresh tokens of a public client are bound to their key"));
        }
        let new_key = async |client: &Self| {
            let metadata = client.0.provider.metadata().await?;
            let key = client.new_dpop_key(&metadata).await?;
            key.map(Some).ok_or_else(|| setting(SETTING, "DPoP is off"))
        };
        let thumbprint = |tokens: HeldTokens<'_>| tokens.dpop_key.map(|key| key.thumbprint().to_owned());
        let old = thumbprint(tokens.tokens());
        loop {
            let HeldTokensMut(holder) = tokens.tokens_mut();
            self.refresh_with(holder, new_key).await?;
            // Tokens bound to the old key come from the request of another caller. The loop ends after a request of
            // this one.
            if thumbprint(tokens.tokens()) != old {
                return Ok(());
            }
        }
    }

    async fn refresh_with(
        &self,
        holder: Holder<'_>,
        key: impl AsyncFnOnce(&Self) -> Result<Option<DpopKey>, Error>,
    ) -> Result<(), Error> {
        let tokens = holder.tokens();
        self.check_ownership(tokens.issuer, tokens.client_id)?;
        let refresh_token = tokens.refresh_token.cloned();
        let request = async {
            let refresh_token = refresh_token.ok_or(Misuse::NoRefreshToken)?;
            let key = key(self).await?;
            self.request_refresh(refresh_token, key).await
        };
        let refreshed = async {
            match holder {
                Holder::SignedIn(body) => {
                    if body.refreshed.is_none() {
                        body.refreshed = Some(request.await?);
                    }
                    self.conclude_refresh(body).await
                }
                // Its validation needs no keys of the OP, so the answer is never kept.
                Holder::Issued(body) => self.conclude_refresh_without_user(body, &request.await?).await,
            }
        };
        refreshed.await.map_err(|error| error.in_step(STEP))
    }

    /// Sends the request, or waits for the one that is already in flight.
    async fn request_refresh(&self, refresh_token: Secret, dpop_key: Option<DpopKey>) -> Result<Refreshed, Error> {
        let metadata = self.0.provider.metadata().await?;
        let identity = self.identity_at(&metadata)?.clone();
        let urls = self.endpoints(&metadata, &identity);
        let (url, revocation) = (urls.token()?.clone(), urls.revocation().ok().cloned());
        let request = Request {
            endpoints: self.0.endpoints.clone(),
            clock: self.0.clock.clone(),
            assertion_audience: self.assertion_audience(&metadata).map(str::to_owned),
            identity,
            url,
            revocation,
            timeout: self.0.options.request_timeout,
            dpop_key,
        };
        let (flights, clock) = (&self.0.refreshes, &*self.0.clock);
        flights.join(clock, &refresh_token, |refresh_token| request.send(refresh_token)).await
    }

    /// Validates the stored answer as of the time of its receipt, and takes its tokens.
    async fn conclude_refresh(&self, body: &mut Body) -> Result<(), Error> {
        let Some(refreshed) = &body.refreshed else { return Ok(()) };
        let judged = self.judge_refresh(body, refreshed).await;
        let Some(mut refreshed) = body.refreshed.take() else { return Ok(()) };
        let judged = match judged {
            Ok(judged) => judged,
            Err(error) => {
                let now = self.0.clock.now();
                let waited = now.duration_since(refreshed.received_at).unwrap_or(Duration::ZERO);
                refreshed.count_failure(now, error.retry_after());
                if !is_given_up(waited, refreshed.attempts) {
                    body.refreshed = Some(refreshed);
                    return Err(error.transient());
                }
                Err(final_violation(&error))
            }
        };
        let (tokens, id_token) = match judged {
            Ok(judged) => judged,
            Err(violation) => return Err(self.refuse_refresh(violation, &refreshed).await),
        };
        let Binding { certificate_bound, is_kept } = self.binding(&tokens, refreshed.dpop_key.as_ref());
        if !is_kept {
            self.revoke_quietly(&refreshed.body, refreshed.dpop_key.as_ref()).await;
        }
        body.received_at = refreshed.received_at;
        body.access_token = tokens.usable().filter(|_| is_kept).cloned();
        body.token_type = tokens.token_type.unwrap_or(TokenType::Bearer);
        body.refresh_token = tokens.refresh_token.or(body.refresh_token.take()).filter(|_| is_kept);
        body.expires_in = tokens.expires_in;
        tokens.scope.replace(&mut body.scope, &mut body.scope_unknown);
        body.authorization_details = tokens.authorization_details.or(body.authorization_details.take());
        body.extra = tokens.rest;
        body.dpop_key = refreshed.dpop_key;
        body.certificate_bound = certificate_bound;
        if let Some(id_token) = id_token {
            body.refreshed_id_token = Some(id_token);
        }
        Ok(())
    }

    /// The same for the tokens of a grant without a user. An ID Token in the answer is ignored.
    async fn conclude_refresh_without_user(
        &self,
        body: &mut issued_tokens::Body,
        refreshed: &Refreshed,
    ) -> Result<(), Error> {
        let Refreshed { body: answer, received_at, dpop_key, .. } = refreshed;
        match self.issued(answer, *received_at, dpop_key.as_ref()) {
            Ok(tokens) => body.renew(tokens),
            Err(violation) => return Err(self.refuse_refresh(violation, refreshed).await),
        }
        Ok(())
    }

    /// Revokes the tokens of an answer that is not valid.
    async fn refuse_refresh(&self, violation: Violation, refreshed: &Refreshed) -> Error {
        tracing::warn!(rule = violation.rule().code(), "the response to a refresh is not valid");
        self.revoke_quietly(&refreshed.body, refreshed.dpop_key.as_ref()).await;
        Error::new(violation).permanent()
    }

    /// The outer error is transient, the inner one is not.
    async fn judge_refresh(
        &self,
        body: &Body,
        refreshed: &Refreshed,
    ) -> Result<Result<(Tokens, Option<IdToken>), Violation>, Error> {
        let tokens = match Tokens::parse(&refreshed.body).and_then(Tokens::with_usable_access_token) {
            Ok(tokens) => tokens,
            Err(violation) => return Ok(Err(violation)),
        };
        let Some(token) = &tokens.id_token else { return Ok(Ok((tokens, None))) };
        if let Err(violation) = not_interim(token, body.interim_fingerprint.as_ref()) {
            return Ok(Err(violation));
        }
        let checks = Checks::of_a_refresh(refreshed.received_at);
        let verified = self.verify_id_token(token, refreshed.received_at, KEYS_PATIENCE, |token, keys, algorithms| {
            let mut expectations =
                self.expectations(&checks, algorithms, tokens.access_token.as_ref(), refreshed.received_at);
            expectations.interim_fingerprint = body.interim_fingerprint.as_ref();
            id_token::verify_refreshed(token, &body.id_token, keys, &expectations)
        });
        Ok(verified.await?.map(|id_token| (tokens, Some(id_token))))
    }
}

/// Everything that a request needs, so that it can outlive the call that started it.
struct Request {
    endpoints: Arc<Endpoints>,
    clock: Arc<dyn Clock>,
    identity: ClientIdentity,
    assertion_audience: Option<String>,
    url: Url,
    /// The revocation endpoint, if there is one, for tokens that came with a refusal.
    revocation: Option<Url>,
    timeout: Duration,
    dpop_key: Option<DpopKey>,
}

impl Request {
    async fn send(self, refresh_token: Secret) -> Result<Refreshed, Error> {
        let request = EndpointRequest {
            url: &self.url,
            document: Document::TokenResponse,
            form: vec![
                ("grant_type", Cow::Borrowed("refresh_token")),
                ("refresh_token", refresh_token.expose().into()),
            ],
            client: &self.identity,
            assertion_audience: self.assertion_audience.as_deref(),
            dpop: self.dpop_key.as_ref(),
            access_token: None,
            trace_parent: None,
            timeout: self.timeout,
            body_limit: TOKEN_RESPONSE_LIMIT,
        };
        match self.endpoints.post(request).await {
            Ok(Answer::Success { body, .. }) => Ok(Refreshed::new(body, self.clock.now(), self.dpop_key)),
            Ok(Answer::Error(answer)) => Err(self.refused(answer).await),
            Ok(Answer::Unusable { violation, verdict, retry_after, .. }) => {
                let error = Error::new(violation).transient();
                let error = if verdict == Verdict::MayBeLost { unknown(error) } else { error };
                Err(error.with_retry_after(retry_after))
            }
            Err(Failure { error, may_have_been_sent: true }) => Err(unknown(error)),
            Err(Failure { error, may_have_been_sent: false }) => Err(error),
        }
    }

    /// The error for an unsuccessful answer. Tokens that came with it are revoked.
    async fn refused(&self, answer: ErrorAnswer) -> Error {
        let tokens = answer.tokens().map(tokens_to_revoke).unwrap_or_default();
        if let (false, Some(url)) = (tokens.is_empty(), &self.revocation) {
            let revocation = Revocation {
                url,
                client: &self.identity,
                assertion_audience: self.assertion_audience.as_deref(),
                dpop_key: self.dpop_key.as_ref(),
                timeout: self.timeout,
            };
            revocation.send_quietly(&self.endpoints, &tokens).await;
        }
        let is_lost = answer.response.verdict() == Verdict::MayBeLost;
        let error = Error::new(answer.response);
        let error = if is_lost { unknown(error) } else { error };
        error.with_retry_after(answer.retry_after)
    }
}

fn unknown(error: Error) -> Error {
    Error::new(ErrorKind::OutcomeUnknown).transient().with_source(error)
}
