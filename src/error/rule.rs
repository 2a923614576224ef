//! The rules that a message from the OP or the browser can break, each with a stable code.

use std::fmt;

/// Declares [`Rule`] together with its texts, so that none can be forgotten.
macro_rules! rules {
    ($($(#[$attribute:meta])* $rule:ident = $code:literal, $text:literal, $section:literal;)*) => {
        /// A rule of the specifications that a message broke.
        #[non_exhaustive]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $(
                #[doc = concat!($text, ". Code `", $code, "`; ", $section, ".")]
                $(#[$attribute])*
                $rule,
            )*
        }

        impl Rule {
            /// Every rule, in the order of the flow.
            pub const ALL: &[Self] = &[$(Self::$rule,)*];

            /// A stable code for logs, metrics and alerts.
            pub fn code(self) -> &'static str {
                match self { $(Self::$rule => $code,)* }
            }

            /// The section of the specification that defines the rule.
            pub fn section(self) -> &'static str {
                match self { $(Self::$rule => $section,)* }
            }

            fn text(self) -> &'static str {
                match self { $(Self::$rule => $text,)* }
            }
        }
    };
}

rules! {
    // Any response
    UnexpectedStatus = "unexpected_status", "the response has an unexpected HTTP status", "RFC 6749 §5";
    UnexpectedRedirect = "unexpected_redirect", "the endpoint answered with a redirect, which is never followed", "RFC 9110 §15.4";
    UnexpectedContentType = "unexpected_content_type", "the response has an unexpected media type", "RFC 6749 §5.1";
    MalformedJson = "malformed_json", "the document is not the expected JSON", "RFC 8259";
    MissingMember = "missing_member", "a required member is missing", "RFC 6749 §5.1";
    RepeatedMember = "repeated_member", "a member that a check needs is repeated with another value", "RFC 8259 §4";
    InvalidMember = "invalid_member", "a member has an invalid value", "RFC 6749 §5.1";
    ErrorResponseWithSuccessStatus = "error_with_success_status", "the response contains both tokens and an error that contradicts them", "RFC 6749 §5.2";

    // Discovery and keys
    IssuerMismatch = "issuer_mismatch", "the metadata's `issuer` differs from the configured issuer", "OpenID Connect Discovery 1.0 §4.3";
    InsecureEndpoint = "insecure_endpoint", "the metadata names an endpoint that is not `https:`", "RFC 8414 §2";
    PrivateEndpoint = "private_endpoint", "the metadata names an endpoint at a private address, on a host other than the issuer's", "RFC 9728 §7.7";
    KeysUnavailable = "keys_unavailable", "the OP's keys cannot be fetched", "OpenID Connect Core 1.0 §10.1.1";
    KeysOutdated = "keys_outdated", "no fetched key verifies the token, and it is too early to fetch the OP's keys again", "OpenID Connect Core 1.0 §10.1.1";
    MetadataOutdated = "metadata_outdated", "the current metadata does not list the algorithm, and newer metadata cannot be fetched yet", "OpenID Connect Discovery 1.0 §3";
    NoUsableKey = "no_usable_key", "the key set contains no usable key", "RFC 7517 §5";

    // Pushed authorization requests
    RequestUriExpired = "request_uri_expired", "the request URI had expired before the browser could use it", "RFC 9126 §2.2";

    // Authorization response
    RepeatedParameter = "repeated_parameter", "the response repeats a parameter", "RFC 6749 §3.1";
    OversizedResponse = "oversized_response", "the response is too long", "RFC 9700 §4";
    StateMissing = "state_missing", "the response has no `state`", "DTR §Authentication Request Acknowledgment Validation; RFC 6749 §10.12";
    StateMismatch = "state_mismatch", "the `state` does not match the session", "RFC 6749 §10.12";
    IssMissing = "iss_missing", "the OP advertises `iss` in its responses, but this response has none", "RFC 9207 §2.4";
    IssMismatch = "iss_mismatch", "the response's `iss` does not name this OP", "RFC 9207 §2.4";
    PathSuffix = "path_suffix", "the path of the response is only a suffix of the redirect URI's path, and no `iss` names the OP: pass the whole path (axum: `OriginalUri`) or the whole URL", "RFC 9700 §4.4.2.2";
    WrongRedirectUri = "wrong_redirect_uri", "the response arrived at another redirect URI than the session's", "RFC 9700 §4.4.2.2";
    BothCodes = "both_codes", "the response contains both `code` and `deferred_code`", "DTR §Authentication Request Acknowledgment Validation";
    NoCode = "no_code", "the response contains neither a code nor an error", "DTR §Authentication Request Acknowledgment Validation";
    UnrequestedCode = "unrequested_code", "the response contains a code of a type that was not requested", "DTR §Authentication Request Acknowledgment Validation";
    UnrequestedToken = "unrequested_token", "the response contains a token that was not requested", "DTR §Deferred Code Response Type";
    InvalidCode = "invalid_code", "the code is empty, too long or contains invalid characters", "DTR §Authentication Request Acknowledgment";
    CodeAndError = "code_and_error", "the response contains both a code and an error", "RFC 6749 §4.1.2.1";

    // Authorization responses as JWTs
    ResponseNotJwt = "response_not_jwt", "the response is not a JWT, although one was requested", "JARM §2.3";
    UnrequestedJwt = "unrequested_jwt", "the response is a JWT, although none was requested", "JARM §2.3";
    JwtResponseMalformed = "jwt_response_malformed", "the response is not a well-formed JWT", "JARM §2.1; RFC 7519 §7.2";
    JwtResponseHeader = "jwt_response_header", "the response JWT has a critical header parameter", "RFC 7515 §4.1.11";
    JwtResponseClaims = "jwt_response_claims", "a claim of the response JWT has an invalid value", "JARM §2.1";
    JwtResponseIssuer = "jwt_response_iss", "the response JWT's `iss` is missing or does not name this OP", "JARM §2.4, 3";
    JwtResponseAudience = "jwt_response_aud", "the response JWT's `aud` is missing or is not exactly this client", "JARM §2.4, 4";
    JwtResponseExpired = "jwt_response_exp", "the response JWT has expired, has no `exp`, or is valid for more than a day", "JARM §2.4, 5";
    JwtResponseAlgorithm = "jwt_response_algorithm", "the response JWT is signed with an algorithm that this client does not accept", "JARM §2.4, 6";
    JwtResponseNoKey = "jwt_response_no_key", "the OP has no key for the response JWT", "JARM §2.4, 6";
    JwtResponseSignature = "jwt_response_signature", "the response JWT's signature does not verify", "JARM §2.4, 6";

    // Exchange and token responses
    NoDeferredAuthId = "no_deferred_auth_id", "the exchange response has no `deferred_auth_id`", "DTR §Deferred Code Exchange Response Validation";
    NoDeferralCode = "no_deferral_code", "the OP deferred its answer without a `deferral_code`", "IETF DTR §Token Endpoint — Deferred Response";
    NoAuthReqId = "no_auth_req_id", "the answer to the authentication request has no `auth_req_id`", "CIBA §7.3";
    TwoInterimIdTokens = "two_interim_id_tokens", "`id_token` and `interim_id_token` differ", "DTR §Successful Deferred Code Exchange Response";
    NoAccessToken = "no_access_token", "the token response has no `access_token`", "OpenID Connect Core 1.0 §3.1.3.3";
    NoIdToken = "no_id_token", "the final token response has no `id_token`", "OpenID Connect Core 1.0 §3.1.3.3";
    UnknownTokenType = "unknown_token_type", "the `token_type` is neither `DPoP` nor `Bearer`", "RFC 6749 §7.1; RFC 9449 §5";
    SecondNonceChallenge = "second_nonce_challenge", "the OP refused the DPoP nonce that it had just issued", "RFC 9449 §8";
    NonceMissing = "nonce_missing", "the OP requires a DPoP nonce but sends no usable one: the `DPoP-Nonce` header is missing, repeated with different values, malformed or longer than 4,096 bytes", "RFC 9449 §8";
    UnknownError = "unknown_error", "the OP answered with an unknown error code", "RFC 6749 §5.2";

    // Encrypted ID Tokens and UserInfo responses
    NotEncrypted = "not_encrypted", "the token is not encrypted, although encryption is registered", "OpenID Connect Core 1.0 §3.1.3.7, 1 and §5.3.2";
    EncryptionHeader = "encryption_header", "the encryption uses an algorithm or a header parameter that this client does not accept", "RFC 7516 §5.2; RFC 8725 §3.1";
    NoDecryptionKey = "no_decryption_key", "the client has no decryption key for the token", "OpenID Connect Core 1.0 §10.2";
    Decryption = "decryption", "the token cannot be decrypted", "RFC 7516 §5.2";

    // ID Tokens
    IdTokenMalformed = "id_token_malformed", "the ID Token is not a well-formed JWT", "RFC 7519 §7.2";
    IdTokenAlgorithm = "id_token_algorithm", "the ID Token is signed with an algorithm that this client does not accept", "OpenID Connect Core 1.0 §3.1.3.7, 7";
    IdTokenNoKey = "id_token_no_key", "the OP has no key for the ID Token", "OpenID Connect Core 1.0 §10.1";
    IdTokenSignature = "id_token_signature", "the ID Token's signature does not verify", "OpenID Connect Core 1.0 §3.1.3.7, 6";
    IdTokenHeader = "id_token_header", "the ID Token's header has an invalid `typ`, `cty` or `crit`", "RFC 7515 §4.1.9, §4.1.10 and §4.1.11";
    IdTokenIssuer = "id_token_iss", "the ID Token's `iss` does not name this OP", "OpenID Connect Core 1.0 §3.1.3.7, 2";
    IdTokenAudience = "id_token_aud", "the ID Token's `aud` lacks this client or names an untrusted audience", "OpenID Connect Core 1.0 §3.1.3.7, 3";
    IdTokenAuthorizedParty = "id_token_azp", "the ID Token's `azp` is not this client, or is missing although there are several audiences", "OpenID Connect Core 1.0 §3.1.3.7, 4 and 5";
    IdTokenExpired = "id_token_exp", "the ID Token's `exp` is missing or not a number, or the token had expired when it was received", "OpenID Connect Core 1.0 §3.1.3.7, 9";
    IdTokenIssuedAt = "id_token_iat", "the ID Token's `iat` is missing, not a number, or in the future", "OpenID Connect Core 1.0 §3.1.3.7, 10";
    IdTokenNotBefore = "id_token_nbf", "the ID Token's `nbf` is not a number, or is in the future", "RFC 7519 §4.1.5";
    IdTokenNonce = "id_token_nonce", "the ID Token's `nonce` is missing or differs from the one that was sent", "OpenID Connect Core 1.0 §3.1.3.7, 11";
    IdTokenSubject = "id_token_sub", "the ID Token's `sub` is missing, empty or longer than 255 characters", "OpenID Connect Core 1.0 §2";
    IdTokenAccessTokenHash = "id_token_at_hash", "the ID Token's `at_hash` does not match the access token", "OpenID Connect Core 1.0 §3.1.3.8";
    IdTokenCodeHash = "id_token_c_hash", "the ID Token's `c_hash` does not match the code", "OpenID Connect Core 1.0 §3.3.2.11";
    IdTokenAcr = "id_token_acr", "the ID Token's essential `acr` is missing or is not one of the requested values", "OpenID Connect Core 1.0 §3.1.3.7, 12 and §5.5.1.1";
    IdTokenAuthTime = "id_token_auth_time", "the ID Token's `auth_time` is missing, not a number, too old for `max_age`, or in the future", "OpenID Connect Core 1.0 §3.1.3.7, 13";
    IdTokenClaims = "id_token_claims", "a claim of the ID Token has an invalid value", "OpenID Connect Core 1.0 §5.1";
    InterimIdTokenAsFinal = "interim_id_token_as_final", "the ID Token of the final response or of a refresh repeats the interim one, or its `jti`", "DTR §Interim ID Tokens; RFC 7519 §4.1.7";
    SubjectChanged = "subject_changed", "the final ID Token has another `iss` or `sub` than the interim one", "DTR §Interim ID Tokens";
    HintedSubject = "hinted_subject", "the ID Token is about another user than the `id_token_hint` of the request", "CIBA §7.1";

    // Logout tokens
    LogoutTokenMalformed = "logout_token_malformed", "the logout token is not a well-formed JWT", "RFC 7519 §7.2";
    LogoutTokenHeader = "logout_token_header", "the logout token's header has a critical parameter or a `typ` of another kind of JWT", "OpenID Connect Back-Channel Logout 1.0 §2.4";
    LogoutTokenAlgorithm = "logout_token_algorithm", "the logout token is signed with an algorithm that this client does not accept", "OpenID Connect Back-Channel Logout 1.0 §2.6, 3";
    LogoutTokenNoKey = "logout_token_no_key", "the OP has no key for the logout token", "OpenID Connect Back-Channel Logout 1.0 §2.6, 2";
    LogoutTokenSignature = "logout_token_signature", "the logout token's signature does not verify", "OpenID Connect Back-Channel Logout 1.0 §2.6, 2";
    LogoutTokenIssuer = "logout_token_iss", "the logout token's `iss` is missing or does not name this OP", "OpenID Connect Back-Channel Logout 1.0 §2.6, 4";
    LogoutTokenAudience = "logout_token_aud", "the logout token's `aud` lacks this client or names an untrusted audience", "OpenID Connect Back-Channel Logout 1.0 §2.6, 4";
    LogoutTokenExpired = "logout_token_exp", "the logout token has expired, has no `exp`, or is valid for more than a day", "OpenID Connect Back-Channel Logout 1.0 §2.6, 4";
    LogoutTokenIssuedAt = "logout_token_iat", "the logout token's `iat` is missing, not a number, in the future or more than a day ago, or its `nbf` is in the future", "OpenID Connect Back-Channel Logout 1.0 §2.6, 4";
    LogoutTokenSubject = "logout_token_sub", "the logout token has neither a `sub` nor a `sid`, or one of them is empty or longer than 255 characters", "OpenID Connect Back-Channel Logout 1.0 §2.6, 5";
    LogoutTokenEvents = "logout_token_events", "the logout token's `events` lacks the event of a back-channel logout", "OpenID Connect Back-Channel Logout 1.0 §2.6, 6";
    LogoutTokenNonce = "logout_token_nonce", "the logout token has a `nonce`, like an ID Token", "OpenID Connect Back-Channel Logout 1.0 §2.6, 7";
    LogoutTokenId = "logout_token_jti", "the logout token's `jti` is missing, empty or longer than 255 characters", "OpenID Connect Back-Channel Logout 1.0 §2.4";
    LogoutTokenReplayed = "logout_token_replayed", "the logout token's `jti` was used before", "OpenID Connect Back-Channel Logout 1.0 §2.6, 8";

    // UserInfo and protected resources
    RefreshedIdToken = "refreshed_id_token", "the ID Token of a refresh contradicts the one of the sign-in", "OpenID Connect Core 1.0 §12.2";
    UserInfoSubject = "userinfo_sub", "the UserInfo response's `sub` is missing or differs from the ID Token's", "OpenID Connect Core 1.0 §5.3.2";
    UserInfoUnsigned = "userinfo_unsigned", "the UserInfo response is not signed, although a signature is registered", "OpenID Connect Core 1.0 §5.3.2";
    UserInfoNoKey = "userinfo_no_key", "the OP has no key for the signed UserInfo response", "OpenID Connect Core 1.0 §5.3.2 and §10.1";
    UserInfoSigned = "userinfo_signed", "the signature, `iss`, `aud` or `exp` of the signed UserInfo response is wrong", "OpenID Connect Core 1.0 §5.3.2";
}

