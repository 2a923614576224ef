//! OpenID Connect Back-Channel Logout 1.0 §2.4 and §2.6: verifies the tokens with which the OP ends sessions.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use super::Client;
use crate::clock::{from_unix_seconds, saturating_add, unix_seconds};
use crate::error::{Document, Error, Rule, Violation};
use crate::id_token::numeric_date;
use crate::jose::{CompactJws, Header, NotVerified, SigningAlgorithm, Unreadable};
use crate::json::Object;
use crate::provider::Channel;

/// The member of `events` that makes a JWT a logout token (§2.4).
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// "OPs are encouraged to use short expiration times in Logout Tokens, preferably at most two minutes in the future" (§2.4).
/// Some OPs use the lifetime of another token. A used token has to be remembered until it expires.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);

/// The longest `sub`, `sid` and `jti` in characters. OpenID Connect Core 1.0 §2 says so about `sub`.
const LONGEST_VALUE: usize = 255;

/// The claims that are checked.
const CHECKED: [&str; 10] = ["iss", "sub", "aud", "exp", "iat", "nbf", "jti", "sid", "events", "nonce"];

/// A verified logout token (OpenID Connect Back-Channel Logout 1.0 §2.4): the OP ended a session, or all sessions of a
/// user. [`Client::logout_token`] makes it.
///
/// End the sessions of your application that belong to this [`issuer`](Self::issuer) and have the
/// [`sid`](Self::sid), if there is one, and the [`subject`](Self::subject), if there is one (§2.7). So a token with a
/// subject alone ends all sessions of the user. It also ends sessions that are on other devices. `sid` and subject of a
/// session are in the [`Claims`](crate::Claims) of its ID Token.
///
/// Revoke the refresh tokens of these sessions too, unless the user granted `offline_access`
/// ([`Client::revoke`](super::Client::revoke)).
///
/// `Debug` shows neither the user nor the session.
#[derive(Clone)]
pub struct LogoutToken {
    claims: Map<String, Value>,
    issued_at: SystemTime,
    expires_at: SystemTime,
    usable_until: SystemTime,
}

impl LogoutToken {
    /// `iss`: the issuer identifier of the OP.
    pub fn issuer(&self) -> &str {
        self.text("iss").unwrap_or_default()
    }

    /// `sub`: the user whose sessions have ended. `None` if the token names only a session.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// `sid`: the session at the OP that has ended. `None` if the token is about all sessions of the user.
    pub fn sid(&self) -> Option<&str> {
        self.text("sid")
    }

    /// `jti`: identifies the token at this issuer. Act on each once, and remember it until
    /// [`usable_until`](Self::usable_until).
    pub fn jti(&self) -> &str {
        self.text("jti").unwrap_or_default()
    }

    /// `iat`: when the token was issued.
    pub fn issued_at(&self) -> SystemTime {
        self.issued_at
    }

    /// `exp`: when the token expires.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// The end of the time in which this client accepts the token: [`expires_at`](Self::expires_at) and the
    /// [leeway](super::ClientBuilder::leeway).
    pub fn usable_until(&self) -> SystemTime {
        self.usable_until
    }

    /// Any claim by its name, such as `events` with further members of the OP.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }
}

