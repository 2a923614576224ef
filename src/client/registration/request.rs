//! The request of a client to be registered (RFC 7591 §2; OpenID Connect Dynamic Client Registration 1.0 §2).

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::metadata::ClientMetadata;
use crate::client::algorithms::ClientAlgorithms;
use crate::client::delivery_mode::DeliveryMode;
use crate::dialect::{CODE_GRANT, Dialect, ResponseType};
use crate::id_token::Encryption;
use crate::jose::{DecryptionKey, Signer, SigningAlgorithm};
use crate::secret::Secret;

/// The metadata that a client asks to be registered with (RFC 7591 §2, OpenID Connect Dynamic Client Registration 1.0
/// §2, and the specifications that extend them).
///
/// Pass it to [`Registrar::register`](super::Registrar::register) or [`update`](super::Registrar::update), which check
/// it first.
///
/// ```
/// use openid_deferred::encryption::ClientAlgorithms;
/// use openid_deferred::registration::RegistrationRequest;
/// use openid_deferred::{SigningAlgorithm, SigningKey};
///
/// # fn main() -> Result<(), openid_deferred::Error> {
/// let key = SigningKey::generate(SigningAlgorithm::Es256)?;
/// let request = RegistrationRequest::new("https://rp.example/callback")
///     .deferred_client_notification_endpoint("https://rp.example/deferred/ping")
///     .grant_type("refresh_token")
///     .private_key_jwt(&key)
///     .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Es256))
///     .dpop_bound_access_tokens()
///     .client_name("Example Bank")
///     .client_name_in("de", "Beispielbank");
/// assert_eq!(request.metadata().grant_types(), ["urn:openid:params:grant-type:deferred", "refresh_token"]);
/// # Ok(())
/// # }
/// ```
///
/// Use [`member`](Self::member) for members that have no method. `Debug` shows the names of the members and no values.
#[derive(Debug, Clone)]
#[must_use = "a request has no effect until a `Registrar` sends it"]
pub struct RegistrationRequest {
    metadata: ClientMetadata,
    dialect: Dialect,
    /// A name that an extra member must not have. It is reported when the request is sent.
    pub(super) reserved: Option<String>,
}

/// Whether the client runs in a browser or as a native application (OpenID Connect Dynamic Client Registration 1.0 §2).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplicationType {
    /// `web`, which is also the default of OPs.
    Web,
    /// `native`.
    Native,
}

/// Whether a user has one `sub` for all clients (OpenID Connect Core 1.0 §8).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectType {
    /// `public`: the same for all clients.
    Public,
    /// `pairwise`: a different one for every sector, so that clients cannot compare their users.
    Pairwise,
}

/// How the OP recognises the certificate of `tls_client_auth` (RFC 8705 §2.1.2).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSubject {
    /// The distinguished name of its subject, in the text form of RFC 4514.
    DistinguishedName(String),
    /// A DNS name among its subject alternative names.
    DnsName(String),
    /// A URI among its subject alternative names.
    Uri(String),
    /// An IP address among its subject alternative names.
    IpAddress(String),
    /// An e-mail address among its subject alternative names.
    Email(String),
}