impl Rule {
    /// Whether the same call can succeed later without a change on our side.
    pub(crate) fn is_transient(self) -> bool {
        matches!(
            self,
            Self::KeysUnavailable
                | Self::KeysOutdated
                | Self::MetadataOutdated
                | Self::UnexpectedStatus
                | Self::UnexpectedRedirect
                | Self::UnexpectedContentType
                | Self::MalformedJson
                | Self::SecondNonceChallenge
                | Self::NonceMissing
                | Self::RequestUriExpired
                | Self::UnknownError
        )
    }

    /// Whether the result may differ with other keys of the OP.
    pub(crate) fn depends_on_keys(self) -> bool {
        matches!(
            self,
            Self::IdTokenNoKey
                | Self::IdTokenSignature
                | Self::JwtResponseNoKey
                | Self::JwtResponseSignature
                | Self::LogoutTokenNoKey
                | Self::LogoutTokenSignature
                | Self::UserInfoNoKey
                | Self::UserInfoSigned
        )
    }

    /// Whether the response may come from an attack on the user's browser (cross-site request forgery or mix-up)
    /// rather than from the OP that the user was sent to.
    pub fn is_forgery(self) -> bool {
        matches!(
            self,
            Self::StateMissing
                | Self::StateMismatch
                | Self::IssMissing
                | Self::IssMismatch
                | Self::PathSuffix
                | Self::WrongRedirectUri
                | Self::ResponseNotJwt
                | Self::JwtResponseIssuer
                | Self::JwtResponseAudience
                | Self::JwtResponseSignature
        )
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

/// A place in a JSON document.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The line, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
}

/// A [`Rule`] that was broken, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    rule: Rule,
    document: Option<Document>,
    member: Option<&'static str>,
    position: Option<Position>,
    status: Option<u16>,
}

