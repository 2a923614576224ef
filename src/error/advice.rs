//! What an operator should do about an error.

use super::{
    ConfigurationProblem, Error, ErrorKind, ErrorResponse, Misuse, Rule, SessionProblem, TransportProblem, Violation,
};

impl Error {
    /// What an operator should do about the error, in a sentence or two. It depends only on the kind of error, so it
    /// can also be used in a runbook.
    ///
    /// ```
    /// # async fn example(client: openid_deferred::Client) {
    /// if let Err(error) = client.provider_metadata().await {
    ///     eprintln!("{error}. {}", error.advice());
    /// }
    /// # }
    /// ```
    pub fn advice(&self) -> &'static str {
        match self.kind() {
            ErrorKind::Configuration(problem) => configuration(problem),
            ErrorKind::Misuse(Misuse::ShutDown) => {
                "Let the user reload: nothing was sent, and another replica or the restarted application handles the response."
            }
            ErrorKind::Misuse(_) => "The application calls this crate incorrectly: change its code.",
            ErrorKind::Session(problem) => session(*problem),
            ErrorKind::ErrorResponse(response) => response_advice(response),
            ErrorKind::Protocol(violation) => violation.advice(),
            ErrorKind::Transport(problem) => transport(*problem),
            ErrorKind::OutcomeUnknown => {
                "Let the user start again, or repeat the refresh. After a registration ask the OP what it registered. If \
                 this happens often, look for a proxy between the application and the OP that loses responses."
            }
            ErrorKind::Signer => "Check the service or module that holds the private key. The operation is retried.",
            ErrorKind::Store => "Restore the database. Until then no polls are sent, and nothing is lost.",
            ErrorKind::Busy => {
                "Let the user reload. If this happens often, ask the OP why it is slow, or add replicas."
            }
            ErrorKind::Sealed => {
                "Add the key that sealed the value to the keyring, or deploy the release that wrote it. If neither helps, \
                 the value was altered."
            }
            ErrorKind::Randomness => {
                "Check the operating system's source of randomness. No operation that needs it can continue."
            }
            ErrorKind::Cryptography => "OpenSSL failed. Check its version and configuration (FIPS, providers).",
        }
    }
}

impl Violation {
    /// What an operator should do about it, as in [`Error::advice`].
    pub fn advice(&self) -> &'static str {
        rule(self.rule())
    }
}

fn configuration(problem: &ConfigurationProblem) -> &'static str {
    match problem {
        ConfigurationProblem::NotAdvertised { .. } => {
            "Use a value that the OP lists, ask the OP to list what it supports, or set `allow_unadvertised`."
        }
        ConfigurationProblem::Registered { .. } => {
            "Request what the OP registers, or ask the OP to allow your request, and update the registration or register again."
        }
        ConfigurationProblem::FapiNotAdvertised { .. } => {
            "Ask the OP whether it supports FAPI and why its metadata does not say so, or do not use the FAPI settings with it."
        }
        ConfigurationProblem::NoEndpoint(_) => "The OP does not support this. Ask it, or do not use the feature.",
        ConfigurationProblem::NoEncryptionKey(_) => {
            "Ask the OP to publish an encryption key, or register an algorithm for which it has one."
        }
        ConfigurationProblem::SharedRedirectUri { .. } => {
            "Register a separate redirect URI for one of the two clients, and route it to that client."
        }
        ConfigurationProblem::PrivateAddress { .. } => {
            "Remove this OP or API, or remove `refuse_private_addresses` if the address belongs to your own network."
        }
        _ => "Change the settings that the error names, and start again.",
    }
}

fn session(problem: SessionProblem) -> &'static str {
    match problem {
        SessionProblem::Expired => {
            "Let the user start again: they were away for longer than the lifetime of a session."
        }
        SessionProblem::Foreign => {
            "Let the user start again. If this happens often, the application confuses the cookies of two clients."
        }
        SessionProblem::Missing => {
            "Let the user start again, in one browser. If this happens often, check the attributes of the cookie; \
             `form_post` needs `SameSite=None`."
        }
        SessionProblem::Unreadable => {
            "Let the user start again. If this happens often, instances of the application have different keyrings."
        }
    }
}

