//! The OP's metadata (OpenID Connect Discovery 1.0 §3, RFC 8414 §2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use url::Url;

use crate::error::{ConfigurationProblem, Document, Error, Rule, Violation};
use crate::transport::UrlPolicy;

/// The checked metadata of an OP: the issuer is the requested one, every endpoint is `https:` (or on a loopback
/// address, if that was allowed), and no endpoint has a private address on a host other than the issuer's.
///
/// The token endpoint is required. Another endpoint with an unusable URL counts as missing here. A call that needs it returns [`Rule::InvalidMember`](crate::error::Rule::InvalidMember),
/// [`Rule::InsecureEndpoint`](crate::error::Rule::InsecureEndpoint) or
/// [`Rule::PrivateEndpoint`](crate::error::Rule::PrivateEndpoint) with the name of the member.
///
/// A clone shares its contents. [`extra`](Self::extra) returns members without a method.
#[derive(Clone)]
pub struct ProviderMetadata(Arc<Inner>);

/// An optional endpoint. An error of its URL is returned when the endpoint is needed.
type Endpoint = Result<Option<Url>, Violation>;

struct Inner {
    issuer: String,
    authorization_endpoint: Endpoint,
    token_endpoint: Url,
    jwks_uri: Endpoint,
    userinfo_endpoint: Endpoint,
    revocation_endpoint: Endpoint,
    introspection_endpoint: Endpoint,
    pushed_authorization_request_endpoint: Endpoint,
    backchannel_authentication_endpoint: Endpoint,
    end_session_endpoint: Endpoint,
    registration_endpoint: Endpoint,
    mtls_endpoint_aliases: BTreeMap<String, Url>,
    unusable_aliases: BTreeMap<String, Violation>,
    response_types_supported: Vec<String>,
    response_modes_supported: Vec<String>,
    grant_types_supported: Vec<String>,
    token_endpoint_auth_methods_supported: Vec<String>,
    token_endpoint_auth_signing_alg_values_supported: Vec<String>,
    id_token_signing_alg_values_supported: Vec<String>,
    dpop_signing_alg_values_supported: Vec<String>,
    code_challenge_methods_supported: Vec<String>,
    request_object_signing_alg_values_supported: Vec<String>,
    authorization_signing_alg_values_supported: Vec<String>,
    backchannel_token_delivery_modes_supported: Vec<String>,
    backchannel_authentication_request_signing_alg_values_supported: Vec<String>,
    backchannel_user_code_parameter_supported: bool,
    backchannel_logout_supported: bool,
    backchannel_logout_session_supported: bool,
    scopes_supported: Vec<String>,
    acr_values_supported: Vec<String>,
    claims_supported: Vec<String>,
    authorization_response_iss_parameter_supported: bool,
    require_pushed_authorization_requests: bool,
    require_signed_request_object: bool,
    request_parameter_supported: Option<bool>,
    tls_client_certificate_bound_access_tokens: bool,
    members: Map<String, Value>,
}

