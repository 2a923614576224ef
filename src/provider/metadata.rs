//! What the OP says about itself (OpenID Connect Discovery 1.0 §3, RFC 8414 §2).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use url::Url;

use super::discovery::violation;
use crate::error::{Rule, Violation};
use crate::transport::UrlPolicy;

/// The metadata of an OP, checked: the issuer is the one that was asked, and every endpoint is `https:` (or on a
/// loopback address, where that was allowed) and none leads into a private network that the issuer does not lead to.
///
/// A clone shares its contents. Members that this type does not know are in [`extra`](Self::extra).
#[derive(Clone)]
pub struct ProviderMetadata(Arc<Inner>);

struct Inner {
    issuer: String,
    authorization_endpoint: Url,
    token_endpoint: Url,
    jwks_uri: Url,
    userinfo_endpoint: Option<Url>,
    revocation_endpoint: Option<Url>,
    introspection_endpoint: Option<Url>,
    pushed_authorization_request_endpoint: Option<Url>,
    end_session_endpoint: Option<Url>,
    registration_endpoint: Option<Url>,
    mtls_endpoint_aliases: BTreeMap<String, Url>,
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
            self.0.$name.as_ref()
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
    /// Where the user is sent.
    authorization_endpoint: url;
    /// Where codes are exchanged and tokens asked for.
    token_endpoint: url;
    /// Where the OP publishes its keys.
    jwks_uri: url;
    /// Claims about the user.
    userinfo_endpoint: optional_url;
    /// Token revocation (RFC 7009).
    revocation_endpoint: optional_url;
    /// Token introspection (RFC 7662).
    introspection_endpoint: optional_url;
    /// Pushed authorization requests (RFC 9126).
    pushed_authorization_request_endpoint: optional_url;
    /// Logout (OpenID Connect RP-Initiated Logout 1.0).
    end_session_endpoint: optional_url;
    /// Dynamic client registration (RFC 7591).
    registration_endpoint: optional_url;
    /// Response types as the OP lists them. [`supports_response_type`](Self::supports_response_type) compares.
    response_types_supported: texts;
    /// Response modes; `query` and `fragment` where the OP lists none.
    response_modes_supported: texts;
    /// Grant types; `authorization_code` and `implicit` where the OP lists none.
    grant_types_supported: texts;
    /// Client authentication methods at the token endpoint; `client_secret_basic` where the OP lists none.
    token_endpoint_auth_methods_supported: texts;
    /// Algorithms of client assertions; empty where the OP lists none.
    token_endpoint_auth_signing_alg_values_supported: texts;
    /// Algorithms of ID Tokens; `RS256`, which every OP has to know, where the OP lists none.
    id_token_signing_alg_values_supported: texts;
    /// Algorithms of DPoP proofs (RFC 9449 §5.1); empty where the OP says nothing about DPoP.
    dpop_signing_alg_values_supported: texts;
    /// PKCE methods (RFC 8414 §2); empty where the OP says nothing about PKCE.
    code_challenge_methods_supported: texts;
    /// Algorithms of signed authorization requests (RFC 9101); empty where the OP lists none.
    request_object_signing_alg_values_supported: texts;
    /// Algorithms of authorization responses as JWTs (JARM §4); empty where the OP lists none.
    authorization_signing_alg_values_supported: texts;
    /// Scopes that the OP likes to name.
    scopes_supported: texts;
    /// Authentication context classes.
    acr_values_supported: texts;
    /// Claims that the OP likes to name.
    claims_supported: texts;
    /// Whether authorization responses carry `iss` (RFC 9207 §3).
    authorization_response_iss_parameter_supported: flag;
    /// Whether the OP takes pushed authorization requests only (RFC 9126 §5).
    require_pushed_authorization_requests: flag;
    /// Whether the OP takes signed authorization requests only (RFC 9101 §10.5).
    require_signed_request_object: flag;
    /// Whether the OP can bind access tokens to a client certificate (RFC 8705 §3.3).
    tls_client_certificate_bound_access_tokens: flag;
}

impl ProviderMetadata {
    /// The issuer identifier.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Whether the OP takes the `request` parameter at its authorization endpoint (OpenID Connect Discovery 1.0 §3), if
    /// it says so either way.
    pub fn request_parameter_supported(&self) -> Option<bool> {
        self.0.request_parameter_supported
    }

    /// The endpoints for clients that authenticate with a certificate, by the names of the members that they replace
    /// (RFC 8705 §5). Other clients do not use them.
    pub fn mtls_endpoint_aliases(&self) -> &BTreeMap<String, Url> {
        &self.0.mtls_endpoint_aliases
    }

    /// Whether the OP lists a response type. Its values have no order (OAuth 2.0 Multiple Response Type Encoding
    /// Practices §3), so `code deferred_code` is `deferred_code code`.
    pub fn supports_response_type(&self, response_type: &str) -> bool {
        let asked_for = values(response_type);
        self.0.response_types_supported.iter().any(|listed| values(listed) == asked_for)
    }

