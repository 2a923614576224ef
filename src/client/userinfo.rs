//! OpenID Connect Core 1.0 §5.3: the UserInfo endpoint.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Client;
use super::authentication::Authentication;
use super::resource::Call;
use super::token_holder::Sealed as _;
use crate::clock::unix_seconds;
use crate::endpoint::{gives_nonce, stated_error, without_byte_order_mark};
use crate::error::{Document, Error, ErrorResponse, Rule, Violation};
use crate::id_token::{
    self, STANDARD, VerifiedClaimsSet, claim_accessors, in_languages, malformed_claims, numeric_date, standard_claims,
    warn_about_malformed,
};
use crate::jose::{CompactJws, NotVerified};
use crate::json::{self, Object};
use crate::provider::Channel;

/// Claims about one user, possibly with a picture.
const USERINFO_LIMIT: usize = 1024 * 1024;

/// The claims that the checks need.
const CHECKED: [&str; 4] = ["sub", "iss", "aud", "exp"];

/// The answer of the UserInfo endpoint, after a check that it has the subject of the final ID Token.
///
/// The standard claims (OpenID Connect Core 1.0 §5.1) have methods. A claim of the wrong type is returned unchanged:
/// its method returns `None`, [`claim`](Self::claim) returns it, and [`malformed`](Self::malformed) names it.
///
/// It was received over TLS from the OP. It may be unsigned, unless the client requires [a
/// signature](super::ClientAlgorithms::userinfo_signed_response_alg).
#[derive(Clone)]
pub struct UserInfo {
    claims: Map<String, Value>,
}

impl UserInfo {
    /// The user's identifier at the OP, equal to the final ID Token's `sub`.
    pub fn subject(&self) -> &str {
        self.claims.get("sub").and_then(Value::as_str).unwrap_or_default()
    }

    /// The names of the standard claims whose value does not have the type in the specification, such as an
    /// `email_verified` of `"perhaps"`. `null` counts as absent.
    pub fn malformed(&self) -> impl Iterator<Item = &str> {
        malformed_claims(&self.claims, [STANDARD])
    }

    /// A text claim, such as `name`, in every language that the OP sent, with the language tag. The value for all other
    /// languages has no tag (OpenID Connect Core 1.0 §5.2).
    pub fn in_languages<'a>(&'a self, claim: &'a str) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
        in_languages(&self.claims, claim)
    }

    /// One claim.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.get(name)
    }

    /// `verified_claims`: the claims that the OP has verified, how, and under which rules (OpenID Connect for Identity
    /// Assurance 1.0). The claims that [`claim`](Self::claim) returns are not verified in this sense.
    pub fn verified_claims(&self) -> VerifiedClaimsSet<'_> {
        VerifiedClaimsSet::of(self.claim("verified_claims"))
    }

    /// All claims.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// All claims as a type of your own.
    ///
    /// # Errors
    ///
    /// [`Rule::InvalidMember`] if they do not fit the type.
    pub fn deserialize<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_value(Value::Object(self.claims.clone())).map_err(|_| invalid(Rule::InvalidMember))
    }
}

standard_claims!(claim_accessors! UserInfo);

impl Client {
    /// Requests the claims of the authenticated user from the UserInfo endpoint. The answer is refused if its subject
    /// is not that of the final ID Token (OpenID Connect Core 1.0 §5.3.2).
    ///
    /// # Errors
    ///
    /// - [`Configuration`](crate::ErrorKind::Configuration) if the OP has no such endpoint.
    /// - [`ErrorResponse`](crate::ErrorKind::ErrorResponse) if the OP refused. After `invalid_token` the access token
    ///   has expired or was revoked, and [`Client::refresh`] may get a new one.
    /// - [`Protocol`](crate::ErrorKind::Protocol) if the answer is not a UserInfo response or has another subject.
    /// - [`Misuse`](crate::ErrorKind::Misuse) without an access token.
    /// - [`Transport`](crate::ErrorKind::Transport) if no answer arrived.
    pub async fn userinfo(&self, authentication: &Authentication) -> Result<UserInfo, Error> {
        self.ask_userinfo(authentication).await.map_err(|error| error.in_step("asking for UserInfo"))
    }

