//! What an operator should do about an error.

use super::{
    ConfigurationProblem, Error, ErrorKind, ErrorResponse, Misuse, Rule, SessionProblem, TransportProblem, Violation,
};

impl Error {
    /// What should be done about it, in a sentence or two for whoever reads the log. It depends on nothing but the kind
    /// of error, so it can also stand in a runbook.
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
                "Let the user reload: nothing was sent, and another replica or the restarted process takes the response."
            }
            ErrorKind::Misuse(_) => "The application calls this crate in a way that cannot work: change its code.",
            ErrorKind::Session(problem) => session(*problem),
            ErrorKind::ErrorResponse(response) => response_advice(response),
            ErrorKind::Protocol(violation) => violation.advice(),
            ErrorKind::Transport(problem) => transport(*problem),
            ErrorKind::OutcomeUnknown => {
                "Let the user start again, or repeat the refresh; after a registration ask the OP what it has. If it \
                 happens often, something between us and the OP \
                 loses its answers."
            }
            ErrorKind::Signer => "Look after the service or the module that keeps the private key; it is tried again.",
            ErrorKind::Store => "Bring the database back. Nothing is lost meanwhile, and nothing is asked.",
            ErrorKind::Busy => "Let the user reload. If it happens often, ask the OP why it is slow, or add replicas.",
            ErrorKind::Sealed => {
                "Give the keyring the key that sealed it, or deploy the release that wrote it. If neither helps, it was \
                 altered."
            }
            ErrorKind::Randomness => {
                "The operating system gives no randomness. Nothing safe can be done until it does."
            }
            ErrorKind::Cryptography => "OpenSSL has failed. Look at its version and configuration (FIPS, providers).",
        }
    }
}

impl Violation {
    /// What should be done about it, as [`Error::advice`] says.
    pub fn advice(&self) -> &'static str {
        rule(self.rule())
    }
}

fn configuration(problem: &ConfigurationProblem) -> &'static str {
    match problem {
        ConfigurationProblem::NotAdvertised { .. } => {
            "Choose what the OP lists, ask it to list what it offers, or override the check with `allow_unadvertised`."
        }
        ConfigurationProblem::Registered { .. } => {
            "Ask for what the OP registers, or ask the OP to allow it, and update the registration or register again."
        }
        ConfigurationProblem::FapiNotAdvertised { .. } => {
            "Ask the OP whether it keeps to FAPI 2.0 and why it does not say so, or do without `fapi2` there."
        }
        ConfigurationProblem::NoEndpoint(_) => "The OP does not offer this. Ask it, or do without.",
        ConfigurationProblem::NoEncryptionKey(_) => {
            "Ask the OP to publish a key for encryption, or register an algorithm that it has one for."
        }
        ConfigurationProblem::SharedRedirectUri { .. } => {
            "Register a redirect URI of its own for one of the two clients, and route it there."
        }
        ConfigurationProblem::PrivateAddress { .. } => {
            "Take this OP or API out, or remove `refuse_private_addresses` if it belongs in your own network."
        }
        _ => "Change the settings that the error names, and start again.",
    }
}

fn session(problem: SessionProblem) -> &'static str {
    match problem {
        SessionProblem::Expired => "Let the user start again: they were away for longer than a session lives.",
        SessionProblem::Foreign => {
            "Let the user start again. If it happens often, cookies of two clients are mixed up in the application."
        }
        SessionProblem::Unreadable => {
            "Let the user start again. If it happens often, instances of the application have different keyrings."
        }
    }
}

fn response_advice(response: &ErrorResponse) -> &'static str {
    match response.code() {
        "invalid_client" => {
            "Compare the client's identifier, secret, key or certificate and its method with what the OP registered."
        }
        "unauthorized_client" | "unsupported_grant_type" | "unsupported_response_type" => {
            "Ask the OP to register the client for this grant and response type."
        }
        "invalid_scope" => "Ask for scopes that the OP registered for this client.",
        "invalid_dpop_proof" => {
            "Compare this machine's clock with the OP's, and the proof's algorithm with its metadata."
        }
        "invalid_redirect_uri" => "Ask for redirect URIs that the OP accepts; its description may say which.",
        "invalid_client_metadata" => {
            "Change what is asked for: the OP does not register it like that. Its description may say what it minds."
        }
        "invalid_software_statement" | "unapproved_software_statement" => {
            "Get a software statement from an issuer that the OP trusts, and one that has not expired."
        }
        "invalid_token" | "insufficient_scope" => "Refresh the access token, or ask for the scope that is missing.",
        "invalid_grant" => "It was used, has expired or belongs to another client or key. Let the user start again.",
        "invalid_request" | "invalid_target" | "invalid_authorization_details" => {
            "The OP does not accept the request as it is. Its description says why; compare the settings with its guide."
        }
        "access_denied"
        | "login_required"
        | "consent_required"
        | "interaction_required"
        | "account_selection_required" => "The user or the OP declined. Let the user start again if they want to.",
        _ if response.is_transient() => "Wait: the OP has trouble or too much to do.",
        _ => "Ask the OP what it means by this code.",
    }
}

