//! OpenID Connect Core 1.0 §3.1.3.3 and §3.1.3.5: parses a final token response and makes an [`Authentication`] of it.

use std::error::Error as _;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::Client;
use super::authentication::{self, Authentication, TokenType};
use crate::dpop::DpopKey;
use crate::error::{Document, Error, ErrorKind, Rule, Violation};
use crate::id_token::{self, IdToken, InterimFingerprint, InterimState};
use crate::jose::{KeySet, SigningAlgorithm};
use crate::json::seconds::{Rounding, seconds};
use crate::json::{Members, Object};
use crate::pending::Checks;
use crate::provider::{Channel, SignedJwt};
use crate::sealed::Sealable as _;
use crate::secret::Secret;

/// How long a call that a user waits for waits for the OP's keys before it reports them as unavailable.
pub(super) const KEYS_PATIENCE: Duration = Duration::from_secs(8);

/// A token response with large ID Tokens has tens of kilobytes.
pub(super) const TOKEN_RESPONSE_LIMIT: usize = 1024 * 1024;

/// A final token response as it was received, with everything that it is checked against.
pub(super) struct ReceivedTokens<'a> {
    pub(super) body: &'a [u8],
    pub(super) received_at: SystemTime,
    pub(super) dpop_key: Option<&'a DpopKey>,
    pub(super) interim: &'a InterimState,
    pub(super) interim_fingerprint: Option<&'a InterimFingerprint>,
    /// How long its caller can wait for the OP's keys.
    pub(super) patience: Duration,
    /// The authorization code that was exchanged for them, if they came at once.
    pub(super) code: Option<&'a Secret>,
}

