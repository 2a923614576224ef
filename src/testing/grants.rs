//! Token requests whose grants need no browser: client credentials, token exchange, and JWTs as grants.

use std::time::{Duration, UNIX_EPOCH};

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::authorization::{check_details, check_resources, check_scope_syntax};
use super::client::TestUser;
use super::id_token::unix;
use super::keys::Jwt;
use super::op::{Handler, Opaque};
use super::process::Grant;
use super::provider::TestProvider;
use super::record::RequestRule;
use super::token::ACCESS_TOKEN_TYPE;
use super::wire::{Parameters, Rejection, Reply};

/// The lifetime of a JWT of [`TestProvider::assertion`], in seconds.
const ASSERTION_LIFETIME: u64 = 300;

/// The longest time until the `exp` of a JWT that is a grant.
const LONGEST_ASSERTION: Duration = Duration::from_secs(600);

impl TestProvider {
    /// Issues a subject token about this user, for a token exchange (RFC 8693). Its type is
    /// `urn:ietf:params:oauth:token-type:access_token`. It can be used more than once, and also as an actor token.
    pub fn subject_token(&self, sub: &str) -> String {
        let token = self.op.opaque(Opaque::Bearer);
        self.op.state().subject_tokens.insert(token.clone(), sub.to_owned());
        token
    }

    /// Issues a JWT about this user that is a grant (RFC 7523), signed by a key of the provider. It can be used once
    /// within five minutes of the provider's clock.
    pub fn assertion(&self, sub: &str) -> String {
        self.assertion_with(sub, json!({}))
    }

    /// Issues such a JWT with additional or changed claims. A claim that is `null` is left out.
    ///
    /// # Panics
    ///
    /// Panics if `claims` is not a JSON object.
    pub fn assertion_with(&self, sub: &str, claims: Value) -> String {
        let Value::Object(changes) = claims else { panic!("claims are a JSON object") };
        let now = unix(self.op.now());
        let jti = self.op.token();
        let issuer = &self.op.settings.issuer;
        let mut claims = json!({
            "iss": issuer, "sub": sub, "aud": issuer, "iat": now, "exp": now + ASSERTION_LIFETIME, "jti": jti,
        });
        for (name, value) in changes {
            claims[name] = value;
        }
        if let Value::Object(members) = &mut claims {
            members.retain(|_, value| !value.is_null());
        }
        let mut state = self.op.state();
        let key = state.signing_key(Algorithm::ES256);
        key.sign(&key.header(), &claims)
    }
}

