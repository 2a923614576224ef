//! What must hold before a user can be asked.

use crate::client::Client;
use crate::client::delivery_mode::DeliveryMode;
use crate::client::setting::setting;
use crate::dialect::Dialect;
use crate::error::{ConfigurationProblem, Error};
use crate::provider::ProviderMetadata;
use crate::secret::Secret;

/// CIBA §7.1: "The length of the token MUST NOT exceed 1024 characters".
const LONGEST_NOTIFICATION_TOKEN: usize = 1_024;
/// 128 bits, which CIBA §7.1 requires, in base64url.
const SHORTEST_NOTIFICATION_TOKEN: usize = 22;

impl Client {
    /// Whether settings of this client concern CIBA.
    pub(in crate::client) fn is_for_backchannel(&self) -> bool {
        let options = &self.0.options;
        options.backchannel_delivery.is_some() || options.signed_backchannel_requests || options.fapi_ciba
    }

    fn delivery_mode(&self) -> DeliveryMode {
        self.0.options.backchannel_delivery.unwrap_or_default()
    }

    /// Whether the OP gets a notification token with requests of this dialect. CIBA has none in poll mode.
    pub(in crate::client) fn is_notified(&self, dialect: Dialect) -> bool {
        dialect != Dialect::Ciba || self.delivery_mode() == DeliveryMode::Ping
    }

    /// Checks that this client can send backchannel authentication requests to this OP (CIBA §4).
    pub(in crate::client) fn check_backchannel(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        const MODES: &str = "backchannel_token_delivery_modes_supported";
        let mode = self.delivery_mode();
        if mode == DeliveryMode::Push {
            return Err(setting(
                "backchannel_token_delivery_mode",
                "push mode is not supported; have the client registered for `poll` or `ping`",
            ));
        }
        let identity = self.identity_at(metadata)?;
        if identity.authentication.method() == "none" {
            let problem = "a client that asks for users by name must be confidential (CIBA §7)";
            return Err(setting("authentication", problem));
        }
        self.check_secret(&identity.authentication)?;
        self.check_fapi_ciba(metadata)?;
        self.endpoints(metadata, identity).backchannel_authentication()?;
        if !self.0.options.allow_unadvertised {
            let grant = Dialect::Ciba.protocol().grant_type();
            if !lists(metadata.grant_types_supported(), grant) {
                return Err(not_advertised("grant_types_supported", grant));
            }
            let modes = metadata.backchannel_token_delivery_modes_supported();
            if !metadata.is_silent_about(MODES) && !lists(modes, mode.as_str()) {
                return Err(not_advertised(MODES, mode.as_str()));
            }
        }
        Ok(())
    }

    /// CIBA §4: an OP that lists no algorithms does not accept signed requests.
    pub(in crate::client) fn check_backchannel_signature(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        const ALGORITHMS: &str = "backchannel_authentication_request_signing_alg_values_supported";
        let algorithm = self.request_object_signer()?.algorithm();
        if algorithm.is_symmetric() {
            let problem = "signed requests need a key pair (CIBA §4)";
            return Err(setting("request_object_signing_key", problem));
        }
        let listed = metadata.backchannel_authentication_request_signing_alg_values_supported();
        match self.0.options.allow_unadvertised || lists(listed, algorithm.as_str()) {
            true => Ok(()),
            false => Err(not_advertised(ALGORITHMS, algorithm.as_str())),
        }
    }

    /// CIBA §4: "If omitted, the default value is false."
    pub(super) fn check_user_code(&self, metadata: &ProviderMetadata) -> Result<(), Error> {
        match self.0.options.allow_unadvertised || metadata.backchannel_user_code_parameter_supported() {
            true => Ok(()),
            false => Err(not_advertised("backchannel_user_code_parameter_supported", "true")),
        }
    }

    /// CIBA §7.1: the syntax of a bearer token (RFC 6750 §2.1), at most 1,024 characters, at least 128 bits.
    pub(super) fn check_notification_token(&self, token: &Secret) -> Result<(), Error> {
        let problem = match token.expose() {
            _ if self.delivery_mode() != DeliveryMode::Ping => {
                "this client is not set to ping mode; set `backchannel_token_delivery_mode`"
            }
            token if token.len() > LONGEST_NOTIFICATION_TOKEN => "it is longer than 1,024 characters (CIBA §7.1)",
            token if token.len() < SHORTEST_NOTIFICATION_TOKEN => "it is shorter than 128 random bits (CIBA §7.1)",
            token if !is_bearer_token(token) => "it is no bearer token (RFC 6750 §2.1)",
            _ => return Ok(()),
        };
        Err(setting("notification_token", problem))
    }

    /// Refuses a request of ping mode without a token, by which the OP would authenticate its ping.
    pub(super) fn check_is_notified(&self, token: Option<&Secret>) -> Result<(), Error> {
        match (self.delivery_mode(), token) {
            (DeliveryMode::Ping, None) => Err(setting(
                "notification_token",
                "ping mode needs one (CIBA §7.1); set it on the request, or let a poller receive pings",
            )),
            (DeliveryMode::Ping, Some(token)) => self.check_notification_token(token),
            _ => Ok(()),
        }
    }
}

/// `b64token`.
fn is_bearer_token(token: &str) -> bool {
    let body = token.trim_end_matches('=');
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
    !body.is_empty() && body.bytes().all(fits)
}

fn lists(listed: &[String], value: &str) -> bool {
    listed.iter().any(|listed| listed == value)
}

fn not_advertised(member: &'static str, value: &str) -> Error {
    ConfigurationProblem::NotAdvertised { member, value: value.to_owned() }.into()
}
