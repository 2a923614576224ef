//! RFC 7591, RFC 7592 and OpenID Connect Dynamic Client Registration 1.0: clients that register themselves (DTR §Client
//! Registration Metadata).

use std::fmt;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use url::Url;

use crate::clock::from_unix_seconds;
use crate::error::Error;
use crate::keyring::{Keyring, Purpose};
use crate::random::SystemRandom;
use crate::sealed::{self, Sealable};
use crate::secret::Secret;

mod checks;
mod difference;
mod metadata;
mod refusal;
mod registrar;
mod request;
mod response;
mod to_client;

pub use difference::{DifferenceEffect, RegistrationDifference};
pub use metadata::ClientMetadata;
pub use refusal::RegistrationRefusal;
pub use registrar::{Registrar, RegistrarBuilder};

pub use request::{ApplicationType, CertificateSubject, RegistrationRequest, SubjectType};

/// What an OP issues with a registration, in addition to the metadata (RFC 7591 §3.2.1, RFC 7592 §3). RFC 7592 §2.2: a
/// request for an update "MUST NOT include the "registration_access_token", "registration_client_uri",
/// "client_secret_expires_at", or "client_id_issued_at" fields".
const ISSUED: [&str; 6] = [
    "client_id",
    "client_secret",
    "client_id_issued_at",
    "client_secret_expires_at",
    "registration_access_token",
    "registration_client_uri",
];

/// A client that is registered at an OP: its identifier and secret, the requested and the registered metadata, and the
/// means to manage it.
///
/// A [`Registrar`] creates it; [`client`](Self::client) makes a client of it. [Seal](Self::seal) and store it before it
/// is used, and again after each [`Registrar::read`] and [`Registrar::update`]. These may replace the secret and the
/// registration access token, and the old ones may be invalid then.
///
/// `Debug` shows neither the secret, the token nor values of the metadata.
#[derive(Clone)]
pub struct Registration(Box<Body>);

#[derive(Clone, Serialize, Deserialize)]
struct Body {
    #[serde(rename = "v")]
    version: u8,
    #[serde(rename = "iss")]
    issuer: String,
    #[serde(rename = "cid")]
    client_id: String,
    #[serde(rename = "sec", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<Secret>,
    /// In seconds since 1970.
    #[serde(rename = "iat", default, skip_serializing_if = "Option::is_none")]
    issued_at: Option<u64>,
    /// In seconds since 1970. `None` if it does not expire or the OP sent no time.
    #[serde(rename = "exp", default, skip_serializing_if = "Option::is_none")]
    secret_expires_at: Option<u64>,
    #[serde(rename = "uri", default, skip_serializing_if = "Option::is_none")]
    configuration_endpoint: Option<Url>,
    #[serde(rename = "rat", with = "sealed::optional_secret", default, skip_serializing_if = "Option::is_none")]
    access_token: Option<Secret>,
    #[serde(rename = "req")]
    requested: ClientMetadata,
    #[serde(rename = "reg")]
    registered: ClientMetadata,
}

impl Sealable for Body {
    const PURPOSE: Purpose = Purpose::Registration;
    const VERSION: u8 = 1;

    fn version(&self) -> u8 {
        self.version
    }
}

impl Registration {
    /// The issuer identifier of the OP.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The client identifier that the OP chose.
    pub fn client_id(&self) -> &str {
        &self.0.client_id
    }

    /// The client secret, if the OP issued one.
    pub fn client_secret(&self) -> Option<&Secret> {
        self.0.client_secret.as_ref()
    }

    /// When the client secret expires. [Read](Registrar::read) the registration before that: OPs whose secrets expire
    /// then issue a new one. `None` if it does not expire, or if there is none.
    pub fn client_secret_expires_at(&self) -> Option<SystemTime> {
        self.0.secret_expires_at.map(from_unix_seconds)
    }

    /// When the client was registered, if the OP said so.
    pub fn client_id_issued_at(&self) -> Option<SystemTime> {
        self.0.issued_at.map(from_unix_seconds)
    }

    /// The URL at which the registration is managed (`registration_client_uri`, RFC 7592 §3), if the OP offers that. It
    /// has been checked like every endpoint of the OP.
    pub fn registration_client_uri(&self) -> Option<&Url> {
        self.0.configuration_endpoint.as_ref()
    }

    /// The token that manages the registration (`registration_access_token`, RFC 7592 §3). Anyone who has it can take
    /// over the client.
    pub fn registration_access_token(&self) -> Option<&Secret> {
        self.0.access_token.as_ref()
    }

    /// The metadata that the OP registered, as far as it says.
    pub fn metadata(&self) -> &ClientMetadata {
        &self.0.registered
    }

    /// The metadata that was requested, in the registration or in the last update.
    pub fn requested(&self) -> &ClientMetadata {
        &self.0.requested
    }