impl Violation {
    pub(crate) const fn new(rule: Rule) -> Self {
        Self { rule, document: None, member: None, position: None, status: None }
    }

    pub(crate) const fn in_document(mut self, document: Document) -> Self {
        self.document = Some(document);
        self
    }

    pub(crate) const fn at_member(mut self, member: &'static str) -> Self {
        self.member = Some(member);
        self
    }

    pub(crate) const fn at_position(mut self, line: usize, column: usize) -> Self {
        self.position = Some(Position { line, column });
        self
    }

    pub(crate) const fn with_status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    /// Whether the same call can succeed later without a change on our side. A 401 or 403 does not change by itself.
    pub(crate) fn is_transient(&self) -> bool {
        let refused = matches!(self.status, Some(401 | 403));
        self.rule.is_transient() && !(refused && self.rule == Rule::UnexpectedStatus)
    }

    /// With the position of the syntax error. serde's own message is left out, because it can quote the document.
    pub(crate) fn malformed_json(document: Document, error: &serde_json::Error) -> Self {
        let violation = Self::new(Rule::MalformedJson).in_document(document);
        match error.line() {
            // It concerns the document as a whole.
            0 => violation,
            line => violation.at_position(line, error.column()),
        }
    }

    /// The rule.
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The document that broke the rule, if there is one.
    pub fn document(&self) -> Option<Document> {
        self.document
    }

