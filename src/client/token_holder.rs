//! The values that hold tokens: [`Authentication`] and [`IssuedTokens`].

use super::authentication::{self, Authentication, TokenType};
use super::issued_tokens::{self, IssuedTokens};
use crate::dpop::DpopKey;
use crate::secret::Secret;

/// The tokens of an outcome: an [`Authentication`], or [`IssuedTokens`] if no user signed in. No other type can implement
/// it.
///
/// [`Client::resource`](crate::Client::resource) calls an API with them, [`Client::refresh`](crate::Client::refresh)
/// renews them, and [`Client::revoke`](crate::Client::revoke) revokes them.
pub trait TokenHolder: Sealed {}

/// Keeps [`TokenHolder`] closed.
pub trait Sealed {
    #[doc(hidden)]
    fn tokens(&self) -> HeldTokens<'_>;

    #[doc(hidden)]
    fn tokens_mut(&mut self) -> HeldTokensMut<'_>;
}

/// The tokens, and what it takes to present them.
pub struct HeldTokens<'a> {
    pub(super) issuer: &'a str,
    pub(super) client_id: &'a str,
    pub(super) access_token: Option<&'a Secret>,
    /// `None` if the access token is a token of another kind.
    pub(super) token_type: Option<TokenType>,
    pub(super) refresh_token: Option<&'a Secret>,
    pub(super) dpop_key: Option<&'a DpopKey>,
    pub(super) certificate_bound: bool,
}

/// The tokens, which a refresh replaces.
pub struct HeldTokensMut<'a>(pub(super) Holder<'a>);

pub(super) enum Holder<'a> {
    SignedIn(&'a mut authentication::Body),
    Issued(&'a mut issued_tokens::Body),
}

impl TokenHolder for Authentication {}

impl Sealed for Authentication {
    fn tokens(&self) -> HeldTokens<'_> {
        self.body().tokens()
    }

    fn tokens_mut(&mut self) -> HeldTokensMut<'_> {
        HeldTokensMut(Holder::SignedIn(self.body_mut()))
    }
}

impl TokenHolder for IssuedTokens {}

impl Sealed for IssuedTokens {
    fn tokens(&self) -> HeldTokens<'_> {
        self.body().tokens()
    }

    fn tokens_mut(&mut self) -> HeldTokensMut<'_> {
        HeldTokensMut(Holder::Issued(self.body_mut()))
    }
}

impl authentication::Body {
    fn tokens(&self) -> HeldTokens<'_> {
        HeldTokens {
            issuer: &self.issuer,
            client_id: &self.client_id,
            access_token: self.access_token.as_ref(),
            token_type: Some(self.token_type),
            refresh_token: self.refresh_token.as_ref(),
            dpop_key: self.dpop_key.as_ref(),
            certificate_bound: self.certificate_bound,
        }
    }
}

impl issued_tokens::Body {
    fn tokens(&self) -> HeldTokens<'_> {
        HeldTokens {
            issuer: &self.issuer,
            client_id: &self.client_id,
            access_token: Some(&self.access_token),
            token_type: self.token_type,
            refresh_token: self.refresh_token.as_ref(),
            dpop_key: self.dpop_key.as_ref(),
            certificate_bound: self.certificate_bound,
        }
    }
}

impl Holder<'_> {
    pub(super) fn tokens(&self) -> HeldTokens<'_> {
        match self {
            Self::SignedIn(body) => body.tokens(),
            Self::Issued(body) => body.tokens(),
        }
    }
}
