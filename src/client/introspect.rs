//! RFC 7662: asks the OP about a token.

use std::fmt;
use std::time::SystemTime;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Client;
use super::revoke::{TokenTypeHint, token_form};
use super::token_response::Scope;
use crate::clock::from_unix_seconds;
use crate::endpoint::{Answer, EndpointRequest};
use crate::error::{Document, Error, Rule, Violation};
use crate::id_token::{ClaimType, ClaimTypes, malformed_claims, numeric_date, warn_about_malformed};
use crate::json::Object;
use crate::secret::Secret;

/// An answer about one token has a few hundred bytes, or a few thousand with `authorization_details`.
const INTROSPECTION_RESPONSE_LIMIT: usize = 256 * 1024;

/// The members that RFC 7662 §2.2 defines, and `cnf` (RFC 9449 §6.2). Resource servers make decisions based on them.
const MEMBERS: [&str; 13] =
    ["active", "scope", "client_id", "username", "token_type", "exp", "iat", "nbf", "sub", "aud", "iss", "jti", "cnf"];

/// The OP's answer about a token (RFC 7662 §2.2).
///
/// Check [`is_active`](Self::is_active) first: nothing else is known about a token that is not active. A member of the
/// wrong type is returned unchanged, and [`malformed`](Self::malformed) names it.
///
/// `Debug` shows the names of the members and no values.
#[derive(Clone)]
pub struct Introspection {
    active: bool,
    scope: Option<String>,
    members: Map<String, Value>,
}

/// The types of RFC 7662 §2.2. No check needs any of them.
const OF_INTROSPECTION: &ClaimTypes = &[
    ("scope", ClaimType::Text),
    ("client_id", ClaimType::Text),
    ("username", ClaimType::Text),
    ("token_type", ClaimType::Text),
    ("exp", ClaimType::Time),
    ("iat", ClaimType::Time),
    ("nbf", ClaimType::Time),
    ("sub", ClaimType::Text),
    ("aud", ClaimType::Audience),
    ("iss", ClaimType::Text),
    ("jti", ClaimType::Text),
    ("cnf", ClaimType::Object),
];

impl Client {
    /// Asks the OP about a token (RFC 7662), with the client's authentication.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, authentication: openid_deferred::Authentication)
    /// # -> Result<(), openid_deferred::Error> {
    /// use openid_deferred::tokens::TokenTypeHint;
    ///
    /// if let Some(token) = authentication.access_token() {
    ///     let answer = client.introspect(token, TokenTypeHint::AccessToken).await?;
    ///     println!("active: {}, until {:?}", answer.is_active(), answer.expires_at());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) if the OP has no introspection endpoint.
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if its answer is not an introspection response.
    /// - [`Transport`](crate::ErrorKind::Transport) if none arrived.
    ///
    /// [`is_transient`](Error::is_transient) states whether to try again. No error says anything about the token.
    pub async fn introspect(
        &self,
        token: &Secret,
        hint: impl Into<Option<TokenTypeHint>> + Send,
    ) -> Result<Introspection, Error> {
        let hint = hint.into();
        self.request_introspection(token, hint).await.map_err(|error| error.in_step("asking about a token"))
    }

    async fn request_introspection(&self, token: &Secret, hint: Option<TokenTypeHint>) -> Result<Introspection, Error> {
        let metadata = self.0.provider.metadata().await?;
        let client = self.identity_at(&metadata)?;
        let url = self.endpoints(&metadata, client).introspection()?;
        let request = EndpointRequest {
            url,
            document: Document::IntrospectionResponse,
            form: token_form(token, hint),
            client,
            assertion_audience: self.assertion_audience(&metadata),
            dpop: None,
            access_token: None,
            trace_parent: None,
            timeout: self.0.options.request_timeout,
            body_limit: INTROSPECTION_RESPONSE_LIMIT,
        };
        match self.0.endpoints.post(request).await {
            Ok(Answer::Success { body, .. }) => Ok(Introspection::parse(&body)?),
            Ok(Answer::Error(answer)) => Err(Error::new(answer.response).with_retry_after(answer.retry_after)),
            Ok(Answer::Unusable { violation, retry_after, .. }) => {
                Err(Error::new(violation).with_retry_after(retry_after))
            }
            Err(failure) => Err(failure.error),
        }
    }
}