    /// The member or parameter at fault, if there is one.
    pub fn member(&self) -> Option<&'static str> {
        self.member
    }

    /// Where a JSON syntax error is.
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The HTTP status that the document came with, where that is the problem.
    pub fn status(&self) -> Option<u16> {
        self.status
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(document) = self.document {
            write!(formatter, "{document}: ")?;
        }
        if let Some(member) = self.member {
            write!(formatter, "`{member}`: ")?;
        }
        self.rule.fmt(formatter)?;
        if let Some(Position { line, column }) = self.position {
            write!(formatter, ", at line {line}, column {column}")?;
        }
        if let Some(status) = self.status {
            write!(formatter, ", HTTP status {status}")?;
        }
        write!(formatter, " [{}]", self.rule.code())
    }
}

/// The documents that the crate reads.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Document {
    /// The OP's metadata (OpenID Connect Discovery 1.0 §4, RFC 8414).
    Metadata,
    /// The OP's key set (RFC 7517).
    KeySet,
    /// The answer to a pushed authorization request (RFC 9126 §2.2).
    PushedAuthorizationResponse,
    /// The authorization response, as the browser brings it.
    AuthorizationResponse,
    /// The answer to a Deferred Code Exchange Request.
    ExchangeResponse,
    /// The answer to a backchannel authentication request (CIBA §7.3).
    BackchannelAuthenticationResponse,
    /// The answer to a Token Request.
    TokenResponse,
    /// The UserInfo response.
    UserInfo,
    /// The answer of the cancellation endpoint.
    CancellationResponse,
    /// The answer of the revocation endpoint (RFC 7009 §2.2).
    RevocationResponse,
    /// The answer of the introspection endpoint (RFC 7662 §2.2).
    IntrospectionResponse,
    /// What the OP says about a client that is registered (RFC 7591 §3.2.1, RFC 7592 §3).
    ClientInformation,
    /// The answer of a protected resource.
    Resource,
    /// An ID Token's claims.
    IdToken,
    /// The return from a logout, as the browser brings it (OpenID Connect RP-Initiated Logout 1.0 §3).
    LogoutResponse,
    /// A logout token (OpenID Connect Back-Channel Logout 1.0 §2.4).
    LogoutToken,
}