fn transport(problem: TransportProblem) -> &'static str {
    match problem {
        TransportProblem::Connect => {
            "Check that this machine reaches the OP: name resolution, firewall, proxy, and the certificate authorities \
             that it trusts."
        }
        TransportProblem::Timeout | TransportProblem::Broken => {
            "Wait. If it lasts, look at the OP's status and at the proxies in between."
        }
        TransportProblem::BodyTooLarge(_) => "No genuine answer is as large: ask the OP what it sends.",
        TransportProblem::PrivateAddress => {
            "If the server belongs in your own network, remove `refuse_private_addresses`. If not, somebody may be trying \
             to reach into it, or the name service is broken."
        }
        TransportProblem::Refused => {
            "Use `https:` URLs without user names; plain HTTP needs a loopback address and `allow_insecure_loopback`."
        }
    }
}

fn rule(rule: Rule) -> &'static str {
    match rule {
        Rule::ResponseNotJwt | Rule::UnrequestedJwt => {
            "Let the user start again. If it happens always, the OP does not do as the `response_mode` asks, or the callback \
             is routed to another client."
        }
        rule if rule.is_forgery() => {
            "Let the user start again. Many of these at once are an attack, or a callback that is routed to the wrong \
             client."
        }
        Rule::IssuerMismatch => "Set the issuer exactly as the OP's metadata spells it, to the last slash.",
        Rule::InsecureEndpoint => "Ask the OP to name its endpoints with `https:` URLs that have no user name.",
        Rule::PrivateEndpoint => {
            "If the OP is in your own network, set `allow_private_addresses`. If not, ask it: its metadata points into \
             yours."
        }
        Rule::KeysUnavailable => "Wait: the OP's keys are out of reach, and what needs them is kept.",
        Rule::KeysOutdated => "Wait a few seconds: the OP's keys are fetched again, and what needs them is kept.",
        Rule::MetadataOutdated => {
            "Wait a few seconds: the OP's metadata are fetched again, and what needs them is kept."
        }
        Rule::NoUsableKey => {
            "Look at the source of the error, which says why a key was left out, and at the OP's key set."
        }
        Rule::IdTokenNoKey | Rule::JwtResponseNoKey | Rule::UserInfoNoKey => {
            "Wait for the OP to publish its key, or ask whether it rotated keys too fast."
        }
        Rule::NoDecryptionKey => {
            "Give the client the decryption key that was published, also the one before a rotation."
        }
        Rule::Decryption | Rule::EncryptionHeader | Rule::NotEncrypted | Rule::UserInfoUnsigned => {
            "Compare the registered algorithms for encryption and signatures with the client's settings and keys."
        }
        Rule::IdTokenAlgorithm => {
            "Register `id_token_signed_response_alg` with the OP and set the same one here; they differ."
        }
        Rule::JwtResponseAlgorithm => {
            "Register `authorization_signed_response_alg` with the OP and set the same one here; they differ."
        }
        Rule::JwtResponseExpired
        | Rule::IdTokenExpired
        | Rule::IdTokenIssuedAt
        | Rule::IdTokenNotBefore
        | Rule::IdTokenAuthTime => {
            "Compare this machine's clock with the OP's. If they agree, the OP issues tokens with wrong times."
        }
        Rule::PathSuffix => {
            "Pass the path before a nested router strips its prefix (axum: `OriginalUri`), or the whole URL. The query alone does where this is the only OP, or where all OPs send `iss`. If the path is whole, somebody tried to mix up two OPs."
        }
        Rule::RequestUriExpired => "Send the user out as soon as the request was pushed, or start again.",
        Rule::UnknownError => "Ask the OP what it means by this code; meanwhile it is asked again.",
        rule if rule.is_transient() => {
            "Wait. If it lasts, something between us and the OP answers in its place, or the OP is broken."
        }
        _ => "Nobody was signed in by it. Show the OP the rule and its section: its answer breaks them.",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_and_kind_has_advice_that_is_a_sentence() {
        let rules = Rule::ALL.iter().map(|rule| Error::from(Violation::new(*rule)));
        let codes = [
            "invalid_client",
            "invalid_grant",
            "access_denied",
            "server_error",
            "invalid_client_metadata",
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
            Misuse::CodeSpent.into(),
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