macro_rules! accessors {
    ($($(#[$attribute:meta])* $name:ident: $kind:ident;)*) => {
        impl ProviderMetadata {
            $(accessors!(@$kind $(#[$attribute])* $name);)*
        }
    };
    (@url $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> &Url {
            &self.0.$name
        }
    };
    (@optional_url $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> Option<&Url> {
            self.0.$name.as_ref().ok().and_then(Option::as_ref)
        }
    };
    (@texts $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> &[String] {
            &self.0.$name
        }
    };
    (@flag $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> bool {
            self.0.$name
        }
    };
}

accessors! {
    /// The authorization endpoint, to which the user is redirected. An OP that signs no users in has none.
    authorization_endpoint: optional_url;
    /// The token endpoint.
    token_endpoint: url;
    /// The URL of the OP's keys. An OP that signs only with client secrets may have none.
    jwks_uri: optional_url;
    /// Claims about the user.
    userinfo_endpoint: optional_url;
    /// Token revocation (RFC 7009).
    revocation_endpoint: optional_url;
    /// Token introspection (RFC 7662).
    introspection_endpoint: optional_url;
    /// Pushed authorization requests (RFC 9126).
    pushed_authorization_request_endpoint: optional_url;
    /// Authentication of a user whom the client names (CIBA §4).
    backchannel_authentication_endpoint: optional_url;
    /// Logout (OpenID Connect RP-Initiated Logout 1.0).
    end_session_endpoint: optional_url;
    /// Dynamic client registration (RFC 7591).
    registration_endpoint: optional_url;
    /// Response types as the OP lists them. [`supports_response_type`](Self::supports_response_type) compares.
    response_types_supported: texts;
    /// Response modes; `query` and `fragment` if the OP lists none.
    response_modes_supported: texts;
    /// Grant types; `authorization_code` and `implicit` if the OP lists none.
    grant_types_supported: texts;
    /// Client authentication methods at the token endpoint; `client_secret_basic` if the OP lists none.
    token_endpoint_auth_methods_supported: texts;
    /// Algorithms of client assertions; empty if the OP lists none.
    token_endpoint_auth_signing_alg_values_supported: texts;
    /// Algorithms of ID Tokens; `RS256`, which every OP must support, if the OP lists none.
    id_token_signing_alg_values_supported: texts;
    /// Algorithms of DPoP proofs (RFC 9449 §5.1); empty if the OP lists none.
    dpop_signing_alg_values_supported: texts;
    /// PKCE methods (RFC 8414 §2); empty if the OP lists none.
    code_challenge_methods_supported: texts;
    /// Algorithms of signed authorization requests (RFC 9101); empty if the OP lists none.
    request_object_signing_alg_values_supported: texts;
    /// Algorithms of authorization responses as JWTs (JARM §4); empty if the OP lists none.
    authorization_signing_alg_values_supported: texts;
    /// Token delivery modes of CIBA (§4): `poll`, `ping` and `push`; empty if the OP lists none.
    backchannel_token_delivery_modes_supported: texts;
    /// Algorithms of signed backchannel authentication requests (CIBA §4); empty if the OP accepts none.
    backchannel_authentication_request_signing_alg_values_supported: texts;
    /// Whether backchannel authentication requests may have a `user_code` (CIBA §4).
    backchannel_user_code_parameter_supported: flag;
    /// Whether the OP sends logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.1).
    backchannel_logout_supported: flag;
    /// Whether logout tokens can name the session by its `sid`, which ID Tokens then carry too (OpenID Connect
    /// Back-Channel Logout 1.0 §2.1).
    backchannel_logout_session_supported: flag;
    /// Scopes that the OP lists.
    scopes_supported: texts;
    /// Authentication context classes.
    acr_values_supported: texts;
    /// Claims that the OP lists.
    claims_supported: texts;
    /// Whether authorization responses carry `iss` (RFC 9207 §3).
    authorization_response_iss_parameter_supported: flag;
    /// Whether the OP accepts only pushed authorization requests (RFC 9126 §5).
    require_pushed_authorization_requests: flag;
    /// Whether the OP accepts only signed authorization requests (RFC 9101 §10.5).
    require_signed_request_object: flag;
    /// Whether the OP can bind access tokens to a client certificate (RFC 8705 §3.3).
    tls_client_certificate_bound_access_tokens: flag;
}

impl ProviderMetadata {
    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Whether the OP supports the `request` parameter at its authorization endpoint (OpenID Connect Discovery 1.0 §3),
    /// if the metadata states it.
    pub fn request_parameter_supported(&self) -> Option<bool> {
        self.0.request_parameter_supported
    }

    /// The endpoints for clients that authenticate with a certificate, by the names of the members that they replace
    /// (RFC 8705 §5). Other clients do not use them.
    pub fn mtls_endpoint_aliases(&self) -> &BTreeMap<String, Url> {
        &self.0.mtls_endpoint_aliases
    }

    /// The alias of the endpoint of this name for clients with a certificate, if there is one.
    ///
    /// # Errors
    ///
    /// The error of its URL.
    pub(super) fn alias(&self, name: &'static str) -> Result<Option<&Url>, Error> {
        match self.0.unusable_aliases.get(name) {
            Some(violation) => Err((*violation).into()),
            None => Ok(self.0.mtls_endpoint_aliases.get(name)),
        }
    }

    /// The endpoint of this name.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::NoEndpoint`], or the error of its URL.
    pub(super) fn endpoint(&self, name: &'static str) -> Result<&Url, Error> {
        let inner = &*self.0;
        let endpoint = match name {
            "token_endpoint" => return Ok(&inner.token_endpoint),
            "jwks_uri" => &inner.jwks_uri,
            "userinfo_endpoint" => &inner.userinfo_endpoint,
            "revocation_endpoint" => &inner.revocation_endpoint,
            "introspection_endpoint" => &inner.introspection_endpoint,
            "pushed_authorization_request_endpoint" => &inner.pushed_authorization_request_endpoint,
            "backchannel_authentication_endpoint" => &inner.backchannel_authentication_endpoint,
            "registration_endpoint" => &inner.registration_endpoint,
            "end_session_endpoint" => &inner.end_session_endpoint,
            _ => &Ok(None),
        };
        match endpoint {
            Ok(Some(url)) => Ok(url),
            Ok(None) => Err(ConfigurationProblem::NoEndpoint(name).into()),
            Err(violation) => Err((*violation).into()),
        }
    }

    /// The URL of the keys.
    ///
    /// # Errors
    ///
    /// [`Rule::MissingMember`], or the error of the URL.
    pub(super) fn key_set_url(&self) -> Result<&Url, Error> {
        required(&self.0.jwks_uri, "jwks_uri")
    }

    /// The authorization endpoint.
    ///
    /// # Errors
    ///
    /// [`Rule::MissingMember`], or the error of the URL.
    pub(crate) fn authorization_url(&self) -> Result<&Url, Error> {
        required(&self.0.authorization_endpoint, "authorization_endpoint")
    }

    /// The end-session endpoint.
    ///
    /// # Errors
    ///
    /// [`ConfigurationProblem::NoEndpoint`], or the error of the URL.
    pub(crate) fn end_session_url(&self) -> Result<&Url, Error> {
        self.endpoint("end_session_endpoint")
    }

    /// The members of the document.
    pub(crate) fn members(&self) -> &Map<String, Value> {
        &self.0.members
    }

    /// Whether the OP lists a response type. Its values have no order (OAuth 2.0 Multiple Response Type Encoding
    /// Practices §3), so `code deferred_code` is `deferred_code code`.
    pub fn supports_response_type(&self, response_type: &str) -> bool {
        let asked_for = values(response_type);
        self.0.response_types_supported.iter().any(|listed| values(listed) == asked_for)
    }

    /// Whether a list is missing. An empty list means that the OP supports nothing.
    pub(crate) fn is_silent_about(&self, member: &str) -> bool {
        !matches!(self.extra(member), Some(Value::Array(_)))
    }

    /// A member by its name, as in the document.
    pub fn extra(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }

    /// Parses a document whose issuer was checked.
    pub(super) fn parse(members: Map<String, Value>, issuer: &Url, urls: UrlPolicy) -> Result<Self, Violation> {
        let read = Reader { members: &members, issuer, urls };
        let (mtls_endpoint_aliases, unusable_aliases) = read.aliases();
        let inner = Inner {
            issuer: members.get("issuer").and_then(Value::as_str).unwrap_or_default().to_owned(),
            authorization_endpoint: read.endpoint("authorization_endpoint"),
            token_endpoint: read.url("token_endpoint")?,
            jwks_uri: read.endpoint("jwks_uri"),
            userinfo_endpoint: read.endpoint("userinfo_endpoint"),
            revocation_endpoint: read.endpoint("revocation_endpoint"),
            introspection_endpoint: read.endpoint("introspection_endpoint"),
            pushed_authorization_request_endpoint: read.endpoint("pushed_authorization_request_endpoint"),
            backchannel_authentication_endpoint: read.endpoint("backchannel_authentication_endpoint"),
            end_session_endpoint: read.endpoint("end_session_endpoint"),
            registration_endpoint: read.endpoint("registration_endpoint"),
            mtls_endpoint_aliases,
            unusable_aliases,
            response_types_supported: read.texts("response_types_supported", &[]),
            response_modes_supported: read.texts("response_modes_supported", &["query", "fragment"]),
            grant_types_supported: read.texts("grant_types_supported", &["authorization_code", "implicit"]),
            token_endpoint_auth_methods_supported: read
                .texts("token_endpoint_auth_methods_supported", &["client_secret_basic"]),
            token_endpoint_auth_signing_alg_values_supported: read
                .texts("token_endpoint_auth_signing_alg_values_supported", &[]),
            id_token_signing_alg_values_supported: read.texts("id_token_signing_alg_values_supported", &["RS256"]),
            dpop_signing_alg_values_supported: read.texts("dpop_signing_alg_values_supported", &[]),
            code_challenge_methods_supported: read.texts("code_challenge_methods_supported", &[]),
            request_object_signing_alg_values_supported: read.texts("request_object_signing_alg_values_supported", &[]),
            authorization_signing_alg_values_supported: read.texts("authorization_signing_alg_values_supported", &[]),
            backchannel_token_delivery_modes_supported: read.texts("backchannel_token_delivery_modes_supported", &[]),
            backchannel_authentication_request_signing_alg_values_supported: read
                .texts("backchannel_authentication_request_signing_alg_values_supported", &[]),
            backchannel_user_code_parameter_supported: read
                .flag("backchannel_user_code_parameter_supported")
                .or_ignored()
                .unwrap_or(false),
            backchannel_logout_supported: read.flag("backchannel_logout_supported").or_ignored().unwrap_or(false),
            backchannel_logout_session_supported: read
                .flag("backchannel_logout_session_supported")
                .or_ignored()
                .unwrap_or(false),
            scopes_supported: read.texts("scopes_supported", &[]),
            acr_values_supported: read.texts("acr_values_supported", &[]),
            claims_supported: read.texts("claims_supported", &[]),
            authorization_response_iss_parameter_supported: read
                .strict_flag("authorization_response_iss_parameter_supported")?,
            require_pushed_authorization_requests: read.strict_flag("require_pushed_authorization_requests")?,
            require_signed_request_object: read.strict_flag("require_signed_request_object")?,
            request_parameter_supported: read.flag("request_parameter_supported").or_ignored(),
            tls_client_certificate_bound_access_tokens: read
                .flag("tls_client_certificate_bound_access_tokens")
                .or_ignored()
                .unwrap_or(false),
            members: Map::new(),
        };
        Ok(Self(Arc::new(Inner { members, ..inner })))
    }
}

impl fmt::Debug for ProviderMetadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ProviderMetadata").field("issuer", &self.0.issuer).finish_non_exhaustive()
    }
}

pub(super) fn values(response_type: &str) -> BTreeSet<&str> {
    response_type.split_ascii_whitespace().collect()
}

/// The URL of an endpoint that this call needs.
fn required<'a>(endpoint: &'a Endpoint, name: &'static str) -> Result<&'a Url, Error> {
    match endpoint {
        Ok(url) => url.as_ref().ok_or_else(|| violation(Rule::MissingMember, name).into()),
        Err(violation) => Err((*violation).into()),
    }
}

struct Reader<'a> {
    members: &'a Map<String, Value>,
    issuer: &'a Url,
    urls: UrlPolicy,
}

impl Reader<'_> {
    /// The member, unless it is missing or `null`, which some serializers write for a missing member.
    fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn url(&self, name: &'static str) -> Result<Url, Violation> {
        let url = self.member(name).map(|value| self.checked(value, name)).transpose()?;
        url.ok_or_else(|| violation(Rule::MissingMember, name))
    }

    fn endpoint(&self, name: &'static str) -> Endpoint {
        let endpoint = self.member(name).map(|value| self.checked(value, name)).transpose();
        if let Err(violation) = &endpoint {
            tracing::warn!(member = name, %violation, "an endpoint in the OP's metadata cannot be used; calls that need it return an error");
        }
        endpoint
    }

    fn checked(&self, value: &Value, name: &'static str) -> Result<Url, Violation> {
        let url = value.as_str().and_then(|url| Url::parse(url).ok());
        let url = url.filter(|url| url.fragment().is_none()).ok_or_else(|| violation(Rule::InvalidMember, name))?;
        self.urls.check_named_by(self.issuer, &url).map_err(|problem| violation(problem.rule(), name))?;
        Ok(url)
    }

    /// The usable aliases, and the errors of the others. A null alias counts as missing.
    fn aliases(&self) -> (BTreeMap<String, Url>, BTreeMap<String, Violation>) {
        const NAME: &str = "mtls_endpoint_aliases";
        let (mut usable, mut unusable) = (BTreeMap::new(), BTreeMap::new());
        match self.member(NAME) {
            None => {}
            Some(Value::Object(aliases)) => {
                for (name, url) in aliases.iter().filter(|(_, url)| !url.is_null()) {
                    match self.checked(url, alias(name)) {
                        Ok(url) => drop(usable.insert(name.clone(), url)),
                        Err(violation) => drop(unusable.insert(name.clone(), violation)),
                    }
                }
            }
            Some(_) => ignored(NAME),
        }
        (usable, unusable)
    }

    fn texts(&self, name: &str, default: &[&str]) -> Vec<String> {
        let default = || default.iter().map(|&value| value.to_owned()).collect();
        match self.member(name) {
            None => default(),
            Some(Value::Array(values)) => {
                if !values.iter().all(Value::is_string) {
                    ignored(name);
                }
                values.iter().filter_map(Value::as_str).map(str::to_owned).collect()
            }
            Some(_) => {
                ignored(name);
                default()
            }
        }
    }

    /// A flag that makes every client stricter must not be ignored because of its format.
    fn strict_flag(&self, name: &'static str) -> Result<bool, Violation> {
        match self.flag(name) {
            Flag::Absent => Ok(false),
            Flag::Set(flag) => Ok(flag),
            Flag::Odd(name) => Err(violation(Rule::InvalidMember, name)),
        }
    }

    fn flag(&self, name: &'static str) -> Flag {
        match self.member(name) {
            None => Flag::Absent,
            Some(Value::Bool(flag)) => Flag::Set(*flag),
            Some(Value::String(flag)) if flag.eq_ignore_ascii_case("true") => Flag::Set(true),
            Some(Value::String(flag)) if flag.eq_ignore_ascii_case("false") => Flag::Set(false),
            Some(_) => Flag::Odd(name),
        }
    }
}

/// The value of a boolean member.
enum Flag {
    Absent,
    Set(bool),
    /// The member of this name has another type.
    Odd(&'static str),
}

impl Flag {
    fn or_ignored(self) -> Option<bool> {
        match self {
            Self::Absent => None,
            Self::Set(flag) => Some(flag),
            Self::Odd(name) => {
                ignored(name);
                None
            }
        }
    }
}

/// The name of an alias in errors.
fn alias(name: &str) -> &'static str {
    match name {
        "token_endpoint" => "mtls_endpoint_aliases.token_endpoint",
        "userinfo_endpoint" => "mtls_endpoint_aliases.userinfo_endpoint",
        "revocation_endpoint" => "mtls_endpoint_aliases.revocation_endpoint",
        "introspection_endpoint" => "mtls_endpoint_aliases.introspection_endpoint",
        "pushed_authorization_request_endpoint" => "mtls_endpoint_aliases.pushed_authorization_request_endpoint",
        "backchannel_authentication_endpoint" => "mtls_endpoint_aliases.backchannel_authentication_endpoint",
        _ => "mtls_endpoint_aliases",
    }
}

fn ignored(member: &str) {
    tracing::warn!(member, "a member of the OP's metadata has the wrong type; it is ignored");
}

/// A rule that a member of the metadata breaks.
pub(super) fn violation(rule: Rule, member: &'static str) -> Violation {
    Violation::new(rule).in_document(Document::Metadata).at_member(member)
}
