//! Why an OP refuses to register a client (RFC 7591 §3.2.2) or to let it manage its registration (RFC 7592 §2).

use crate::error::{Error, ErrorKind, Rule};

/// Why the OP refused a request about a registration. Get it from an error with [`of`](Self::of).
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegistrationRefusal {
    /// `invalid_redirect_uri`: the OP does not accept a redirect URI.
    InvalidRedirectUri,
    /// `invalid_client_metadata`: the OP does not accept another member. The error's description may name it.
    InvalidClientMetadata,
    /// `invalid_software_statement`: the OP cannot verify the software statement.
    InvalidSoftwareStatement,
    /// `unapproved_software_statement`: the OP does not approve the software, or not from this issuer.
    UnapprovedSoftwareStatement,
    /// 401: the initial access token, or the registration access token, is missing, expired or revoked. OPs also answer
    /// this for a client that no longer exists (RFC 7592 §2.1).
    AccessToken,
    /// 403: the token is valid, but does not permit this.
    NotPermitted,
    /// 405: the OP does not offer this. Many OPs let clients read but not delete their registration.
    NotOffered,
}

impl RegistrationRefusal {
    /// The refusal in an error of a [`Registrar`](super::Registrar). `None` if the error is not a refusal, such as a
    /// failed connection.
    ///
    /// ```
    /// # async fn example(registrar: &openid_deferred::registration::Registrar, request: openid_deferred::registration::RegistrationRequest) {
    /// use openid_deferred::registration::RegistrationRefusal;
    ///
    /// if let Err(error) = registrar.register(request).await {
    ///     match RegistrationRefusal::of(&error) {
    ///         Some(RegistrationRefusal::AccessToken) => println!("get a new initial access token"),
    ///         Some(refusal) => println!("the OP does not register it: {refusal:?}"),
    ///         None => println!("{error}"),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn of(error: &Error) -> Option<Self> {
        let (code, status) = match error.kind() {
            ErrorKind::ErrorResponse(response) => (Some(response.code()), response.status()),
            ErrorKind::Protocol(violation) if violation.rule() == Rule::UnexpectedStatus => (None, violation.status()),
            // A 401 whose body is JSON without an error.
            ErrorKind::Protocol(violation) if violation.member() == Some("error") => (None, violation.status()),
            _ => return None,
        };
        match (code, status) {
            (Some("invalid_redirect_uri"), _) => Some(Self::InvalidRedirectUri),
            (Some("invalid_client_metadata"), _) => Some(Self::InvalidClientMetadata),
            (Some("invalid_software_statement"), _) => Some(Self::InvalidSoftwareStatement),
            (Some("unapproved_software_statement"), _) => Some(Self::UnapprovedSoftwareStatement),
            (_, Some(401)) => Some(Self::AccessToken),
            (_, Some(403)) => Some(Self::NotPermitted),
            (_, Some(405)) => Some(Self::NotOffered),
            _ => None,
        }
    }
}