    /// Whether the OP says nothing in a member that lists something. One that is there and empty says that it has nothing.
    pub(crate) fn is_silent_about(&self, member: &str) -> bool {
        !matches!(self.extra(member), Some(Value::Array(_)))
    }

    /// A member by its name, as it stands in the document.
    pub fn extra(&self, name: &str) -> Option<&Value> {
        self.0.members.get(name)
    }

    /// Reads a document whose issuer was compared.
    pub(super) fn parse(members: Map<String, Value>, issuer: &Url, urls: UrlPolicy) -> Result<Self, Violation> {
        let read = Reader { members: &members, issuer, urls };
        let inner = Inner {
            issuer: members.get("issuer").and_then(Value::as_str).unwrap_or_default().to_owned(),
            authorization_endpoint: read.url("authorization_endpoint")?,
            token_endpoint: read.url("token_endpoint")?,
            jwks_uri: read.url("jwks_uri")?,
            userinfo_endpoint: read.optional_url("userinfo_endpoint")?,
            revocation_endpoint: read.optional_url("revocation_endpoint")?,
            introspection_endpoint: read.optional_url("introspection_endpoint")?,
            pushed_authorization_request_endpoint: read.optional_url("pushed_authorization_request_endpoint")?,
            end_session_endpoint: read.optional_url("end_session_endpoint")?,
            registration_endpoint: read.optional_url("registration_endpoint")?,
            mtls_endpoint_aliases: read.aliases()?,
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
            scopes_supported: read.texts("scopes_supported", &[]),
            acr_values_supported: read.texts("acr_values_supported", &[]),
            claims_supported: read.texts("claims_supported", &[]),
            authorization_response_iss_parameter_supported: read
                .flag("authorization_response_iss_parameter_supported")?,
            require_pushed_authorization_requests: read.flag("require_pushed_authorization_requests")?,
            require_signed_request_object: read.flag("require_signed_request_object")?,
            request_parameter_supported: match read.member("request_parameter_supported") {
                None => None,
                Some(_) => Some(read.flag("request_parameter_supported")?),
            },
            tls_client_certificate_bound_access_tokens: read.flag("tls_client_certificate_bound_access_tokens")?,
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

struct Reader<'a> {
    members: &'a Map<String, Value>,
    issuer: &'a Url,
    urls: UrlPolicy,
}

impl Reader<'_> {
    /// The member, unless it is missing. `null` is what some serializers write for that.
    fn member(&self, name: &str) -> Option<&Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    fn url(&self, name: &'static str) -> Result<Url, Violation> {
        self.optional_url(name)?.ok_or_else(|| violation(Rule::MissingMember, name))
    }

    fn optional_url(&self, name: &'static str) -> Result<Option<Url>, Violation> {
        self.member(name).map(|value| self.checked(value, name)).transpose()
    }

    /// An insecure or private endpoint is an error even where it would not be called: it shows that something stands between
    /// the OP and us that rewrites its metadata, or an OP that does not know how it is reached.
    fn checked(&self, value: &Value, name: &'static str) -> Result<Url, Violation> {
        let url = value.as_str().and_then(|url| Url::parse(url).ok());
        let url = url.filter(|url| url.fragment().is_none()).ok_or_else(|| violation(Rule::InvalidMember, name))?;
        self.urls.check_named_by(self.issuer, &url).map_err(|problem| violation(problem.rule(), name))?;
        Ok(url)
    }

    fn aliases(&self) -> Result<BTreeMap<String, Url>, Violation> {
        const NAME: &str = "mtls_endpoint_aliases";
        match self.member(NAME) {
            None => Ok(BTreeMap::new()),
            Some(Value::Object(aliases)) => {
                aliases.iter().map(|(name, url)| Ok((name.clone(), self.checked(url, alias(name))?))).collect()
            }
            Some(_) => {
                ignored(NAME);
                Ok(BTreeMap::new())
            }
        }
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

    /// A flag that makes this client stricter must not be lost because of how it is written.
    fn flag(&self, name: &'static str) -> Result<bool, Violation> {
        match self.member(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(Value::String(flag)) if flag == "true" || flag == "false" => Ok(flag == "true"),
            Some(_) => Err(violation(Rule::InvalidMember, name)),
        }
    }
}

/// How errors name an alias.
fn alias(name: &str) -> &'static str {
    match name {
        "token_endpoint" => "mtls_endpoint_aliases.token_endpoint",
        "userinfo_endpoint" => "mtls_endpoint_aliases.userinfo_endpoint",
        "revocation_endpoint" => "mtls_endpoint_aliases.revocation_endpoint",
        "introspection_endpoint" => "mtls_endpoint_aliases.introspection_endpoint",
        "pushed_authorization_request_endpoint" => "mtls_endpoint_aliases.pushed_authorization_request_endpoint",
        _ => "mtls_endpoint_aliases",
    }
}

fn ignored(member: &str) {
    tracing::warn!(member, "a member of the OP's metadata is not of the type that it must have; it is ignored");
}
