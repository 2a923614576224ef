//! Errors of settings, calls, sessions and the network.

use super::rule::Document;

/// What is wrong with the settings of a client.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationProblem {
    /// A setting is missing or has a value that cannot be used.
    #[error("`{setting}`: {problem}")]
    Setting {
        /// The builder method or argument.
        setting: &'static str,
        /// What is wrong with it and what to do.
        problem: &'static str,
    },
    /// A URL of the OP is not HTTPS. Plain HTTP is only possible to a loopback address, and only with
    /// `allow_insecure_loopback`.
    #[error("`{name}` is not an `https:` URL; plain HTTP needs a loopback address and `allow_insecure_loopback()`")]
    InsecureUrl {
        /// The metadata member or setting that holds the URL.
        name: &'static str,
    },
    /// A URL of the OP or of an API names an address that is not on the public internet, and
    /// `refuse_private_addresses` is set.
    #[error("`{name}` has a private address, which `refuse_private_addresses()` forbids")]
    PrivateAddress {
        /// The setting or argument that holds the URL.
        name: &'static str,
    },
    /// The OP's metadata does not list something that these settings need.
    #[error(
        "the OP's `{member}` does not list `{value}`; if the OP supports it, override the check with `allow_unadvertised()`"
    )]
    NotAdvertised {
        /// The member of the metadata.
        member: &'static str,
        /// The value that is missing in it.
        value: String,
    },
    /// Clients of several OPs have the same redirect URI, and one of the OPs does not name itself in its responses
    /// (`iss`, RFC 9207), so that one OP could present the other's code as its own (RFC 9700 §4.4). Redirect URIs also
    /// count as shared if only their parameters differ, or if one path is the end of the other, such as `/callback` and
    /// `/a/callback`. Give that client a redirect URI of its own.
    #[error(
        "the clients of {issuer} and {other} share a redirect URI or the end of its path, and no `iss` distinguishes their responses: give each client a redirect URI with its own last path segment"
    )]
    SharedRedirectUri {
        /// One of the two issuers.
        issuer: String,
        /// The other one.
        other: String,
    },
    /// The OP's metadata lacks an endpoint that this call needs.
    #[error("the OP's metadata has no `{0}`")]
    NoEndpoint(&'static str),
    /// The OP publishes no encryption key (`use`: `enc`) for this algorithm.
    #[error("the OP's key set has no key (`use`: `enc`) for `{0}`")]
    NoEncryptionKey(&'static str),
    /// A setting contradicts the rules of FAPI, which [`fapi2`](crate::ClientBuilder::fapi2),
    /// [`fapi2_message_signing`](crate::ClientBuilder::fapi2_message_signing) or
    /// [`fapi_ciba`](crate::ClientBuilder::fapi_ciba) turned on.
    #[error("`{setting}`: under FAPI, {rule}")]
    Fapi {
        /// The builder method or argument.
        setting: &'static str,
        /// What the profile requires.
        rule: &'static str,
    },
    /// The OP's metadata lacks what the rules of FAPI need, which
    /// [`allow_unadvertised`](crate::ClientBuilder::allow_unadvertised) does not override.
    #[error("under FAPI, the OP's `{member}` must list `{value}`")]
    FapiNotAdvertised {
        /// The member of the metadata.
        member: &'static str,
        /// The value that is missing in it.
        value: &'static str,
    },
    /// A private key cannot be used.
    #[error("the private key cannot be used: {0}")]
    Key(&'static str),
    /// A client certificate cannot be used.
    #[error("the client certificate cannot be used: {0}")]
    Certificate(&'static str),
    /// The OP registered the client with other metadata than requested, and the client cannot work with it
    /// (RFC 7591 §3.2.1).
    #[error("the client was registered with another `{member}` than requested: {problem}")]
    Registered {
        /// The member of the client metadata.
        member: String,
        /// Why that does not work.
        problem: &'static str,
    },
    /// The HTTP client cannot be built with these settings.
    #[error("the HTTP client cannot be built")]
    HttpClient,
}

/// An invalid call.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// The value belongs to another client: its issuer or client identifier differs.
    #[error("this value belongs to another client (issuer or client identifier differ)")]
    WrongClient,
    /// The sign-in or token request has its outcome; there is nothing left to poll.
    #[error("this sign-in or token request has ended; there is nothing left to poll")]
    NothingToPoll,
    /// The grant, such as an authorization code, has been sent to the OP and must not be sent again. Start a new sign-in,
    /// or make a new token request.
    #[error("this grant was already sent to the OP; start a new sign-in or make a new token request")]
    GrantAlreadyUsed,
    /// The response to this authorization session was already used. Start a new sign-in.
    #[error("the response to this authorization session was already used; start a new sign-in")]
    SessionAlreadyUsed,
    /// The poller has no client with this issuer and client identifier.
    #[error("the poller has no client with this issuer and client identifier; add it with `Poller::add_client`")]
    UnknownClient,
    /// The store does not have this sign-in. It may have been erased.
    #[error("the store has no sign-in with this id; it may have been erased")]
    UnknownProcess,
    /// The poller was shut down, and nothing was sent. The error is [transient](crate::Error::is_transient), because
    /// another replica or the restarted application can handle the call. Keep the cookie of a user who returned, and
    /// let them reload. Do not call this poller again.
    #[error("the poller was shut down; nothing was sent")]
    ShutDown,
    /// The OP issued no refresh token. Request the scope `offline_access` if the OP supports it.
    #[error("there is no refresh token: the OP issued none")]
    NoRefreshToken,
    /// There is no usable access token.
    #[error("there is no usable access token: the OP issued none, or one of an unknown type")]
    NoAccessToken,
    /// The access token has the `token_type` `DPoP`, but the client has [DPoP off](crate::DpopMode::Off) and requested
    /// it without a proof, so there is no key for it. Turn DPoP on, or have the OP register the client for bearer
    /// tokens.
    #[error(
        "the OP answered with `token_type` `DPoP` to a request without a proof, so there is no key for the access token: turn DPoP on, or have the OP register the client for bearer tokens"
    )]
    NoDpopKey,
    /// An extra parameter would replace one that the crate sets itself.
    #[error("`{0}` is set by this crate and cannot be given as an extra parameter")]
    ReservedParameter(String),
    /// A signed authorization request is too long for a URL. [Push](crate::AuthorizationRequest::pushed) it.
    #[error(
        "the URL with the signed request has {actual} bytes, more than the {limit} that every server accepts: push the request with `pushed()` (RFC 9126)"
    )]
    RequestTooLong {
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The context of a request is too long. That of an authorization request must fit into a cookie with the session.
    /// Store the data yourself, and pass its key as the [context](crate::AuthorizationRequest::context).
    #[error("the `context` of the request has {actual} bytes, more than {limit}: store the data and pass its key")]
    ContextTooLong {
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The [data](crate::AuthorizationRequest::session_data) of an authorization session is too long. It must fit into a
    /// cookie with the session. Store the data yourself, and pass its key.
    #[error("the `session_data` of the request has {actual} bytes, more than {limit}: store the data and pass its key")]
    SessionDataTooLong {
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The sealed form is too large for a cookie.
    #[error(
        "the sealed authorization session has {actual} bytes, more than the {limit} that fit into a cookie: shorten the redirect URI or the `context`, or request fewer essential `acr` values"
    )]
    SealedTooLarge {
        /// How large it is.
        actual: usize,
        /// How large it may be.
        limit: usize,
    },
}