macro_rules! setters {
    ($($(#[$attribute:meta])* $name:ident: $kind:ident;)*) => {
        impl RegistrationRequest {
            $(setters!(@$kind $(#[$attribute])* $name);)*
        }
    };
    (@text $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(self, value: impl Into<String>) -> Self {
            self.set(stringify!($name), value.into())
        }
    };
    (@texts $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name<S: Into<String>>(self, values: impl IntoIterator<Item = S>) -> Self {
            self.set(stringify!($name), texts(values))
        }
    };
    (@signature $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(self, algorithm: SigningAlgorithm) -> Self {
            self.set(stringify!($name), algorithm.as_str())
        }
    };
    (@flag $(#[$attribute:meta])* $name:ident) => {
        $(#[$attribute])*
        pub fn $name(self) -> Self {
            self.set(stringify!($name), true)
        }
    };
}

setters! {
    /// The HTTPS URL at which the client publishes its keys, instead of registering them. The keys can then rotate
    /// without an update.
    jwks_uri: text;
    /// How the client authenticates: `none`, `client_secret_basic`, `client_secret_post` or `client_secret_jwt`. OPs
    /// assume `client_secret_basic` unless set.
    ///
    /// For other methods use [`private_key_jwt`](Self::private_key_jwt), [`tls_client_auth`](Self::tls_client_auth) or
    /// [`self_signed_tls_client_auth`](Self::self_signed_tls_client_auth).
    token_endpoint_auth_method: text;
    /// The algorithm of client assertions.
    token_endpoint_auth_signing_alg: signature;
    /// The algorithm of request objects (RFC 9101).
    request_object_signing_alg: signature;
    /// Makes the OP require DPoP in every token request of this client (RFC 9449 §5.2).
    dpop_bound_access_tokens: flag;
    /// Binds access tokens to the client certificate (RFC 8705 §3.4). It excludes DPoP; see
    /// [`ClientBuilder::certificate_bound_access_tokens`](crate::ClientBuilder::certificate_bound_access_tokens).
    tls_client_certificate_bound_access_tokens: flag;
    /// Makes the OP accept only pushed authorization requests (RFC 9126 §6).
    require_pushed_authorization_requests: flag;
    /// Makes the OP accept only signed authorization requests (RFC 9101 §10.5).
    require_signed_request_object: flag;
    /// Requires `auth_time` in all ID Tokens.
    require_auth_time: flag;
    /// The HTTPS URL of a list of redirect URIs. Clients with the same URL share the `sub` of their users.
    sector_identifier_uri: text;
    /// The authentication context classes of requests that name none.
    default_acr_values: texts;
    /// The HTTPS URL to which other sites may send users to sign in at the OP (OpenID Connect Core 1.0 §4).
    initiate_login_uri: text;
    /// The URLs that request objects may have (OpenID Connect Core 1.0 §6.2).
    request_uris: texts;
    /// The URLs to which users may be sent after a logout (OpenID Connect RP-Initiated Logout 1.0 §3.1). A client that is
    /// made from the registration uses the first one.
    post_logout_redirect_uris: texts;
    /// The HTTPS URL that logout tokens are sent to (OpenID Connect Back-Channel Logout 1.0 §2.2).
    backchannel_logout_uri: text;
    /// Makes the OP send the `sid` of the session in logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.2). Some OPs
    /// put a `sid` into ID Tokens only then.
    backchannel_logout_session_required: flag;
    /// The types of `authorization_details` that the client uses (RFC 9396 §10).
    authorization_details_types: texts;
    /// The identifier of the software that the client runs. It is the same for all installations and versions.
    software_id: text;
    /// The version of the software.
    software_version: text;
    /// The e-mail addresses of the people responsible for the client.
    contacts: texts;
    /// The HTTPS URL that the OP sends Ping Callbacks to (DTR §Client Registration Metadata; IETF DTR §Callback
    /// Notification). [`ping`](crate::ping)
    /// describes the receiver. Without this URL the OP never sends pings.
    deferred_client_notification_endpoint: text;
    /// The HTTPS URL that the OP sends the pings of [CIBA](Dialect::Ciba) to (CIBA §4), for [`DeliveryMode::Ping`].
    backchannel_client_notification_endpoint: text;
    /// The algorithm of signed backchannel authentication requests (CIBA §4). The OP then refuses unsigned ones. A client
    /// that is made from the registration signs all of them.
    backchannel_authentication_request_signing_alg: signature;
    /// Declares that the client can send a `user_code` (CIBA §4).
    backchannel_user_code_parameter: flag;
}

macro_rules! for_humans {
    ($($(#[$attribute:meta])* $name:ident, $in_language:ident;)*) => {
        impl RegistrationRequest {
            $(
                $(#[$attribute])*
                pub fn $name(self, value: impl Into<String>) -> Self {
                    self.set(stringify!($name), value.into())
                }

                /// Sets it for one language, by its BCP 47 tag (RFC 7591 §2.2).
                pub fn $in_language(self, language: &str, value: impl Into<String>) -> Self {
                    self.set(&format!("{}#{language}", stringify!($name)), value.into())
                }
            )*
        }
    };
}

for_humans! {
    /// The name that users see.
    client_name, client_name_in;
    /// The URL of a page about the client.
    client_uri, client_uri_in;
    /// The URL of a logo that users see.
    logo_uri, logo_uri_in;
    /// The URL of a page about the use of users' data.
    policy_uri, policy_uri_in;
    /// The URL of the terms of service.
    tos_uri, tos_uri_in;
}

impl ClientMetadata {
    /// Makes a request with the same members, to be changed and sent as an [update](super::Registrar::update). An
    /// update replaces the whole registration, so it deletes every member that it does not contain.
    pub fn to_request(&self) -> RegistrationRequest {
        RegistrationRequest::of(self.clone())
    }
}

impl RegistrationRequest {
    /// Requests a client of the deferred flow with this redirect URI, the response type `deferred_code` and the
    /// deferred grant.
    pub fn new(redirect_uri: impl Into<String>) -> Self {
        let request = Self::of(ClientMetadata::default());
        request.redirect_uri(redirect_uri).response_types([ResponseType::DeferredCode])
    }

    /// Requests a client of [backchannel authentication](crate::Client::backchannel_authentication) (CIBA §4) without
    /// sign-ins in a browser: it has no redirect URI and no response type. For a client that has both, add
    /// [`backchannel_token_delivery_mode`](Self::backchannel_token_delivery_mode) to a request for sign-ins.
    ///
    /// ```
    /// use openid_deferred::ciba::DeliveryMode;
    /// use openid_deferred::registration::RegistrationRequest;
    /// use openid_deferred::{SigningAlgorithm, SigningKey};
    ///
    /// # fn main() -> Result<(), openid_deferred::Error> {
    /// let key = SigningKey::generate(SigningAlgorithm::Es256)?;
    /// let request = RegistrationRequest::backchannel(DeliveryMode::Ping)
    ///     .backchannel_client_notification_endpoint("https://rp.example/ciba/ping")
    ///     .backchannel_authentication_request_signing_alg(SigningAlgorithm::Es256)
    ///     .private_key_jwt(&key);
    /// assert_eq!(request.metadata().grant_types(), ["urn:openid:params:grant-type:ciba"]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn backchannel(mode: DeliveryMode) -> Self {
        let request = Self::of(ClientMetadata::default());
        let none: [&str; 0] = [];
        request.set("response_types", texts(none)).backchannel_token_delivery_mode(mode)
    }

    /// Sets how the OP delivers its decision (`backchannel_token_delivery_mode`, CIBA §4), and adds the grant type of
    /// CIBA. [`DeliveryMode::Push`] is refused when the request is sent.
    pub fn backchannel_token_delivery_mode(self, mode: DeliveryMode) -> Self {
        self.set("backchannel_token_delivery_mode", mode.as_str()).grant_type(Dialect::Ciba.protocol().grant_type())
    }

    fn of(metadata: ClientMetadata) -> Self {
        Self { dialect: metadata.dialect().unwrap_or_default(), metadata, reserved: None }
    }

    /// The metadata that is requested so far.
    pub fn metadata(&self) -> &ClientMetadata {
        &self.metadata
    }

    /// Adds a redirect URI. A client that is made from the registration uses the first one.
    pub fn redirect_uri(self, redirect_uri: impl Into<String>) -> Self {
        self.push("redirect_uris", redirect_uri.into())
    }

    /// Sets the response types instead of `deferred_code`, and adds the grant types that they need. A client that is
    /// made from the registration uses the first one.
    pub fn response_types(mut self, response_types: impl IntoIterator<Item = ResponseType>) -> Self {
        let protocol = self.dialect.protocol();
        let [openid, ietf] = Dialect::OF_BROWSERS.map(|dialect| dialect.protocol().grant_type());
        let of_codes = [openid, ietf, CODE_GRANT];
        let response_types: Vec<_> = response_types.into_iter().collect();
        let needs = |grant: &str| response_types.iter().any(|kind| protocol.grant_types(*kind).contains(&grant));
        let kept = self.metadata.grant_types().into_iter().filter(|grant| !of_codes.contains(grant));
        let grants = texts(of_codes.into_iter().filter(|grant| needs(grant)).chain(kept));
        self.metadata.0.insert("grant_types".to_owned(), grants);
        let mut names: Vec<_> = response_types.iter().map(|kind| protocol.response_type(*kind)).collect();
        names.dedup();
        self.set("response_types", texts(names))
    }

    /// Requests a client whose sign-ins have this dialect; [`Dialect::OpenId`] unless set. For CIBA use
    /// [`backchannel`](Self::backchannel). It replaces the response types, so call
    /// [`response_types`](Self::response_types) afterwards.
    ///
    /// In the [IETF dialect](Dialect::Ietf) the response type is `code`, with the grant types `authorization_code` and
    /// `urn:ietf:params:oauth:grant-type:deferred` (IETF DTR §Token Endpoint — Polling). A client that is made from the
    /// registration speaks that dialect. Add grants without a user with [`grant_type`](Self::grant_type), such as
    /// `client_credentials`.
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self.response_types([ResponseType::DeferredCode])
    }

    /// Adds a grant type, such as `refresh_token`. Those that the response types need are already included.
    pub fn grant_type(self, grant_type: impl Into<String>) -> Self {
        self.push("grant_types", grant_type.into())
    }

    /// Sets the scopes that the client may request, instead of those that the OP chooses.
    pub fn scope<S: AsRef<str>>(self, scopes: impl IntoIterator<Item = S>) -> Self {
        let scopes: Vec<_> = scopes.into_iter().map(|scope| scope.as_ref().to_owned()).collect();
        self.set("scope", scopes.join(" "))
    }

    /// Asks the OP to sign and encrypt with these algorithms. What they do not set stays as it is.
    pub fn algorithms(mut self, algorithms: ClientAlgorithms) -> Self {
        for (member, algorithm) in algorithms.signatures() {
            self = self.set(member, algorithm.as_str());
        }
        let ClientAlgorithms { id_token_encryption, userinfo_encryption, authorization_encryption, .. } = algorithms;
        self.encrypted("id_token_encrypted_response_alg", "id_token_encrypted_response_enc", id_token_encryption)
            .encrypted("userinfo_encrypted_response_alg", "userinfo_encrypted_response_enc", userinfo_encryption)
            .encrypted(
                "authorization_encrypted_response_alg",
                "authorization_encrypted_response_enc",
                authorization_encryption,
            )
            .encrypted(
                "request_object_encryption_alg",
                "request_object_encryption_enc",
                algorithms.request_object_encryption,
            )
    }

    fn encrypted(mut self, alg: &str, enc: &str, encryption: Option<Encryption>) -> Self {
        let Some(encryption) = encryption else { return self };
        self.metadata.0.shift_remove(enc);
        self = self.set(alg, encryption.alg.as_str());
        match encryption.enc {
            Some(content) => self.set(enc, content.as_str()),
            None => self,
        }
    }

    /// Authenticates with assertions by this key (`private_key_jwt`). This sets the method, its algorithm, and the
    /// public key if the signer provides it. Set the same key on the client that is made from the registration.
    pub fn private_key_jwt(self, signer: &impl Signer) -> Self {
        let request =
            self.token_endpoint_auth_method("private_key_jwt").token_endpoint_auth_signing_alg(signer.algorithm());
        match signer.verification_jwk() {
            Some(mut key) => {
                key.insert("use".to_owned(), "sig".into());
                request.key(key)
            }
            None => request,
        }
    }

    /// Authenticates with a certificate of an authority that the OP trusts (RFC 8705 §2.1). Set it on the client that
    /// is made from the registration.
    pub fn tls_client_auth(mut self, subject: CertificateSubject) -> Self {
        for member in SUBJECTS {
            self.metadata.0.shift_remove(member);
        }
        let [dn, dns, uri, ip, email] = SUBJECTS;
        let (member, value) = match subject {
            CertificateSubject::DistinguishedName(value) => (dn, value),
            CertificateSubject::DnsName(value) => (dns, value),
            CertificateSubject::Uri(value) => (uri, value),
            CertificateSubject::IpAddress(value) => (ip, value),
            CertificateSubject::Email(value) => (email, value),
        };
        self.set(member, value).token_endpoint_auth_method("tls_client_auth")
    }

    /// Authenticates with a self-signed certificate (RFC 8705 §2.2): the `x5c` of a key in [`jwks`](Self::jwks) or at
    /// [`jwks_uri`](Self::jwks_uri).
    pub fn self_signed_tls_client_auth(self) -> Self {
        self.token_endpoint_auth_method("self_signed_tls_client_auth")
    }

    /// Lets the OP encrypt for this key by adding its public half to `jwks`. Set the key on the client that is made
    /// from the registration.
    pub fn decryption_key(self, key: &DecryptionKey) -> Self {
        self.key(key.public_jwk())
    }

    /// Sets the client's public keys, such as those of [`Client::jwks`](crate::Client::jwks), instead of earlier ones.
    /// They exclude [`jwks_uri`](Self::jwks_uri).
    pub fn jwks(self, jwks: Value) -> Self {
        self.set("jwks", jwks)
    }

    /// Sets whether the client runs in a browser or as a native application.
    pub fn application_type(self, application_type: ApplicationType) -> Self {
        let name = match application_type {
            ApplicationType::Web => "web",
            ApplicationType::Native => "native",
        };
        self.set("application_type", name)
    }

    /// Sets whether users have a different `sub` at every client.
    pub fn subject_type(self, subject_type: SubjectType) -> Self {
        let name = match subject_type {
            SubjectType::Public => "public",
            SubjectType::Pairwise => "pairwise",
        };
        self.set("subject_type", name)
    }

    /// Sets the longest time since the user last authenticated, for requests without `max_age`; whole seconds.
    pub fn default_max_age(self, age: Duration) -> Self {
        self.set("default_max_age", age.as_secs())
    }

    /// Adds the statement of a party that the OP trusts about the software (RFC 7591 §2.3): a signed JWT.
    pub fn software_statement(self, statement: &Secret) -> Self {
        self.set("software_statement", statement.expose())
    }

    /// Sets any other member. Members that only an OP can set are refused when the request is sent: `client_id`,
    /// `client_secret` and the related members of RFC 7591 §3.2.1.
    pub fn member(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        let name = name.into();
        if super::ISSUED.contains(&name.as_str()) {
            self.reserved = Some(name);
            return self;
        }
        self.set(&name, value)
    }

    /// Removes a member. An update then deletes it.
    pub fn without(mut self, name: &str) -> Self {
        self.metadata.0.shift_remove(name);
        self
    }

    fn set(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata.0.insert(name.to_owned(), value.into());
        self
    }

    /// Adds a value to a list, unless the list contains it.
    fn push(mut self, name: &str, value: String) -> Self {
        let value = Value::String(value);
        match self.metadata.0.get_mut(name) {
            Some(Value::Array(values)) => {
                if !values.contains(&value) {
                    values.push(value);
                }
                self
            }
            _ => self.set(name, vec![value]),
        }
    }

    fn key(mut self, key: Map<String, Value>) -> Self {
        let key = Value::Object(key);
        if let Some(Value::Array(keys)) = self.metadata.0.get_mut("jwks").and_then(|jwks| jwks.get_mut("keys")) {
            if !keys.contains(&key) {
                keys.push(key);
            }
            return self;
        }
        self.set("jwks", json!({ "keys": [key] }))
    }
}

/// The members for [`CertificateSubject`], in its order. A client has one of them.
pub(super) const SUBJECTS: [&str; 5] = [
    "tls_client_auth_subject_dn",
    "tls_client_auth_san_dns",
    "tls_client_auth_san_uri",
    "tls_client_auth_san_ip",
    "tls_client_auth_san_email",
];

fn texts<S: Into<String>>(values: impl IntoIterator<Item = S>) -> Value {
    Value::Array(values.into_iter().map(|value| Value::String(value.into())).collect())
}

#[cfg(test)]
mod tests {
    use openidconnect::core::{
        CoreApplicationType, CoreClientAuthMethod, CoreClientMetadata, CoreGrantType, CoreJwsSigningAlgorithm,
        CoreResponseType,
    };
    use openidconnect::{LanguageTag, ResponseTypes};

    use super::*;
    use crate::jose::SigningKey;

    #[test]
    fn another_library_reads_the_same_metadata() {
        let key = SigningKey::generate(SigningAlgorithm::Es256).unwrap();
        let request = RegistrationRequest::new("https://rp.test/callback")
            .private_key_jwt(&key)
            .application_type(ApplicationType::Native)
            .client_name("Example")
            .client_name_in("ja", "例")
            .contacts(["ops@rp.test"])
            .algorithms(ClientAlgorithms::new().id_token_signed_response_alg(SigningAlgorithm::Ps256))
            .default_max_age(Duration::from_secs(60))
            .require_auth_time()
            .subject_type(SubjectType::Pairwise)
            .initiate_login_uri("https://rp.test/login");
        let json = serde_json::to_string(request.metadata()).unwrap();
        let read: CoreClientMetadata = serde_json::from_str(&json).unwrap();
        assert_eq!(read.redirect_uris()[0].as_str(), "https://rp.test/callback");
        let deferred = CoreResponseType::Extension("deferred_code".to_owned());
        assert_eq!(read.response_types(), Some(&vec![ResponseTypes::new(vec![deferred])]));
        assert_eq!(
            read.grant_types(),
            Some(&vec![CoreGrantType::Extension(Dialect::OpenId.protocol().grant_type().to_owned())])
        );
        assert_eq!(read.token_endpoint_auth_method(), Some(&CoreClientAuthMethod::PrivateKeyJwt));
        assert_eq!(read.token_endpoint_auth_signing_alg(), Some(&CoreJwsSigningAlgorithm::EcdsaP256Sha256));
        assert_eq!(read.id_token_signed_response_alg(), Some(&CoreJwsSigningAlgorithm::RsaSsaPssSha256));
        assert_eq!(read.application_type(), Some(&CoreApplicationType::Native));
        let names = read.client_name().unwrap();
        assert_eq!(names.get(None).unwrap().as_str(), "Example");
        assert_eq!(names.get(Some(&LanguageTag::new("ja".to_owned()))).unwrap().as_str(), "例");
        assert_eq!(read.contacts().unwrap()[0].as_str(), "ops@rp.test");
        assert_eq!((read.default_max_age(), read.require_auth_time()), (Some(&Duration::from_secs(60)), Some(true)));
        assert_eq!(read.jwks().unwrap().keys().len(), 1);
        assert_eq!(read.initiate_login_uri().unwrap().as_str(), "https://rp.test/login");
    }
}