impl Handler<'_> {
    /// RFC 6749 §4.4.2.
    pub(super) fn client_credentials(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        if client.is_public() {
            let rule = RequestRule::ClientNotConfidential;
            return Err(Rejection::bad("unauthorized_client", rule, client.id));
        }
        check_access(form)?;
        let need = self.check_opt_in(form, &client)?;
        let key = self.grant_proof(need, None)?;
        let process = self.begin(Grant::ClientCredentials, &client.id, form, TestUser::new(&client.id));
        self.grant(form, process, &client, key.as_deref())
    }

    /// RFC 8693 §2.1.
    pub(super) fn token_exchange(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        let subject = self.subject(form.required("subject_token")?, form.required("subject_token_type")?)?;
        match (form.get("actor_token"), form.get("actor_token_type")) {
            (None, None) => {}
            (Some(token), Some(kind)) => drop(self.subject(token, kind)?),
            // "actor_token_type: REQUIRED when the actor_token parameter is present …; otherwise, it MUST NOT be included."
            (Some(_), None) => drop(form.required("actor_token_type")?),
            (None, Some(_)) => drop(form.required("actor_token")?),
        }
        if form.get("requested_token_type").is_some_and(|kind| kind != ACCESS_TOKEN_TYPE) {
            let rule = RequestRule::InvalidParameter;
            return Err(Rejection::bad("invalid_request", rule, "requested_token_type"));
        }
        check_access(form)?;
        let need = self.check_opt_in(form, &client)?;
        let key = self.grant_proof(need, None)?;
        let process = self.begin(Grant::TokenExchange, &client.id, form, TestUser::new(&subject));
        self.grant(form, process, &client, key.as_deref())
    }

    /// The subject of a token that [`TestProvider::subject_token`] issued, or of an access token.
    fn subject(&self, token: &str, kind: &str) -> Result<String, Rejection> {
        let now = self.op.clock.monotonic();
        let issued = self.state.subject_tokens.get(token);
        let access = self.state.access_tokens.get(token).filter(|found| !found.is_early && now < found.expires_at);
        let access = access.map(|found| &self.state.processes[found.process].user.sub);
        match issued.or(access).filter(|_| kind == ACCESS_TOKEN_TYPE) {
            Some(subject) => Ok(subject.clone()),
            // RFC 8693 §2.2.2: `invalid_request` if a token is invalid "for any reason".
            None => Err(Rejection::bad("invalid_request", RequestRule::SubjectTokenInvalid, kind)),
        }
    }

    /// RFC 7523 §2.1.
    pub(super) fn jwt_bearer(&mut self, form: &Parameters) -> Result<Reply, Rejection> {
        let client = self.client(form)?;
        let (subject, jti) = self.subject_of_assertion(form.required("assertion")?)?;
        check_access(form)?;
        let need = self.check_opt_in(form, &client)?;
        let key = self.grant_proof(need, None)?;
        // A request that was challenged for a DPoP nonce is repeated with the same JWT.
        self.state.seen_ids.insert(jti);
        let process = self.begin(Grant::JwtBearer, &client.id, form, TestUser::new(&subject));
        self.grant(form, process, &client, key.as_deref())
    }

    /// RFC 7523 §3. Returns the subject, and what to note when the JWT is used.
    fn subject_of_assertion(&mut self, assertion: &str) -> Result<(String, String), Rejection> {
        let invalid = |detail: &str| Rejection::bad("invalid_grant", RequestRule::GrantAssertionInvalid, detail);
        let jwt = Jwt::parse(assertion).ok_or_else(|| invalid("not a signed JWT"))?;
        if !self.state.keys.iter().any(|key| jwt.verifies(&key.public_jwk())) {
            return Err(invalid("the signature does not verify"));
        }
        let issuer = self.op.settings.issuer.clone();
        if jwt.claim("iss") != Some(&issuer) {
            return Err(invalid("`iss` is not trusted"));
        }
        let audiences = [Value::from(self.op.url("/token")), Value::from(issuer)];
        let is_for_us = match jwt.claims.get("aud") {
            Some(Value::Array(values)) => values.iter().any(|value| audiences.contains(value)),
            audience => audience.is_some_and(|value| audiences.contains(value)),
        };
        if !is_for_us {
            return Err(invalid("`aud` is neither the issuer nor the token endpoint"));
        }
        let now = self.op.now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let time = |name: &str| jwt.claims.get(name).map(|time| time.as_u64().map(Duration::from_secs));
        if !time("exp").flatten().is_some_and(|expiry| now < expiry && expiry <= now + LONGEST_ASSERTION) {
            return Err(invalid("`exp` is missing, past or too far ahead"));
        }
        if ["nbf", "iat"].into_iter().filter_map(time).any(|time| time.is_none_or(|time| time > now)) {
            return Err(invalid("`nbf` or `iat` is no time, or in the future"));
        }
        let subject = jwt.claim("sub").filter(|sub| !sub.is_empty()).ok_or_else(|| invalid("`sub` is missing"))?;
        let jti = jwt.claim("jti").ok_or_else(|| invalid("`jti` is missing"))?;
        let jti = format!("grant {jti}");
        match self.state.seen_ids.contains(&jti) {
            true => Err(Rejection::bad("invalid_grant", RequestRule::GrantAssertionReplayed, "")),
            false => Ok((subject.to_owned(), jti)),
        }
    }
}

/// The parameters that say what the token is for.
fn check_access(form: &Parameters) -> Result<(), Rejection> {
    check_scope_syntax(form)?;
    check_resources(form)?;
    check_details(form)
}