/// Why an authorization session cannot be used for a response of the OP.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SessionProblem {
    /// It was started too long ago.
    #[error("it has expired")]
    Expired,
    /// It was started by another client: issuer or client identifier differ.
    #[error("it belongs to another client")]
    Foreign,
    /// It cannot be opened: altered, of another kind, or sealed with a key that the keyring does not have.
    #[error("it cannot be opened: it was altered, or its key is not in the keyring")]
    Unreadable,
    /// The browser sent none for this response: it has deleted the cookie, or another browser started the sign-in. The
    /// crate returns this only from the routes of `axum`; use it in yours.
    #[error("the browser sent none for this response")]
    Missing,
}

/// What went wrong in the network.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportProblem {
    /// The connection failed (name resolution, TCP, TLS). The request was not sent.
    #[error("the connection failed, so the request was not sent")]
    Connect,
    /// The request timed out.
    #[error("the request timed out")]
    Timeout,
    /// The connection broke before the response was complete.
    #[error("the connection broke before the response was complete")]
    Broken,
    /// The body exceeded the limit for this document. The transfer was aborted.
    #[error("the body of {0} is too large")]
    BodyTooLarge(Document),
    /// The server has no public address, which `refuse_private_addresses` requires. The request was not sent.
    #[error("the server has no public address, so the request was not sent")]
    PrivateAddress,
    /// The request could not be built or was refused by policy, such as plain HTTP. It was not sent.
    #[error("the request was refused before it was sent")]
    Refused,
}
