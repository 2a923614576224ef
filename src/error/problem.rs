//! What can be wrong on our own side: settings, calls, sessions, and the network in between.

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
    /// A URL of the OP is not HTTPS. Plain HTTP is only possible to a loopback address, and only after
    /// `allow_insecure_loopback`.
    #[error("`{name}` is not an `https:` URL; plain HTTP needs a loopback address and `allow_insecure_loopback()`")]
    InsecureUrl {
        /// The metadata member or setting that holds the URL.
        name: &'static str,
    },
    /// A URL of the OP or of an API names an address that is not on the public internet, after
    /// `refuse_private_addresses`.
    #[error("`{name}` names an address that is not public, which `refuse_private_addresses()` rules out")]
    PrivateAddress {
        /// The setting or argument that holds the URL.
        name: &'static str,
    },
    /// The OP's metadata does not list something that these settings need.
    #[error(
        "the OP's `{member}` does not list `{value}`; if it works all the same, override the check with `allow_unadvertised()`"
    )]
    NotAdvertised {
        /// The member of the metadata.
        member: &'static str,
        /// The value that is missing in it.
        value: String,
    },
    /// Clients of several OPs have the same redirect URI, and one of the OPs does not say in its responses who it is
    /// (`iss`, RFC 9207), so that one could pass the other's code off as its own (RFC 9700 §4.4). Redirect URIs that differ
    /// in their parameters only, or of which one path is the end of the other, such as `/callback` and `/a/callback`, do
    /// not keep responses apart either. Give that client a redirect URI of its own.
    #[error(
        "the clients of {issuer} and {other} share a redirect URI or the end of its path, and `iss` does not tell their responses apart: give each a redirect URI with a last path segment of its own"
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
    /// The OP publishes no key that something can be encrypted for with this algorithm: one whose `use` is `enc`.
    #[error("the OP's key set has no key (`use`: `enc`) for `{0}`")]
    NoEncryptionKey(&'static str),
    /// A setting is not possible under the rules of FAPI 2.0, which [`fapi2`](crate::ClientBuilder::fapi2) or
    /// [`fapi2_message_signing`](crate::ClientBuilder::fapi2_message_signing) asked for.
    #[error("`{setting}`: under FAPI 2.0, {rule}")]
    Fapi {
        /// The builder method or argument.
        setting: &'static str,
        /// What the profile demands.
        rule: &'static str,
    },
    /// The OP's metadata lacks what the rules of FAPI 2.0 need, which
    /// [`allow_unadvertised`](crate::ClientBuilder::allow_unadvertised) does not override.
    #[error("under FAPI 2.0, the OP's `{member}` has to list `{value}`")]
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
    /// The OP registered the client otherwise than was asked, and it cannot work like that (RFC 7591 §3.2.1).
    #[error("the client was registered with another `{member}` than was asked for: {problem}")]
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

/// A call that cannot be right at this point.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// The value belongs to another client: its issuer or client identifier differs.
    #[error("this value belongs to another client (issuer or client identifier differ)")]
    ForeignValue,
    /// The process has its outcome; nothing is left to ask for.
    #[error("this authentication process has ended; there is nothing left to poll")]
    NothingToPoll,
    /// The code of this grant has been sent to the OP and must not be sent again. Start a new sign-in.
    #[error("the code of this grant has been sent already; start a new sign-in")]
    CodeSpent,
    /// The OP's answer to this authorization session has been taken. Start a new sign-in.
    #[error("the answer to this authorization session has been taken already; start a new sign-in")]
    SessionSpent,
    /// No client of this issuer and client identifier was given to the poller.
    #[error("the poller has no client for this; add it with `Poller::add_client`")]
    UnknownClient,
    /// The store has no such process, or no longer.
    #[error("there is no such process, or no longer")]
    UnknownProcess,
    /// The poller was shut down, and nothing was sent. It is [transient](crate::Error::is_transient): another replica or the
    /// restarted process can do the same. So keep the cookie of a user who came back, and let them reload; do not call this
    /// poller again.
    #[error("the poller was shut down")]
    ShutDown,
    /// There is no refresh token: the OP gave none. Ask for the scope `offline_access` where the OP has it.
    #[error("there is no refresh token")]
    NoRefreshToken,
    /// There is no access token to use.
    #[error("there is no access token")]
    NoAccessToken,
    /// The access token has the `token_type` `DPoP`, but the client has [DPoP off](crate::DpopMode::Off) and sent no proof
    /// with the request that brought it: there is no key to use it with. Turn DPoP on, or have the OP register the client
    /// for bearer tokens.
    #[error(
        "the OP answered with `token_type` `DPoP` to a request without a proof, so there is no key to use the access token with: turn DPoP on, or have the OP register the client for bearer tokens"
    )]
    NoDpopKey,
    /// A request that the crate builds itself was to be changed in a part that it needs as it is.
    #[error("`{0}` is set by this crate and cannot be given as an extra parameter")]
    ReservedParameter(String),
    /// A signed authorization request is too long for a URL. [Push](crate::AuthorizationRequest::pushed) it.
    #[error(
        "the URL with the signed request has {actual} bytes, more than the {limit} that every server takes: push the request with `pushed()` (RFC 9126)"
    )]
    RequestTooLong {
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The context of an authorization request is too long for the session, which has to fit a cookie. Keep what it says
    /// yourself and give the [context](crate::AuthorizationRequest::context) its key.
    #[error(
        "the `context` of the authorization request has {actual} bytes, more than {limit}: store the data and give its key"
    )]
    ContextTooLong {
        /// How long it is.
        actual: usize,
        /// How long it may be.
        limit: usize,
    },
    /// The sealed form is too large for a cookie.
    #[error(
        "the sealed authorization session has {actual} bytes, more than the {limit} that fit a cookie: shorten the redirect URI or the `context`, or ask for fewer essential `acr` values"
    )]
    SealedTooLarge {
        /// How large it is.
        actual: usize,
        /// How large it may be.
        limit: usize,
    },
}

/// Why an authorization session cannot be used for a return from the OP.
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
}

/// What the network did.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransportProblem {
    /// No connection came about (name resolution, TCP, TLS): the request was not sent.
    #[error("no connection came about")]
    Connect,
    /// The time for the request ran out.
    #[error("the request timed out")]
    Timeout,
    /// The connection broke before the response was complete.
    #[error("the connection broke")]
    Broken,
    /// The body was larger than this document may be. The transfer was cut off.
    #[error("the body of {0} is too large")]
    BodyTooLarge(Document),
    /// The address is not on the public internet, or the name has no address that is, which
    /// `refuse_private_addresses` rules out. The request was not sent.
    #[error("the server is not at a public address, so nothing was sent to it")]
    PrivateAddress,
    /// The request could not be built or was refused by policy, such as plain HTTP. It was not sent.
    #[error("the request was refused before it was sent")]
    Refused,
}