impl fmt::Display for Document {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Metadata => "the OP's metadata",
            Self::KeySet => "the OP's key set",
            Self::PushedAuthorizationResponse => "the answer to the pushed authorization request",
            Self::AuthorizationResponse => "the authorization response",
            Self::ExchangeResponse => "the exchange response",
            Self::BackchannelAuthenticationResponse => "the answer to the backchannel authentication request",
            Self::TokenResponse => "the token response",
            Self::UserInfo => "the UserInfo response",
            Self::CancellationResponse => "the cancellation response",
            Self::RevocationResponse => "the revocation response",
            Self::IntrospectionResponse => "the introspection response",
            Self::ClientInformation => "the client information response",
            Self::Resource => "the resource's response",
            Self::IdToken => "the ID Token",
            Self::LogoutResponse => "the return from the logout",
            Self::LogoutToken => "the logout token",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_stable_identifiers() {
        let mut codes: Vec<_> = Rule::ALL.iter().map(|rule| rule.code()).collect();
        codes.sort_unstable();
        let all = codes.len();
        codes.dedup();
        assert_eq!(codes.len(), all);
        assert!(codes.iter().all(|code| code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')));
    }

    #[test]
    fn a_violation_names_the_document_and_the_position() {
        let error = serde_json::from_str::<serde_json::Value>("{\n  \"a\": tru }").unwrap_err();
        let shown = Violation::malformed_json(Document::Metadata, &error).to_string();
        assert_eq!(
            shown,
            "the OP's metadata: the document is not the expected JSON, at line 2, column 11 [malformed_json]"
        );
    }
}