    /// The members that the OP registered differently from the request, the worst first (RFC 7591 §3.2.1). Differences
    /// that [break](DifferenceEffect::Breaks) the client are also errors of [`client`](Self::client). The application
    /// must assess those that [weaken](DifferenceEffect::Weakens) it.
    ///
    /// ```
    /// # fn example(registration: &openid_deferred::registration::Registration) {
    /// use openid_deferred::registration::DifferenceEffect;
    ///
    /// for difference in registration.differences() {
    ///     if difference.effect() >= DifferenceEffect::Weakens {
    ///         eprintln!("{difference}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn differences(&self) -> Vec<RegistrationDifference> {
        difference::differences(&self.0.requested, &self.0.registered)
    }

    /// Seals everything into bytes that can be stored anywhere. [`open`](Self::open) reverses it.
    ///
    /// # Errors
    ///
    /// Fails only if randomness or the cryptographic library fails.
    pub fn seal(&self, keyring: &Keyring) -> Result<Vec<u8>, Error> {
        sealed::seal(keyring, &SystemRandom, &[], &*self.0)
    }

    /// Opens the result of [`seal`](Self::seal).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Sealed`](crate::ErrorKind::Sealed) if the bytes were altered, are of another kind or a newer
    /// format, or were sealed with a key that the keyring does not have.
    pub fn open(keyring: &Keyring, sealed: &[u8]) -> Result<Self, Error> {
        Ok(Self(Box::new(sealed::open(keyring, &[], sealed)?)))
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Registration")
            .field("issuer", &self.0.issuer)
            .field("client_id", &self.0.client_id)
            .field("metadata", &self.0.registered)
            .field("is_manageable", &(self.0.configuration_endpoint.is_some() && self.0.access_token.is_some()))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::response::ClientInformation;
    use super::*;
    use crate::error::ErrorKind;

    /// Databases contain the sealed form, so every later release must open it.
    #[test]
    fn a_registration_stored_by_an_earlier_release_opens() {
        let keyring = Keyring::ephemeral().unwrap();
        let stored = json!({
            "v": 1, "iss": "https://op.test", "cid": "the-app", "sec": "s3cret", "iat": 5, "exp": 7,
            "uri": "https://op.test/register/the-app", "rat": "token",
            "req": { "redirect_uris": ["https://rp.test/"] }, "reg": { "client_name": "Example", "new": [1] },
        });
        let open = |stored: &Value| {
            let sealed =
                keyring.seal(&SystemRandom, Purpose::Registration, &[], stored.to_string().as_bytes()).unwrap();
            Registration::open(&keyring, &sealed)
        };
        let registration = open(&stored).unwrap();
        assert_eq!((registration.issuer(), registration.client_id()), ("https://op.test", "the-app"));
        assert_eq!(registration.client_secret().unwrap().expose(), "s3cret");
        assert_eq!(registration.client_id_issued_at(), Some(from_unix_seconds(5)));
        assert_eq!(registration.client_secret_expires_at(), Some(from_unix_seconds(7)));
        assert_eq!(registration.registration_client_uri().unwrap().path(), "/register/the-app");
        assert_eq!(registration.registration_access_token().unwrap().expose(), "token");
        assert_eq!(registration.requested().redirect_uris(), ["https://rp.test/"]);
        assert_eq!(registration.metadata().get("new"), Some(&json!([1])));
        assert_eq!(serde_json::to_value(&registration.0).unwrap(), stored);

        let smallest = json!({ "v": 1, "iss": "i", "cid": "c", "req": {}, "reg": {} });
        assert!(open(&smallest).unwrap().client_secret().is_none());
        let newer = json!({ "v": 2, "iss": "i", "cid": "c", "req": {}, "reg": {} });
        assert_eq!(*open(&newer).unwrap_err().kind(), ErrorKind::Sealed);
    }

    #[test]
    fn arbitrary_registration_responses_are_read_or_refused_and_can_be_compared() {
        let odd = [
            json!(null),
            json!(true),
            json!(-1),
            json!(1e300),
            json!(""),
            json!("x"),
            json!("\u{0}"),
            json!("é"),
            json!("a".repeat(10_000)),
            json!([]),
            json!([null, 7, "a b"]),
            json!({}),
            json!({ "keys": [7, {}] }),
        ];
        let good = json!({
            "client_id": "a", "client_secret": "s", "client_secret_expires_at": 0, "client_id_issued_at": 1,
            "registration_access_token": "t", "registration_client_uri": "https://op.test/a",
            "redirect_uris": ["https://rp.test/"], "grant_types": ["a"], "response_types": ["code"], "scope": "openid",
            "jwks": { "keys": [] }, "token_endpoint_auth_method": "none", "id_token_signed_response_alg": "RS256",
            "default_max_age": 1, "client_name#de": "B", "dpop_bound_access_tokens": true,
        });
        let requested = RegistrationRequest::new("https://rp.test/").metadata().clone();
        let (mut read, mut refused) = (0, 0);
        for name in good.as_object().unwrap().keys() {
            for value in &odd {
                let mut answer = good.clone();
                answer[name] = value.clone();
                match ClientInformation::parse(answer.to_string().as_bytes(), |_| Ok(())) {
                    Ok(information) => {
                        read += 1;
                        assert!(!information.client_id.is_empty());
                        let shown = format!("{:?}", difference::differences(&requested, &information.metadata));
                        assert!(!shown.contains("https://rp.test/"), "values do not show");
                        assert!(ISSUED.iter().all(|issued| information.metadata.get(issued).is_none()));
                    }
                    Err(violation) => {
                        refused += 1;
                        assert_eq!(violation.member(), Some(name.as_str()));
                    }
                }
            }
        }
        assert!(read > 150 && refused > 30, "{read} {refused}");
    }
}