fn response_advice(response: &ErrorResponse) -> &'static str {
    match response.code() {
        "invalid_client" => {
            "Compare the client's identifier, credentials and authentication method with what the OP registered."
        }
        "unauthorized_client" | "unsupported_grant_type" | "unsupported_response_type" => {
            "Ask the OP to register the client for this grant and response type."
        }
        "invalid_scope" => "Request only scopes that the OP registered for this client.",
        "invalid_dpop_proof" => {
            "Compare this machine's clock with the OP's, and the proof's algorithm with its metadata."
        }
        "invalid_redirect_uri" => "Request redirect URIs that the OP accepts; its error description may name them.",
        "invalid_client_metadata" => {
            "Change the request: the OP does not register this metadata. Its error description may name the problem."
        }
        "invalid_software_statement" | "unapproved_software_statement" => {
            "Get a valid software statement from an issuer that the OP trusts."
        }
        "unknown_user_id" | "missing_user_code" | "invalid_user_code" | "expired_login_hint_token" => {
            "Let the user of the page correct their input. If this happens often, an attacker may be guessing user names."
        }
        "invalid_binding_message" => "Send a shorter `binding_message` of plain text.",
        "invalid_token" | "insufficient_scope" => "Refresh the access token, or request the missing scope.",
        "invalid_grant" => {
            "Let the user start again: the grant was used, has expired, or belongs to another client or key."
        }
        "invalid_request" | "invalid_target" | "invalid_authorization_details" => {
            "The OP does not accept the request. Read its error description, and compare the settings with its documentation."
        }
        "access_denied"
        | "login_required"
        | "consent_required"
        | "interaction_required"
        | "account_selection_required" => "The user or the OP declined. Let the user start again if they want to.",
        _ if response.is_transient() => "Wait: the OP is unavailable or overloaded.",
        _ => "Ask the OP what it means by this code.",
    }
}

fn transport(problem: TransportProblem) -> &'static str {
    match problem {
        TransportProblem::Connect => {
            "Check that this machine reaches the OP: name resolution, firewall, proxy, and trusted certificate \
             authorities."
        }
        TransportProblem::Timeout | TransportProblem::Broken => {
            "Wait. If it lasts, check the OP's status and the proxies in between."
        }
        TransportProblem::BodyTooLarge(_) => "Ask the OP why its response is so large.",
        TransportProblem::PrivateAddress => {
            "If the server belongs to your own network, remove `refuse_private_addresses`. If not, this may be an attack on \
             your network, or a wrong DNS entry."
        }
        TransportProblem::Refused => {
            "Use `https:` URLs without user names; plain HTTP needs a loopback address and `allow_insecure_loopback`."
        }
    }
}

fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::ResponseNotJwt | Rule::UnrequestedJwt => {
            "Let the user start again. If it happens every time, the OP ignores the `response_mode`, or the callback is \
             routed to another client."
        }
        rule if rule.is_forgery() => {
            "Let the user start again. Many of these at once mean an attack, or a callback that is routed to the wrong \
             client."
        }
        Rule::IssuerMismatch => "Configure the issuer exactly as in the OP's metadata, including a trailing slash.",
        Rule::InsecureEndpoint => "Ask the OP to publish `https:` URLs without user names.",
        Rule::PrivateEndpoint => {
            "If the OP is in your own network, set `allow_private_addresses`. If not, ask the OP why its metadata names \
             private addresses."
        }
        Rule::KeysUnavailable => "Wait: the OP's keys are unavailable. Responses that need them are kept.",
        Rule::KeysOutdated => "Wait a few seconds: the OP's keys are fetched again. Responses that need them are kept.",
        Rule::MetadataOutdated => {
            "Wait a few seconds: the OP's metadata is fetched again. Responses that need it are kept."
        }
        Rule::NoUsableKey => {
            "Read the source of the error, which states why keys were skipped, and check the OP's key set."
        }
        Rule::PathSuffix => {
            "Pass the path before a nested router strips its prefix (axum: `OriginalUri`), or the whole URL. The query alone is enough if this is the only OP, or if all OPs send `iss`. If the path was complete, this may be a mix-up attack."
        }
        Rule::RequestUriExpired => "Redirect the user as soon as the request is pushed, or start again.",
        Rule::UnknownError => "Ask the OP what this code means. Polling continues.",
        rule if rule.is_transient() => {
            "Wait. If it lasts, check whether a proxy answers instead of the OP, and ask the OP."
        }
        rule => token(rule),
    }
}