impl Introspection {
    fn parse(body: &[u8]) -> Result<Self, Violation> {
        let violation = |rule| Violation::new(rule).in_document(Document::IntrospectionResponse);
        let mut members = Object::read(body, Document::IntrospectionResponse, &MEMBERS)?;
        members.retain(|_, value| !value.is_null());
        let active = match members.get("active") {
            Some(Value::Bool(active)) => *active,
            Some(_) => return Err(violation(Rule::InvalidMember).at_member("active")),
            None => return Err(violation(Rule::MissingMember).at_member("active")),
        };
        if !active {
            // RFC 7662 §2.2: "the authorization server SHOULD NOT include any additional information". Members that are
            // sent anyway are about a token that is not valid.
            members.clear();
        }
        let scope = match Scope::read(members.get("scope").cloned()) {
            Scope::Listed(scope) => Some(scope),
            Scope::Absent | Scope::Unknown => None,
        };
        let introspection = Self { active, scope, members: members.into_map() };
        warn_about_malformed(Document::IntrospectionResponse, introspection.malformed());
        Ok(introspection)
    }

    /// `active`: whether this OP issued the token, and it has neither expired nor been revoked.
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// `scope`: the scopes of the token, separated by spaces, even if the OP sent an array. `None` if it named none.
    pub fn scope(&self) -> Option<&str> {
        self.scope.as_deref()
    }

    /// `client_id`: the client that requested the token.
    pub fn client_id(&self) -> Option<&str> {
        self.text("client_id")
    }

    /// `username`: a human-readable name of the user.
    pub fn username(&self) -> Option<&str> {
        self.text("username")
    }

    /// `token_type`: how the token is presented, such as `DPoP` or `Bearer`.
    pub fn token_type(&self) -> Option<&str> {
        self.text("token_type")
    }

    /// `exp`: when the token expires.
    pub fn expires_at(&self) -> Option<SystemTime> {
        self.time("exp")
    }

    /// `iat`: when the token was issued.
    pub fn issued_at(&self) -> Option<SystemTime> {
        self.time("iat")
    }

    /// `nbf`: the time before which the token must not be used.
    pub fn not_before(&self) -> Option<SystemTime> {
        self.time("nbf")
    }

    /// `sub`: the subject of the token.
    pub fn subject(&self) -> Option<&str> {
        self.text("sub")
    }

    /// `aud`: the recipients that the token is for.
    pub fn audience(&self) -> Vec<&str> {
        match self.get("aud") {
            Some(Value::Array(audiences)) => audiences.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(audience)) => vec![audience],
            _ => Vec::new(),
        }
    }

    /// `iss`: the issuer of the token.
    pub fn issuer(&self) -> Option<&str> {
        self.text("iss")
    }

    /// `jti`: the token's identifier.
    pub fn jti(&self) -> Option<&str> {
        self.text("jti")
    }

    /// `cnf`: the key that the token is bound to: for example `jkt`, the thumbprint of a DPoP key (RFC 9449 §6.2), or
    /// `x5t#S256`, that of a certificate (RFC 8705 §3.2).
    pub fn confirmation(&self) -> Option<&Map<String, Value>> {
        self.get("cnf")?.as_object()
    }

    /// The names of the members whose value does not have the type that RFC 7662 §2.2 defines, such as an `exp` that is
    /// a string. Their methods return `None`, except for a `scope` that is an array of strings. [`get`](Self::get)
    /// returns them.
    pub fn malformed(&self) -> impl Iterator<Item = &str> {
        malformed_claims(&self.members, [OF_INTROSPECTION])
    }

    /// Any member by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.members.get(name)
    }

    /// All members; none if the token is not active.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.members
    }

    /// All members as a type of your own.
    ///
    /// # Errors
    ///
    /// [`Rule::InvalidMember`] if they do not fit the type.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        T::deserialize(&self.members)
            .map_err(|_| Violation::new(Rule::InvalidMember).in_document(Document::IntrospectionResponse).into())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn time(&self, name: &str) -> Option<SystemTime> {
        self.get(name).and_then(numeric_date).map(from_unix_seconds)
    }
}

