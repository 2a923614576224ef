//! From an authorization request to its URL and its session.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use url::Url;

use super::AuthorizationRequest;
use crate::client::claims_request::ClaimsRequest;
use crate::client::request_values::{check_context, check_details, check_extra, check_reference, check_session_data};
use crate::client::response_mode::ResponseMode;
use crate::client::session::{self, AuthorizationSession};
use crate::client::setting::{check_redirect_uri, setting};
use crate::clock::unix_seconds;
use crate::dialect::{Dialect, ResponseType};
use crate::dpop::DpopKey;
use crate::error::Error;
use crate::jose;
use crate::pending::Checks;
use crate::provider::ProviderMetadata;
use crate::random;
use crate::secret::Secret;

/// Parameters that this crate sets itself, or that would change the meaning of those.
const RESERVED: [&str; 21] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "dpop_jkt",
    "response_mode",
    "max_age",
    "acr_values",
    "prompt",
    "login_hint",
    "ui_locales",
    "claims",
    "authorization_details",
    "resource",
    "request",
    "request_uri",
    "completion_mode",
];

/// The parts of a request that the application does not set on it directly.
struct Values {
    redirect_uri: String,
    claims: Option<Value>,
    mode: Option<ResponseMode>,
    /// The parameter that allows the OP to defer its answer.
    opt_in: Option<(&'static str, &'static str)>,
    dpop_key: Option<DpopKey>,
    state: String,
    nonce: String,
    code_verifier: Option<String>,
}

/// The claims that the `claims` parameter makes essential in the ID Token and that this crate checks (OpenID Connect
/// Core 1.0 §5.5.1 and §5.5.1.1).
struct EssentialClaims {
    auth_time: bool,
    acr: bool,
    /// The values that `acr` may have; empty if any value is accepted.
    acr_values: Vec<String>,
}

impl EssentialClaims {
    fn of(claims: Option<&Value>) -> Self {
        let request = |name: &str| claims.and_then(|claims| claims.get("id_token")).and_then(|claims| claims.get(name));
        let essential = |name: &str| request(name).filter(|claim| claim.get("essential") == Some(&Value::Bool(true)));
        let acr = essential("acr");
        let one = acr.and_then(|acr| acr.get("value")).into_iter();
        let several = acr.and_then(|acr| acr.get("values")).and_then(Value::as_array).into_iter().flatten();
        let acr_values = one.chain(several).filter_map(Value::as_str).map(str::to_owned).collect();
        Self { auth_time: essential("auth_time").is_some(), acr: acr.is_some(), acr_values }
    }
}