    async fn ask_userinfo(&self, authentication: &Authentication) -> Result<UserInfo, Error> {
        let metadata = self.0.provider.metadata().await?;
        // A token that is not bound to the certificate is sent without one, and so not to the alias for mutual TLS.
        let is_bound = authentication.body().certificate_bound;
        let endpoints = if is_bound { metadata.mtls_endpoints() } else { metadata.endpoints() };
        let url = endpoints.userinfo()?;
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_static(self.userinfo_types()));
        let call = Call {
            method: Method::GET,
            url,
            headers,
            body: Bytes::new(),
            document: Document::UserInfo,
            body_limit: USERINFO_LIMIT,
        };
        let response = self.with_access_token(authentication.tokens(), call).await?;
        let is_success = matches!(response.status.as_u16(), 200..=203);
        if let Some(error) = stated_error(response.status, &response.headers) {
            return Err(match error.code() {
                "use_dpop_nonce" if gives_nonce(&response.headers) => invalid(Rule::SecondNonceChallenge),
                "use_dpop_nonce" => invalid(Rule::NonceMissing),
                _ => error.into(),
            });
        }
        let body = without_byte_order_mark(response.body);
        if let Some(error) = error_in_body(response.status, &body) {
            return Err(error.into());
        }
        if !is_success {
            let violation = Violation::new(Rule::UnexpectedStatus).in_document(Document::UserInfo);
            return Err(violation.with_status(response.status.as_u16()).into());
        }
        let claims = match Form::of(media_type(&response.headers).as_deref(), &body) {
            Some(Form::Json) => self.plain_claims(&body)?,
            Some(Form::Jwt) => self.protected_claims(&body).await?,
            None => return Err(invalid(Rule::UnexpectedContentType)),
        };
        // "The sub Claim in the UserInfo Response MUST be verified to exactly match the sub Claim in the ID Token; if
        // they do not match, the UserInfo Response values MUST NOT be used."
        if claims.get("sub").and_then(Value::as_str) != Some(authentication.claims().subject()) {
            return Err(invalid(Rule::UserInfoSubject));
        }
        let userinfo = UserInfo { claims };
        warn_about_malformed(Document::UserInfo, userinfo.malformed());
        Ok(userinfo)
    }

    /// The media types that are requested. Some OPs sign and encrypt only if no other type is accepted.
    fn userinfo_types(&self) -> &'static str {
        let algorithms = &self.0.options.algorithms;
        let needs_jwt = algorithms.userinfo_encryption.is_some() || algorithms.userinfo_signature.is_some();
        if needs_jwt { "application/jwt" } else { "application/json, application/jwt" }
    }

    /// The claims of a response that only TLS protects.
    fn plain_claims(&self, body: &[u8]) -> Result<Map<String, Value>, Error> {
        if self.0.options.algorithms.userinfo_encryption.is_some() {
            return Err(invalid(Rule::NotEncrypted));
        }
        self.unsigned_claims(body)
    }

    fn unsigned_claims(&self, body: &[u8]) -> Result<Map<String, Value>, Error> {
        if self.0.options.algorithms.userinfo_signature.is_some() {
            return Err(invalid(Rule::UserInfoUnsigned));
        }
        Ok(Object::read(body, Document::UserInfo, &CHECKED)?.into_map())
    }

    /// The claims of a response that is signed, encrypted, or both (§5.3.2).
    async fn protected_claims(&self, body: &[u8]) -> Result<Map<String, Value>, Error> {
        let token = std::str::from_utf8(body).map_err(|_| invalid(Rule::UserInfoSigned))?.trim();
        let opened = self.decrypted_userinfo(token)?;
        let inside = opened.expose().trim();
        // A token cannot begin with a brace. Unsigned claims are only accepted here if they were encrypted.
        if inside.starts_with('{') && inside != token {
            return self.unsigned_claims(inside.as_bytes());
        }
        self.signed_claims(inside).await
    }

    /// The claims of a response that the OP signed with one of its keys, or with the client secret if that was
    /// registered. `iss`, `aud` and `exp` are checked if they are present.
    async fn signed_claims(&self, token: &str) -> Result<Map<String, Value>, Error> {
        let (algorithm, _) = id_token::header(token).map_err(|_| invalid(Rule::UserInfoSigned))?;
        let accepted = match self.0.options.algorithms.userinfo_signature {
            Some(registered) => algorithm == registered,
            None => !algorithm.is_symmetric() && self.0.options.allows(algorithm),
        };
        if !accepted {
            return Err(invalid(Rule::UserInfoSigned));
        }
        let jws = CompactJws::parse(token).map_err(|_| invalid(Rule::UserInfoSigned))?;
        let jwt = self.arrived_jwt(algorithm, Channel::Back);
        let verified = self.0.provider.verify(&jwt, |keys| {
            keys.verify(&jws, algorithm).map_err(|problem| {
                violation(match problem {
                    NotVerified::NoKey => Rule::UserInfoNoKey,
                    NotVerified::Signature => Rule::UserInfoSigned,
                })
            })
        });
        verified.await??;
        let object = Object::parse(jws.payload()).map_err(|_| invalid(Rule::UserInfoSigned))?;
        let claims = object.needing(&CHECKED).map_err(|flaw| json::flawed(Document::UserInfo, flaw))?;
        self.check_signed(&claims)?;
        Ok(claims.into_map())
    }

    /// "If signed, the UserInfo Response SHOULD contain the Claims iss (issuer) and aud (audience) as members." They
    /// are checked if they are present, and so is `exp`.
    fn check_signed(&self, claims: &Map<String, Value>) -> Result<(), Violation> {
        let earliest = unix_seconds(self.0.clock.now()).saturating_sub(self.0.options.leeway.as_secs());
        let is_this_client = |audience: &Value| audience == self.client_id();
        let fits = |name: &str, value: &Value| match (name, value) {
            ("iss", issuer) => issuer == self.issuer(),
            ("aud", Value::Array(several)) => several.iter().any(is_this_client),
            ("aud", one) => is_this_client(one),
            (_, time) => numeric_date(time).is_some_and(|time| time > earliest),
        };
        let is_wrong = |name: &&str| claims.get(*name).is_some_and(|value| !value.is_null() && !fits(name, value));
        match ["iss", "aud", "exp"].into_iter().find(is_wrong) {
            None => Ok(()),
            Some(name) => Err(Violation::new(Rule::UserInfoSigned).in_document(Document::UserInfo).at_member(name)),
        }
    }
}