impl fmt::Debug for Introspection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Introspection")
            .field("active", &self.active)
            .field("members", &self.members.keys().collect::<Vec<_>>())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Introspection, (Rule, Option<&'static str>)> {
        Introspection::parse(value.to_string().as_bytes()).map_err(|violation| (violation.rule(), violation.member()))
    }

    #[test]
    fn every_member_is_read() {
        let answer = parse(json!({
            "active": true, "scope": "a b", "client_id": "c", "username": "jane", "token_type": "DPoP", "exp": 100,
            "iat": 50.9, "nbf": 60, "sub": "s", "aud": ["x", "y"], "iss": "https://op.test", "jti": "j",
            "cnf": {"jkt": "t"}, "acr": "high",
        }))
        .unwrap();
        assert!(answer.is_active());
        assert_eq!((answer.scope(), answer.client_id(), answer.username()), (Some("a b"), Some("c"), Some("jane")));
        assert_eq!((answer.token_type(), answer.subject(), answer.jti()), (Some("DPoP"), Some("s"), Some("j")));
        assert_eq!((answer.audience(), answer.issuer()), (vec!["x", "y"], Some("https://op.test")));
        assert_eq!(answer.expires_at(), Some(from_unix_seconds(100)));
        assert_eq!(
            (answer.issued_at(), answer.not_before()),
            (Some(from_unix_seconds(50)), Some(from_unix_seconds(60)))
        );
        assert_eq!(answer.confirmation().unwrap()["jkt"], "t");
        assert_eq!(answer.get("acr"), Some(&json!("high")));
        assert_eq!(format!("{answer:?}").matches("jane").count(), 0);
    }

    #[test]
    fn scopes_in_an_array_are_read_and_other_forms_do_not_refuse_the_answer() {
        for (scope, expected) in [(json!(["a", "b"]), Some("a b")), (json!("a b"), Some("a b")), (json!(7), None)] {
            assert_eq!(parse(json!({ "active": true, "scope": scope })).unwrap().scope(), expected);
        }
    }

    #[test]
    fn an_inactive_token_has_no_other_members() {
        let answer = parse(json!({ "active": false, "sub": "s", "exp": "odd" })).unwrap();
        assert!(!answer.is_active() && answer.subject().is_none() && answer.as_json().is_empty());
    }

    #[test]
    fn active_is_required_and_must_be_a_boolean() {
        assert_eq!(parse(json!({})).err(), Some((Rule::MissingMember, Some("active"))));
        assert_eq!(parse(json!({ "active": null })).err(), Some((Rule::MissingMember, Some("active"))));
        for value in [json!("true"), json!(1), json!([true])] {
            assert_eq!(parse(json!({ "active": value })).err(), Some((Rule::InvalidMember, Some("active"))));
        }
    }

    #[test]
    fn a_member_of_a_wrong_type_is_returned_and_named() {
        for (name, value) in
            [("sub", json!(7)), ("exp", json!("100")), ("aud", json!([1])), ("aud", json!({})), ("cnf", json!("t"))]
        {
            let answer = parse(json!({ "active": true, name: value, "jti": "j" })).unwrap();
            assert_eq!((answer.get(name), answer.jti()), (Some(&value), Some("j")));
            assert_eq!(answer.malformed().collect::<Vec<_>>(), [name], "{value}");
            let read = (answer.scope(), answer.subject(), answer.expires_at(), answer.confirmation());
            assert_eq!((read, answer.audience()), ((None, None, None, None), vec![]));
        }
    }

    #[test]
    fn a_member_repeated_with_different_values_is_refused() {
        let violation = Introspection::parse(br#"{"active":false,"active":true}"#).err().unwrap();
        assert_eq!((violation.rule(), violation.member()), (Rule::RepeatedMember, Some("active")));
        assert!(Introspection::parse(br#"{"active":true,"active":true,"x":1,"x":2}"#).is_ok());
    }
}