/// The members as they were received.
#[derive(Deserialize)]
struct TokenResponse {
    access_token: Option<Value>,
    token_type: Option<Value>,
    id_token: Option<Value>,
    refresh_token: Option<Value>,
    expires_in: Option<Value>,
    scope: Option<Value>,
    authorization_details: Option<Value>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Client {
    /// Verifies a final token response. The outer error is transient, such as unavailable keys. The inner one is a
    /// response that will never be valid.
    pub(super) async fn authenticate(
        &self,
        checks: &Checks,
        received: ReceivedTokens<'_>,
    ) -> Result<Result<Authentication, Violation>, Error> {
        let tokens = match Tokens::parse(received.body) {
            Ok(tokens) => tokens,
            Err(violation) => return Ok(Err(violation)),
        };
        let id_token = match self.verify(checks, &received, &tokens).await? {
            Ok(id_token) => id_token,
            Err(violation) => return Ok(Err(violation)),
        };
        let Binding { certificate_bound, is_kept } = self.binding(&tokens, received.dpop_key);
        if !is_kept {
            self.revoke_quietly(received.body, received.dpop_key).await;
        }
        Ok(Ok(Authentication::new(authentication::Body {
            version: authentication::Body::VERSION,
            issuer: self.issuer().to_owned(),
            client_id: self.client_id().to_owned(),
            received_at: received.received_at,
            id_token,
            token_type: tokens.token_type.unwrap_or(TokenType::Bearer),
            access_token: tokens.usable().filter(|_| is_kept).cloned(),
            refresh_token: tokens.refresh_token.filter(|_| is_kept),
            expires_in: tokens.expires_in,
            scope_unknown: tokens.scope == Scope::Unknown,
            scope: tokens.scope.listed(),
            authorization_details: tokens.authorization_details,
            extra: tokens.rest,
            dpop_key: received.dpop_key.cloned(),
            certificate_bound,
            after_cancellation: false,
            context: Zeroizing::default(),
            refreshed_id_token: None,
            interim_fingerprint: received.interim_fingerprint.cloned(),
            refreshed: None,
        })))
    }

    /// How the tokens of a response to a request with this key are bound.
    pub(super) fn binding(&self, tokens: &Tokens, dpop_key: Option<&DpopKey>) -> Binding {
        let options = &self.0.options;
        let is_without_key = tokens.are_dpop() && dpop_key.is_none();
        if is_without_key {
            tracing::warn!(
                "the OP answered with `token_type` `DPoP` to a request without a proof; the token cannot be used"
            );
        }
        // The binding inside the OP's token is for resource servers. The registration says that it is there.
        let certificate_bound = options.certificate_bound_access_tokens && dpop_key.is_none() && !is_without_key;
        let key_bound = tokens.are_dpop() && dpop_key.is_some();
        Binding { certificate_bound, is_kept: key_bound || certificate_bound || !options.drop_unbound_tokens }
    }

    async fn verify(
        &self,
        checks: &Checks,
        received: &ReceivedTokens<'_>,
        tokens: &Tokens,
    ) -> Result<Result<IdToken, Violation>, Error> {
        let Some(token) = &tokens.id_token else {
            let violation = Violation::new(Rule::NoIdToken).in_document(Document::TokenResponse);
            return Ok(Err(violation.at_member("id_token")));
        };
        if let Err(violation) = not_interim(token, received.interim_fingerprint) {
            return Ok(Err(violation));
        }
        let verified =
            self.verify_id_token(token, received.received_at, received.patience, |token, keys, algorithms| {
                let mut expectations =
                    self.expectations(checks, algorithms, tokens.access_token.as_ref(), received.received_at);
                expectations.code = received.code;
                expectations.interim_fingerprint = received.interim_fingerprint;
                expectations.interim_claims = received.interim.verified().map(|interim| interim.claims());
                if !self.0.options.allow_changed_subject {
                    expectations.interim_subject = expectations.interim_claims.map(|claims| claims.subject());
                }
                id_token::verify_final(token, keys, &expectations)
            });
        verified.await
    }

    /// A signed document that has just arrived, and that a user waits for.
    pub(super) fn arrived_jwt(&self, algorithm: SigningAlgorithm, channel: Channel) -> SignedJwt {
        let (secret, received_at) = (self.client_secret(), self.0.clock.now());
        SignedJwt { algorithm, secret, received_at, channel, patience: KEYS_PATIENCE }
    }

    /// Decrypts an ID Token and verifies its content with `verify`, which gets the keys that may have signed it and the
    /// algorithms that it may use. The outer error is transient, the inner one is not.
    pub(super) async fn verify_id_token<T>(
        &self,
        token: &Secret,
        received_at: SystemTime,
        patience: Duration,
        verify: impl Fn(&str, &KeySet, &[SigningAlgorithm]) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        let token = match self.decrypted_id_token(token) {
            Ok(token) => token,
            // Another instance of the application may have the key.
            Err(violation) if violation.rule() == Rule::NoDecryptionKey => return Err(Error::new(violation)),
            Err(violation) => return Ok(Err(violation)),
        };
        self.verify_signed_id_token(token.expose(), received_at, patience, verify).await
    }

    /// The same for an ID Token that is not encrypted, or was decrypted already.
    pub(super) async fn verify_signed_id_token<T>(
        &self,
        token: &str,
        received_at: SystemTime,
        patience: Duration,
        verify: impl Fn(&str, &KeySet, &[SigningAlgorithm]) -> Result<T, Violation>,
    ) -> Result<Result<T, Violation>, Error> {
        let algorithm = match id_token::header(token) {
            Ok((algorithm, _)) => algorithm,
            Err(violation) => return Ok(Err(violation)),
        };
        let secret = self.client_secret();
        let jwt = SignedJwt { algorithm, secret, received_at, channel: Channel::Back, patience };
        let algorithms = match self.id_token_algorithms_for(&jwt).await? {
            Ok(algorithms) => algorithms,
            Err(violation) => return Ok(Err(violation)),
        };
        match self.0.provider.verify(&jwt, |keys| verify(token, keys, &algorithms)).await? {
            // The OP may be rotating its keys, so this is not final yet.
            Err(violation) if violation.rule() == Rule::IdTokenNoKey => Err(Error::new(violation).transient()),
            verified => Ok(verified),
        }
    }
}

/// Checks that a token is not the interim one. This is also checked before decryption, because an interim token may be
/// encrypted for a key that this client does not have.
pub(super) fn not_interim(token: &Secret, interim: Option<&InterimFingerprint>) -> Result<(), Violation> {
    match interim.is_some_and(|interim| interim.is_of(token.expose())) {
        true => Err(Violation::new(Rule::InterimIdTokenAsFinal).in_document(Document::IdToken)),
        false => Ok(()),
    }
}

/// The rule that a token response broke, if it could not be validated in all the time that it was kept.
pub(super) fn final_violation(error: &Error) -> Violation {
    let below = || error.source().and_then(|source| source.downcast_ref::<Error>()).map(final_violation);
    match error.kind() {
        ErrorKind::Protocol(violation) => match violation.rule() {
            Rule::KeysOutdated => below().unwrap_or(*violation),
            // It is unknown whether the OP lists the algorithm by now.
            Rule::MetadataOutdated => Violation::new(Rule::IdTokenAlgorithm).in_document(Document::IdToken),
            Rule::NoDecryptionKey | Rule::NoUsableKey => *violation,
            rule if rule.depends_on_keys() => *violation,
            _ => Violation::new(Rule::KeysUnavailable),
        },
        _ => Violation::new(Rule::KeysUnavailable),
    }
}

/// How tokens are bound.
pub(super) struct Binding {
    /// Bound to the client certificate, as was registered. Tokens that the OP calls DPoP-bound are not.
    pub(super) certificate_bound: bool,
    /// Whether the client keeps them: they are bound, or it need not drop unbound ones.
    pub(super) is_kept: bool,
}

/// The members of a token response that this crate reads.
pub(super) struct Tokens {
    /// `None` if it is missing or not a string. Use [`usable`](Self::usable) to get a token that may be used.
    pub(super) access_token: Option<Secret>,
    /// `None` if it is missing or unknown.
    pub(super) token_type: Option<TokenType>,
    /// The `token_type` says that the issued token is not an access token (RFC 8693 §2.2.1).
    pub(super) is_no_access_token: bool,
    /// A refresh may come without one (OpenID Connect Core 1.0 §12.2).
    pub(super) id_token: Option<Secret>,
    pub(super) refresh_token: Option<Secret>,
    pub(super) expires_in: Option<Duration>,
    pub(super) scope: Scope,
    pub(super) authorization_details: Option<Value>,
    pub(super) rest: Map<String, Value>,
}

impl Tokens {
    /// Parses a response of which the ID Token is not used.
    pub(super) fn parse_without_id_token(body: &[u8]) -> Result<Self, Violation> {
        let mut members = Object::read(body, Document::TokenResponse, &["access_token", "token_type"])?;
        if let Some(Value::String(mut token)) = members.shift_remove("id_token") {
            token.zeroize();
        }
        Self::of(members)
    }