/// The form of a UserInfo response.
enum Form {
    Json,
    /// Signed, encrypted or both.
    Jwt,
}

impl Form {
    /// Determines the form from the body rather than from the media type, which some OPs omit or misspell: an object
    /// begins with a brace, and a JWT cannot. This is safe, because a registered signature or encryption is required in
    /// both forms. If the body is neither, the media type decides which form is broken.
    fn of(media_type: Option<&str>, body: &[u8]) -> Option<Self> {
        let body = body.trim_ascii();
        let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let separators = body.iter().filter(|byte| **byte == b'.').count();
        match media_type {
            _ if body.starts_with(b"{") => Some(Self::Json),
            _ if matches!(separators, 2 | 4) && body.iter().all(is_token) => Some(Self::Jwt),
            Some("application/json") => Some(Self::Json),
            Some("application/jwt") => Some(Self::Jwt),
            _ => None,
        }
    }
}

/// An error in the body. RFC 6750 §3 puts it into the challenge, but several OPs write it only here, some of them with
/// a success status.
fn error_in_body(status: StatusCode, body: &[u8]) -> Option<ErrorResponse> {
    if !matches!(status.as_u16(), 200..=203 | 400 | 401 | 403) {
        return None;
    }
    let object = Object::document(body, Document::UserInfo).ok()?;
    let members = object.members();
    let text = |name: &str| members.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let is_error = !members.contains_key("sub");
    is_error.then(|| Some(ErrorResponse::new(text("error")?, text("error_description"), Some(status.as_u16()))))?
}

fn media_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

fn violation(rule: Rule) -> Violation {
    Violation::new(rule).in_document(Document::UserInfo)
}

fn invalid(rule: Rule) -> Error {
    violation(rule).into()
}

// Claims are personal data: `Debug` shows their names and not their values.
impl fmt::Debug for UserInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("UserInfo").field("claims", &self.claims.keys().collect::<Vec<_>>()).finish()
    }
}