impl AuthorizationRequest<'_> {
    pub(super) async fn prepare(mut self) -> Result<(Url, AuthorizationSession), Error> {
        let client = self.client;
        let redirect_uri = self.check()?;
        let claims = self.claims.take().map(ClaimsRequest::into_json).transpose()?;
        let metadata = client.0.provider.metadata().await?;
        let dialect = client.dialect_at(&metadata);
        self.signed |= client.signs_requests(&metadata);
        self.pushed |= client.pushes(&metadata);
        self.check_provider(&metadata, dialect)?;
        let random = &*client.0.random;
        let values = Values {
            redirect_uri,
            claims,
            mode: self.mode_at(&metadata, dialect)?,
            opt_in: dialect.protocol().opt_in().filter(|_| self.response_type.may_defer()),
            dpop_key: client.new_dpop_key(&metadata).await?,
            state: random::base64url::<32>(random)?,
            nonce: random::base64url::<32>(random)?,
            code_verifier: match client.0.options.without_pkce {
                true => None,
                false => Some(random::base64url::<32>(random)?),
            },
        };
        let (url, url_expires_at) = self.browser_url(&metadata, dialect, &values).await?;
        Ok((url, self.session(&metadata, dialect, values, url_expires_at)))
    }

    /// Makes the checks that need no metadata, and returns the redirect URI.
    fn check(&self) -> Result<String, Error> {
        let client = self.client;
        check_extra(&self.extra, &RESERVED)?;
        check_context(&self.context)?;
        check_reference(self.reference.as_ref())?;
        check_session_data(&self.session_data)?;
        let redirect_uri = self.redirect_uri.as_ref().or(client.0.redirect_uri.as_ref());
        let redirect_uri =
            redirect_uri.ok_or_else(|| setting("redirect_uri", "set the registered one on the client"))?;
        check_redirect_uri(redirect_uri)?;
        client.0.options.check_fapi_redirect_uri(redirect_uri)?;
        check_details(self.details.as_ref())?;
        Ok(redirect_uri.clone())
    }

    /// Checks that the OP supports the request, before the user is sent there.
    fn check_provider(&self, metadata: &ProviderMetadata, dialect: Dialect) -> Result<(), Error> {
        let client = self.client;
        client.check_fapi(metadata)?;
        client.check_dialect_of_sign_ins(dialect, self.response_type, metadata)?;
        client.warn_if_unsupported(metadata, self.response_type);
        client.check_id_token_support(metadata)?;
        if self.signed {
            client.check_request_object_parameters(&self.extra)?;
        }
        // Otherwise the code could not be exchanged.
        client.identity_at(metadata).map(drop)
    }

    /// The response mode to ask for, if it is not the default one.
    fn mode_at(&self, metadata: &ProviderMetadata, dialect: Dialect) -> Result<Option<ResponseMode>, Error> {
        let options = &self.client.0.options;
        let chosen = self.response_mode.or(options.response_mode);
        options.check_fapi_response_mode(chosen)?;
        let codes = dialect.protocol().codes(self.response_type);
        // The default mode of a multi-valued response type is the fragment, which servers do not receive. So the query
        // is requested explicitly (OAuth 2.0 Multiple Response Type Encoding Practices §2.1).
        let mode = match codes {
            ResponseType::DeferredCode | ResponseType::Code => chosen.filter(|mode| *mode != ResponseMode::Query),
            ResponseType::DeferredCodeOrCode => Some(chosen.unwrap_or(ResponseMode::Query)),
        };
        mode.map(|mode| mode.at(metadata, codes)).transpose()
    }

    /// The parameters of the request.
    fn all_parameters(&self, dialect: Dialect, values: &Values) -> Vec<(&str, String)> {
        let client = self.client;
        let mut parameters = vec![
            ("response_type", dialect.protocol().response_type(self.response_type).to_owned()),
            ("client_id", client.client_id().to_owned()),
            ("redirect_uri", values.redirect_uri.clone()),
            ("scope", self.scopes.join(" ")),
            ("state", values.state.clone()),
            ("nonce", values.nonce.clone()),
        ];
        if let Some(mode) = values.mode {
            parameters.push(("response_mode", mode.as_str().to_owned()));
        }
        if let Some(verifier) = &values.code_verifier {
            let challenge = URL_SAFE_NO_PAD.encode(jose::sha256(verifier.as_bytes()));
            parameters.extend([("code_challenge", challenge), ("code_challenge_method", "S256".to_owned())]);
        }
        if let Some(key) = &values.dpop_key {
            parameters.push(("dpop_jkt", key.thumbprint().to_owned()));
        }
        if let Some((name, value)) = values.opt_in.filter(|_| !client.0.options.without_deferral_hint) {
            parameters.push((name, value.to_owned()));
        }
        if let Some(max_age) = self.max_age {
            parameters.push(("max_age", max_age.to_string()));
        }
        if let Some(claims) = &values.claims {
            parameters.push(("claims", claims.to_string()));
        }
        if let Some(details) = &self.details {
            parameters.push(("authorization_details", details.to_string()));
        }
        parameters.extend(self.parameters.iter().cloned());
        parameters.extend(self.extra.iter().map(|(name, value)| (name.as_str(), value.clone())));
        parameters
    }

    /// The URL for the browser, with the time until which it can be opened, in seconds since 1970.
    async fn browser_url(
        &self,
        metadata: &ProviderMetadata,
        dialect: Dialect,
        values: &Values,
    ) -> Result<(Url, Option<u64>), Error> {
        let client = self.client;
        let parameters = self.all_parameters(dialect, values);
        let request_object = if self.signed { Some(client.request_object(&parameters).await?) } else { None };
        let signed_until = request_object.as_ref().map(|object| object.expires_at);
        if self.pushed {
            // RFC 9126 §3: "All other request parameters [...] MUST appear as claims of the JWT".
            let parameters = request_object.map_or(parameters, |object| object.parameters(client.client_id()).into());
            let pushed = client.push(metadata, &parameters, values.dpop_key.as_ref()).await?;
            let expires_at = signed_until.map_or(pushed.expires_at, |until| until.min(pushed.expires_at));
            return Ok((pushed.url(metadata, client.client_id())?, Some(unix_seconds(expires_at))));
        }
        if let Some(object) = request_object {
            return Ok((object.url(metadata, client.client_id())?, signed_until.map(unix_seconds)));
        }
        let mut url = metadata.authorization_url()?.clone();
        url.query_pairs_mut().extend_pairs(&parameters);
        Ok((url, None))
    }

    /// What is needed to check the response.
    fn session(
        self,
        metadata: &ProviderMetadata,
        dialect: Dialect,
        values: Values,
        url_expires_at: Option<u64>,
    ) -> AuthorizationSession {
        let client = self.client;
        let options = &client.0.options;
        let essential = EssentialClaims::of(values.claims.as_ref());
        AuthorizationSession::new(session::Body {
            version: dialect.protocol().stored_version(),
            issuer: client.issuer().to_owned(),
            client_id: client.client_id().to_owned(),
            redirect_uri: values.redirect_uri,
            url_expires_at,
            response_type: dialect.protocol().codes(self.response_type),
            dialect,
            opted_in: values.opt_in.is_some(),
            jwt_response: values.mode.is_some_and(ResponseMode::is_jwt),
            iss_required: options.fapi.is_some() || metadata.authorization_response_iss_parameter_supported(),
            state: Secret::new(values.state),
            code_verifier: values.code_verifier.map(Secret::new),
            dpop_key: values.dpop_key,
            context: self.context,
            reference: self.reference,
            trace_parent: self.trace_parent,
            data: self.session_data,
            form_post: values.mode.is_some_and(ResponseMode::is_form_post),
            checks: Checks {
                nonce: Some(values.nonce),
                requested_at: client.0.clock.now(),
                // OpenID Connect Core 1.0 §3.1.2.1: the request's `max_age` overrides what was registered.
                max_age: self.max_age.or(options.default_max_age.map(|max_age| max_age.as_secs())),
                require_auth_time: essential.auth_time || options.require_auth_time,
                require_acr: essential.acr,
                essential_acr: essential.acr_values,
                subject: None,
            },
        })
    }
}
