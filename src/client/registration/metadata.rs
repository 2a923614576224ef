//! The metadata of a registered client (RFC 7591 §2; OpenID Connect Dynamic Client Registration 1.0 §2).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::dialect::{Dialect, ResponseType};
use crate::jose::SigningAlgorithm;

/// The metadata of a client, as the OP registered it. [`to_request`](Self::to_request) starts an update.
///
/// A member of the wrong type counts as missing; [`get`](Self::get) returns it. `Debug` shows the names of the members
/// and no values.
#[derive(Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientMetadata(pub(super) Map<String, Value>);

macro_rules! accessors {
    ($($(#[$attribute:meta])* $name:ident: $kind:ident;)*) => {
        impl ClientMetadata {
            $(accessors!(@$kind $(#[$attribute])* $name);)*
        }
    };
    (@text $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> Option<&str> {
            self.text(stringify!($name))
        }
    };
    (@texts $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> Vec<&str> {
            self.texts(stringify!($name))
        }
    };
    (@algorithm $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        /// `None` also for an algorithm that this crate does not support; [`get`](Self::get) returns its name.
        pub fn $name(&self) -> Option<SigningAlgorithm> {
            SigningAlgorithm::from_name(self.text(stringify!($name))?)
        }
    };
    (@flag $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(&self) -> bool {
            self.get(stringify!($name)) == Some(&Value::Bool(true))
        }
    };
}

accessors! {
    /// The URIs that the OP may send users back to.
    redirect_uris: texts;
    /// The e-mail addresses of the people responsible for the client.
    contacts: texts;
    /// The name that users see. [`in_languages`](Self::in_languages) returns it in other languages.
    client_name: text;
    /// The URL of a page about the client.
    client_uri: text;
    /// The URL of a logo that users see.
    logo_uri: text;
    /// The URL of a page about the use of users' data.
    policy_uri: text;
    /// The URL of the terms of service.
    tos_uri: text;
    /// The URL at which the client publishes its keys.
    jwks_uri: text;
    /// Whether the client is `web` or `native`.
    application_type: text;
    /// How the client authenticates.
    token_endpoint_auth_method: text;
    /// The algorithm of client assertions.
    token_endpoint_auth_signing_alg: algorithm;
    /// The algorithm of ID Tokens.
    id_token_signed_response_alg: algorithm;
    /// How the keys of encrypted ID Tokens are encrypted.
    id_token_encrypted_response_alg: text;
    /// How the content of encrypted ID Tokens is encrypted.
    id_token_encrypted_response_enc: text;
    /// The algorithm of UserInfo responses.
    userinfo_signed_response_alg: algorithm;
    /// How the keys of encrypted UserInfo responses are encrypted.
    userinfo_encrypted_response_alg: text;
    /// How the content of encrypted UserInfo responses is encrypted.
    userinfo_encrypted_response_enc: text;
    /// The algorithm of request objects (RFC 9101).
    request_object_signing_alg: algorithm;
    /// How the keys of encrypted request objects are encrypted.
    request_object_encryption_alg: text;
    /// How the content of encrypted request objects is encrypted.
    request_object_encryption_enc: text;
    /// The algorithm of authorization responses that are JWTs (JARM §3).
    authorization_signed_response_alg: algorithm;
    /// How the keys of encrypted authorization responses are encrypted.
    authorization_encrypted_response_alg: text;
    /// How the content of encrypted authorization responses is encrypted.
    authorization_encrypted_response_enc: text;
    /// Whether token requests need a DPoP proof (RFC 9449 §5.2).
    dpop_bound_access_tokens: flag;
    /// Whether access tokens are bound to the client certificate (RFC 8705 §3.4).
    tls_client_certificate_bound_access_tokens: flag;
    /// Whether authorization requests must be pushed (RFC 9126 §6).
    require_pushed_authorization_requests: flag;
    /// Whether authorization requests must be signed (RFC 9101 §10.5).
    require_signed_request_object: flag;
    /// Whether ID Tokens always have `auth_time`.
    require_auth_time: flag;
    /// Whether users have a different `sub` at every client (`pairwise`) or the same one (`public`).
    subject_type: text;
    /// The URL through which several clients share the `sub` of their users.
    sector_identifier_uri: text;
    /// The authentication context classes of requests that name none.
    default_acr_values: texts;
    /// The URL to which other sites may send users to sign in at the OP.
    initiate_login_uri: text;
    /// The URLs that request objects may have.
    request_uris: texts;
    /// The URLs to which users may be sent after a logout (OpenID Connect RP-Initiated Logout 1.0 §3.1).
    post_logout_redirect_uris: texts;
    /// The URL that logout tokens are sent to (OpenID Connect Back-Channel Logout 1.0 §2.2).
    backchannel_logout_uri: text;
    /// Whether logout tokens always carry a `sid` (OpenID Connect Back-Channel Logout 1.0 §2.2).
    backchannel_logout_session_required: flag;
    /// The identifier of the software that the client runs.
    software_id: text;
    /// The version of the software.
    software_version: text;
    /// The URL that Ping Callbacks are sent to (DTR §Client Registration Metadata).
    deferred_client_notification_endpoint: text;
    /// How the OP delivers its decisions in CIBA (§4): `poll`, `ping` or `push`. OPs assume `poll`.
    backchannel_token_delivery_mode: text;
    /// The URL that the pings of CIBA are sent to (§4).
    backchannel_client_notification_endpoint: text;
    /// The algorithm of signed backchannel authentication requests (CIBA §4).
    backchannel_authentication_request_signing_alg: algorithm;
    /// Whether the client can send a `user_code` (CIBA §4).
    backchannel_user_code_parameter: flag;
}

/// The default of a member that the OP does not mention (RFC 7591 §2).
pub(super) const DEFAULT_METHOD: &str = "client_secret_basic";

impl ClientMetadata {
    /// `response_types`; `code` if the OP does not mention them.
    pub fn response_types(&self) -> Vec<&str> {
        if self.0.contains_key("response_types") { self.texts("response_types") } else { vec!["code"] }
    }

    /// `grant_types`; `authorization_code` if the OP does not mention them.
    pub fn grant_types(&self) -> Vec<&str> {
        if self.0.contains_key("grant_types") { self.texts("grant_types") } else { vec!["authorization_code"] }
    }

    /// `scope`: the scopes that the client may request. `None` if the OP does not restrict them.
    pub fn scope(&self) -> Option<Vec<&str>> {
        Some(self.text("scope")?.split_ascii_whitespace().collect())
    }

    /// `jwks`: the client's public keys, if they are part of the registration.
    pub fn jwks(&self) -> Option<&Value> {
        self.get("jwks").filter(|keys| keys.is_object())
    }

    /// `default_max_age`: the longest time since the user last authenticated, for requests without `max_age`.
    pub fn default_max_age(&self) -> Option<Duration> {
        self.get("default_max_age")?.as_u64().map(Duration::from_secs)
    }

    /// A human-readable member, such as `client_name`, in every registered language, with the language tag. The value
    /// for all other languages has no tag (RFC 7591 §2.2).
    ///
    /// ```
    /// use openid_deferred::registration::RegistrationRequest;
    ///
    /// let request = RegistrationRequest::new("https://rp.example/callback")
    ///     .client_name("Example")
    ///     .client_name_in("ja", "例");
    /// let names: Vec<_> = request.metadata().in_languages("client_name").collect();
    /// assert_eq!(names, [(None, "Example"), (Some("ja"), "例")]);
    /// ```
    pub fn in_languages<'a>(&'a self, member: &'a str) -> impl Iterator<Item = (Option<&'a str>, &'a str)> {
        self.0.iter().filter_map(move |(name, value)| {
            let tag = match name.strip_prefix(member)? {
                "" => None,
                rest => Some(rest.strip_prefix('#')?),
            };
            Some((tag, value.as_str()?))
        })
    }

    /// Any member by its name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// All members.
    pub fn as_json(&self) -> &Map<String, Value> {
        &self.0
    }

    /// The dialect of sign-ins whose grant is registered.
    pub(super) fn dialect(&self) -> Option<Dialect> {
        let grants = self.grant_types();
        Dialect::OF_BROWSERS.into_iter().find(|dialect| grants.contains(&dialect.protocol().grant_type()))
    }

    /// Whether the registration is for backchannel authentication.
    pub(super) fn is_for_backchannel(&self) -> bool {
        self.grant_types().contains(&Dialect::Ciba.protocol().grant_type())
    }

    /// Whether this response type is registered. The order of its values does not matter.
    pub(super) fn allows_response_type(&self, response_type: ResponseType) -> bool {
        self.response_types().iter().any(|&listed| words(listed) == words(named(response_type)))
    }

    /// Whether such a client has a secret: for authentication, or as the key of signatures that the OP makes.
    pub(super) fn needs_secret(&self) -> bool {
        let is_hmac = |name| self.text(name).is_some_and(|algorithm| algorithm.starts_with("HS"));
        self.token_endpoint_auth_method().unwrap_or(DEFAULT_METHOD).starts_with("client_secret_")
            || is_hmac("id_token_signed_response_alg")
            || is_hmac("userinfo_signed_response_alg")
            || is_hmac("authorization_signed_response_alg")
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    fn texts(&self, name: &str) -> Vec<&str> {
        self.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect()
    }
}

/// The name of a response type, which is the same in all dialects in which it exists.
pub(super) fn named(response_type: ResponseType) -> &'static str {
    Dialect::OpenId.protocol().response_type(response_type)
}

/// The words of a text, without their order.
pub(super) fn words(text: &str) -> std::collections::BTreeSet<&str> {
    text.split_ascii_whitespace().collect()
}

impl fmt::Debug for ClientMetadata {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ClientMetadata ")?;
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}