/// About a token that was refused.
fn token(rule: Rule) -> &'static str {
    match rule {
        Rule::IdTokenNoKey | Rule::JwtResponseNoKey | Rule::UserInfoNoKey | Rule::LogoutTokenNoKey => {
            "Wait until the OP publishes its key, or ask whether it rotated keys too early."
        }
        Rule::NoDecryptionKey => {
            "Configure the published decryption keys, including the previous one after a rotation."
        }
        Rule::Decryption | Rule::EncryptionHeader | Rule::NotEncrypted | Rule::UserInfoUnsigned => {
            "Compare the registered encryption and signature algorithms with the client's settings and keys."
        }
        Rule::IdTokenAlgorithm => {
            "Register the same `id_token_signed_response_alg` with the OP that the client is configured with."
        }
        Rule::LogoutTokenAlgorithm => {
            "Configure the `id_token_signed_response_alg` that the client is registered with. The OP signs logout tokens \
             with it too."
        }
        Rule::LogoutTokenReplayed => {
            "Do nothing if the OP repeats tokens for which it got no response. Many of these indicate replayed tokens."
        }
        Rule::JwtResponseAlgorithm => {
            "Register the same `authorization_signed_response_alg` with the OP that the client is configured with."
        }
        Rule::JwtResponseExpired
        | Rule::IdTokenExpired
        | Rule::IdTokenIssuedAt
        | Rule::IdTokenNotBefore
        | Rule::IdTokenAuthTime
        | Rule::LogoutTokenExpired
        | Rule::LogoutTokenIssuedAt => {
            "Compare this machine's clock with the OP's. If they agree, the OP issues tokens with wrong times."
        }
        _ => "Report the rule and its section to the OP, whose response breaks it. The response was refused.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_advice_for_every_rule_and_kind_is_a_sentence() {
        let rules = Rule::ALL.iter().map(|rule| Error::from(Violation::new(*rule)));
        let codes = [
            "invalid_client",
            "invalid_grant",
            "access_denied",
            "server_error",
            "invalid_client_metadata",
            "unknown_user_id",
            "invalid_binding_message",
            "committee_in_recess",
        ];
        let responses = codes.iter().map(|code| Error::new(ErrorResponse::new(code, None, Some(400))));
        let others: [Error; 11] = [
            Error::new(ErrorKind::Store),
            Error::new(ErrorKind::Busy),
            Error::new(ErrorKind::Signer),
            Error::new(ErrorKind::Sealed),
            Error::new(ErrorKind::Randomness),
            Error::new(ErrorKind::Cryptography),
            Error::new(ErrorKind::OutcomeUnknown),
            Misuse::GrantAlreadyUsed.into(),
            Misuse::ShutDown.into(),
            SessionProblem::Expired.into(),
            TransportProblem::Timeout.into(),
        ];
        for error in rules.chain(responses).chain(others) {
            let advice = error.advice();
            assert!(advice.ends_with('.') && advice.len() > 30 && !advice.contains("  "), "{error}: {advice:?}");
        }
    }
}