    pub(super) fn parse(body: &[u8]) -> Result<Self, Violation> {
        Self::of(Object::read(body, Document::TokenResponse, &["access_token", "token_type", "id_token"])?)
    }

    fn of(members: Members) -> Result<Self, Violation> {
        const DOCUMENT: Document = Document::TokenResponse;
        let response = TokenResponse::deserialize(members.into_map())
            .map_err(|error| Violation::malformed_json(DOCUMENT, &error))?;
        let text = |value| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        let token_type = text(response.token_type);
        Ok(Self {
            is_no_access_token: token_type.as_deref().is_some_and(|name| name.eq_ignore_ascii_case("N_A")),
            id_token: match response.id_token {
                None | Some(Value::Null) => None,
                Some(Value::String(token)) if !token.is_empty() => Some(Secret::new(token)),
                _ => return Err(Violation::new(Rule::NoIdToken).in_document(DOCUMENT).at_member("id_token")),
            },
            access_token: text(response.access_token).map(Secret::new),
            // RFC 6749 §5.1: the value is case insensitive.
            token_type: token_type.and_then(|name| match name {
                name if name.eq_ignore_ascii_case("DPoP") => Some(TokenType::Dpop),
                name if name.eq_ignore_ascii_case("Bearer") => Some(TokenType::Bearer),
                _ => None,
            }),
            refresh_token: text(response.refresh_token).map(Secret::new),
            // An invalid lifetime is no reason to refuse a user. It is omitted, as RFC 6749 §5.1 allows the OP to do.
            expires_in: seconds(response.expires_in.as_ref(), "expires_in", Rounding::Down),
            scope: Scope::read(response.scope),
            authorization_details: response.authorization_details.filter(are_details),
            rest: response.rest,
        })
    }

    /// Refuses a response without an access token of a known type, if the access token is what was requested.
    pub(super) fn with_usable_access_token(self) -> Result<Self, Violation> {
        let (rule, member) = match (&self.access_token, self.token_type) {
            (Some(_), Some(_)) => return Ok(self),
            (None, _) => (Rule::NoAccessToken, "access_token"),
            (Some(_), None) => (Rule::UnknownTokenType, "token_type"),
        };
        Err(Violation::new(rule).in_document(Document::TokenResponse).at_member(member))
    }

    /// The access token, if it may be used. RFC 6749 §7.1: "The client MUST NOT use an access token if it does not
    /// understand the token type."
    pub(super) fn usable(&self) -> Option<&Secret> {
        let usable = self.access_token.as_ref().filter(|_| self.token_type.is_some());
        if usable.is_none() {
            tracing::warn!(
                "the OP's response has no access token of a known `token_type`; only the identity is available"
            );
        }
        usable
    }