impl Client {
    /// Verifies a logout token (OpenID Connect Back-Channel Logout 1.0 §2.6): the parameter `logout_token` of the form
    /// that the OP posts to the registered `backchannel_logout_uri` (§2.5). Then end the sessions that it names, and
    /// answer 200 with `Cache-Control: no-store`; answer an error with 400 unless it
    /// [is transient](Error::is_transient) (§2.8).
    ///
    /// It is verified like an ID Token: with the OP's keys, which are fetched again after a rotation, and with the
    /// algorithm and the encryption that are registered for ID Tokens. The type `typ` must be `logout+jwt`, `JWT`, or
    /// missing, because explicit typing is only recommended (§2.4). `events` must have the event of a back-channel
    /// logout and may have others.
    ///
    /// **The client does not remember tokens.** The same token verifies again until it expires. Use each
    /// [`jti`](LogoutToken::jti) once: insert it into a table with a unique index, in the transaction that ends the
    /// sessions. The routes of `openid_deferred::axum` remember tokens for one replica.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, form: &[(String, String)]) -> http::StatusCode {
    /// let token = form.iter().find(|(name, _)| name == "logout_token").map(|(_, token)| token.as_str());
    /// match client.logout_token(token.unwrap_or_default()).await {
    ///     Ok(token) => {
    ///         println!("end the sessions of {:?} with the sid {:?}", token.subject(), token.sid());
    ///         http::StatusCode::OK
    ///     }
    ///     Err(error) if error.is_transient() => http::StatusCode::SERVICE_UNAVAILABLE,
    ///     Err(_) => http::StatusCode::BAD_REQUEST,
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Protocol`](crate::ErrorKind::Protocol) with the rule that the token breaks.
    /// - A [transient](Error::is_transient) error if the token cannot be verified yet, such as
    ///   [`Rule::KeysUnavailable`].
    pub async fn logout_token(&self, token: &str) -> Result<LogoutToken, Error> {
        self.verified_logout_token(token).await.map_err(|error| error.in_step("verifying the logout token"))
    }

    /// Everything that needs no key is checked first, so that only a token for this client can cause a fetch.
    async fn verified_logout_token(&self, token: &str) -> Result<LogoutToken, Error> {
        // "If ID Token encryption was negotiated with the OP at Registration time and the Logout Token is not encrypted,
        // the RP SHOULD reject it."
        let token = self.decrypted(token, Document::LogoutToken, self.0.options.algorithms.id_token_encryption)?;
        let jws = CompactJws::parse(token.expose()).map_err(|problem| match problem {
            Unreadable::Malformed => violation(Rule::LogoutTokenMalformed),
            Unreadable::Critical => at(Rule::LogoutTokenHeader, "crit"),
            Unreadable::Repeated(parameter) => at(Rule::RepeatedMember, parameter),
        })?;
        check_type(jws.header())?;
        let object = Object::parse(jws.payload()).map_err(|_| violation(Rule::LogoutTokenMalformed))?;
        let claims = object.needing(&CHECKED).map_err(|flaw| flaw.rule(Rule::LogoutTokenMalformed));
        let claims = claims.map_err(|(rule, claim)| at(rule, claim))?.into_map();
        self.check_logout_claims(&claims)?;
        let (issued_at, expires_at) = self.logout_times(&claims)?;
        self.verify_logout_signature(&jws).await?;
        let usable_until = saturating_add(expires_at, self.0.options.leeway);
        Ok(LogoutToken { claims, issued_at, expires_at, usable_until })
    }

    fn check_logout_claims(&self, claims: &Map<String, Value>) -> Result<(), Violation> {
        if claims.get("iss").and_then(Value::as_str) != Some(self.issuer()) {
            return Err(at(Rule::LogoutTokenIssuer, "iss"));
        }
        if !self.is_logout_audience(claims.get("aud")) {
            return Err(at(Rule::LogoutTokenAudience, "aud"));
        }
        // "nonce: PROHIBITED. [...] to prevent its use as an ID Token".
        if claims.contains_key("nonce") {
            return Err(at(Rule::LogoutTokenNonce, "nonce"));
        }
        // "Its value is a JSON object containing the member name [...]. The corresponding member value MUST be a JSON
        // object". Keycloak adds a member of its own.
        let event = claims.get("events").and_then(Value::as_object).and_then(|events| events.get(EVENT));
        if !event.is_some_and(Value::is_object) {
            return Err(at(Rule::LogoutTokenEvents, "events"));
        }
        // "A Logout Token MUST contain either a sub or a sid Claim, and MAY contain both."
        let user = text(claims, "sub", Rule::LogoutTokenSubject)?;
        let session = text(claims, "sid", Rule::LogoutTokenSubject)?;
        if user.or(session).is_none() {
            return Err(at(Rule::LogoutTokenSubject, "sub"));
        }
        text(claims, "jti", Rule::LogoutTokenId)?.map(drop).ok_or_else(|| at(Rule::LogoutTokenId, "jti"))
    }

    /// As in an ID Token: this client is among the audiences, and all others are trusted.
    fn is_logout_audience(&self, audience: Option<&Value>) -> bool {
        let is_this = |one: &Value| one == self.client_id();
        let is_trusted =
            |one: &Value| is_this(one) || self.0.options.trusted_audiences.iter().any(|known| one == known);
        match audience {
            Some(Value::Array(several)) => several.iter().any(is_this) && several.iter().all(is_trusted),
            Some(one) => is_this(one),
            None => false,
        }
    }

    /// `iat` and `exp`.
    fn logout_times(&self, claims: &Map<String, Value>) -> Result<(SystemTime, SystemTime), Violation> {
        let (now, leeway) = (unix_seconds(self.0.clock.now()), self.0.options.leeway.as_secs());
        let (earliest, latest) = (now.saturating_sub(leeway), now.saturating_add(leeway));
        let life = LONGEST_LIFE.as_secs();
        let time = |name: &str| claims.get(name).and_then(numeric_date);
        let issued_at = time("iat").filter(|time| (earliest.saturating_sub(life)..=latest).contains(time));
        let issued_at = issued_at.ok_or_else(|| at(Rule::LogoutTokenIssuedAt, "iat"))?;
        let is_usable = |time: &u64| *time > earliest && *time <= latest.saturating_add(life);
        let expires_at = time("exp").filter(is_usable).ok_or_else(|| at(Rule::LogoutTokenExpired, "exp"))?;
        match claims.get("nbf").filter(|time| !time.is_null()) {
            Some(start) if numeric_date(start).is_none_or(|start| start > latest) => {
                Err(at(Rule::LogoutTokenIssuedAt, "nbf"))
            }
            _ => Ok((from_unix_seconds(issued_at), from_unix_seconds(expires_at))),
        }
    }

    /// "Validate the Logout Token signature in the same way that an ID Token signature is validated". `none` is not an
    /// accepted algorithm.
    async fn verify_logout_signature(&self, jws: &CompactJws<'_>) -> Result<(), Error> {
        let refused = violation(Rule::LogoutTokenAlgorithm);
        let algorithm = SigningAlgorithm::from_name(&jws.header().alg).ok_or(refused)?;
        let jwt = self.arrived_jwt(algorithm, Channel::Front);
        self.id_token_algorithms_for(&jwt).await?.map_err(|_| refused)?;
        let verified = self.0.provider.verify(&jwt, |keys| {
            keys.verify(jws, algorithm).map_err(|problem| {
                violation(match problem {
                    NotVerified::NoKey => Rule::LogoutTokenNoKey,
                    NotVerified::Signature => Rule::LogoutTokenSignature,
                })
            })
        });
        Ok(verified.await??)
    }
}

/// "It is RECOMMENDED that Logout Tokens be explicitly typed" (§2.4), so a token without a type is accepted. `JWT` says no
/// more than that (RFC 7519 §5.1). The type of any other JWT is refused (RFC 8725 §3.11).
fn check_type(header: &Header) -> Result<(), Violation> {
    let Some(kind) = header.typ.as_deref() else { return Ok(()) };
    // RFC 7515 §4.1.9: a media type, without regard to case, of which `application/` may be left out.
    let kind = kind.to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "logout+jwt" | "jwt" => Ok(()),
        _ => Err(at(Rule::LogoutTokenHeader, "typ")),
    }
}

/// A claim that is a text of a certain length. `null` counts as absent.
fn text<'a>(claims: &'a Map<String, Value>, name: &'static str, rule: Rule) -> Result<Option<&'a str>, Violation> {
    match claims.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if (1..=LONGEST_VALUE).contains(&text.chars().count()) => Ok(Some(text)),
        Some(_) => Err(at(rule, name)),
    }
}

fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::LogoutToken)
}

fn at(rule: Rule, claim: &'static str) -> Violation {
    violation(rule).at_member(claim)
}

impl fmt::Debug for LogoutToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("LogoutToken")
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .field("issued_at", &self.issued_at)
            .finish_non_exhaustive()
    }
}
