//! Who is to authenticate (CIBA §7.1).

use std::fmt;

use crate::client::setting::setting;
use crate::client::{Authentication, Client};
use crate::error::Error;
use crate::secret::Secret;

/// The user whom the OP is to ask. A request has exactly one hint (CIBA §7.1). Pass it to
/// [`Client::backchannel_authentication`].
#[derive(Clone)]
#[must_use = "a hint has no effect until it is passed to `Client::backchannel_authentication`"]
pub struct UserHint(Hint);

#[derive(Clone)]
enum Hint {
    Login(Secret),
    LoginToken(Secret),
    IdToken { token: Secret, subject: String, issuer: String, client_id: String },
}

impl UserHint {
    /// `login_hint`: a value that the OP can identify the user by, such as an e-mail address, a phone number, an account
    /// number or a subject identifier.
    pub fn login_hint(hint: impl Into<Secret>) -> Self {
        Self(Hint::Login(hint.into()))
    }

    /// `login_hint_token`: a token that identifies the user, in a form that the OP defines. It may expire
    /// ([`AuthenticationRefusal::ExpiredLoginHintToken`](super::AuthenticationRefusal::ExpiredLoginHintToken)).
    pub fn login_hint_token(token: impl Into<Secret>) -> Self {
        Self(Hint::LoginToken(token.into()))
    }

    /// `id_token_hint`: the user of an earlier sign-in of this client. Only the verified ID Token of an
    /// [`Authentication`] can be a hint, because an ID Token from elsewhere can name anybody.
    ///
    /// An approval by another user is refused: [`Outcome::Invalid`](crate::Outcome::Invalid) with
    /// [`Rule::HintedSubject`](crate::error::Rule::HintedSubject).
    pub fn id_token_hint(authentication: &Authentication) -> Self {
        Self(Hint::IdToken {
            token: authentication.id_token().token().clone(),
            subject: authentication.claims().subject().to_owned(),
            issuer: authentication.body().issuer.clone(),
            client_id: authentication.body().client_id.clone(),
        })
    }

    pub(super) fn parameter(&self) -> (&'static str, &Secret) {
        match &self.0 {
            Hint::Login(hint) => ("login_hint", hint),
            Hint::LoginToken(token) => ("login_hint_token", token),
            Hint::IdToken { token, .. } => ("id_token_hint", token),
        }
    }

    /// The user, if the hint says who it is.
    pub(super) fn subject(&self) -> Option<&str> {
        match &self.0 {
            Hint::IdToken { subject, .. } => Some(subject),
            Hint::Login(_) | Hint::LoginToken(_) => None,
        }
    }

    /// Refuses an empty hint, and one of another client.
    pub(super) fn check(&self, client: &Client) -> Result<(), Error> {
        if let Hint::IdToken { issuer, client_id, .. } = &self.0 {
            client.check_ownership(issuer, client_id)?;
        }
        match self.parameter() {
            (name, hint) if hint.expose().is_empty() => Err(setting(name, "it is empty; name the user")),
            _ => Ok(()),
        }
    }
}

/// Shows the kind of hint and not the user.
impl fmt::Debug for UserHint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("UserHint").field(&self.parameter().0).finish()
    }
}