    /// Whether the OP calls the access token DPoP-bound.
    pub(super) fn are_dpop(&self) -> bool {
        self.token_type == Some(TokenType::Dpop)
    }
}

/// The `scope` of a response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// "OPTIONAL, if identical to the scope requested by the client" (RFC 6749 §5.1).
    Absent,
    Listed(String),
    /// There is one, and it names no scopes.
    Unknown,
}

impl Scope {
    /// A string, or an array of strings, which some OPs send instead.
    pub(super) fn read(value: Option<Value>) -> Self {
        let listed = match value {
            None | Some(Value::Null) => return Self::Absent,
            Some(Value::String(scope)) => Some(scope),
            Some(Value::Array(scopes)) => {
                scopes.iter().map(Value::as_str).collect::<Option<Vec<_>>>().map(|scopes| scopes.join(" "))
            }
            Some(_) => None,
        };
        match listed.filter(|scope| !scope.trim().is_empty()) {
            Some(scope) => Self::Listed(scope),
            None => {
                tracing::warn!("the OP sent an empty or malformed `scope`; it counts as unknown");
                Self::Unknown
            }
        }
    }

    pub(super) fn listed(self) -> Option<String> {
        match self {
            Self::Listed(scope) => Some(scope),
            Self::Absent | Self::Unknown => None,
        }
    }

    /// Replaces the earlier scope. RFC 6749 §6: if a refresh omits it, the earlier scope stays.
    pub(super) fn replace(self, listed: &mut Option<String>, unknown: &mut bool) {
        if self != Self::Absent {
            *unknown = self == Self::Unknown;
            *listed = self.listed();
        }
    }
}

/// RFC 9396 §7: an array, as in the request. Any other value grants nothing that an application could read.
fn are_details(details: &Value) -> bool {
    if !details.is_array() {
        tracing::warn!("the OP's `authorization_details` are not an array; they are ignored");
    }
    details.is_array()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(json: Value) -> Rule {
        let tokens = Tokens::parse(json.to_string().as_bytes()).and_then(Tokens::with_usable_access_token);
        tokens.err().unwrap().rule()
    }

    #[test]
    fn an_id_token_that_is_not_a_string_is_refused() {
        assert_eq!(rule(json!({"access_token": "a", "token_type": "DPoP", "id_token": ""})), Rule::NoIdToken);
        assert_eq!(rule(json!({"access_token": "a", "token_type": "DPoP", "id_token": 7})), Rule::NoIdToken);
    }

    #[test]
    fn a_refresh_needs_an_access_token_of_a_known_type() {
        assert_eq!(rule(json!({"id_token": "i", "token_type": "DPoP"})), Rule::NoAccessToken);
        assert_eq!(rule(json!({"id_token": "i", "access_token": "a"})), Rule::UnknownTokenType);
        assert_eq!(rule(json!({"id_token": "i", "access_token": "a", "token_type": "mac"})), Rule::UnknownTokenType);
    }

    #[test]
    fn token_type_is_case_insensitive_and_expires_in_and_scope_may_be_missing_or_empty() {
        for token_type in ["dpop", "DPOP", "DPoP"] {
            let json = json!({"id_token": "i", "access_token": "a", "token_type": token_type, "scope": ""});
            let tokens = Tokens::parse(json.to_string().as_bytes()).unwrap();
            let expected = (Some(TokenType::Dpop), Scope::Unknown, None);
            assert_eq!((tokens.token_type, tokens.scope, tokens.expires_in), expected);
        }
    }

    #[test]
    fn a_scope_is_listed_absent_or_unknown() {
        let listed = |scope: &str| Scope::Listed(scope.to_owned());
        for (value, expected) in [
            (json!("openid profile"), listed("openid profile")),
            (json!(["openid", "profile"]), listed("openid profile")),
            (json!(["openid profile"]), listed("openid profile")),
            (Value::Null, Scope::Absent),
            (json!(""), Scope::Unknown),
            (json!(" "), Scope::Unknown),
            (json!([]), Scope::Unknown),
            (json!([""]), Scope::Unknown),
            (json!(["openid", 7]), Scope::Unknown),
            (json!(true), Scope::Unknown),
            (json!({ "openid": true }), Scope::Unknown),
        ] {
            assert_eq!(Scope::read(Some(value.clone())), expected, "{value}");
        }
        assert_eq!(Scope::read(None), Scope::Absent);
    }
}
