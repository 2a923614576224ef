//! Settings for OpenID Providers that deviate from the specifications, or follow an earlier text.
//!
//! A [`ClientBuilder`](crate::ClientBuilder) takes them:
//!
//! | the OP | setting |
//! |---|---|
//! | expects another audience in client assertions | [`assertion_audience`](crate::ClientBuilder::assertion_audience) with an [`AssertionAudience`] |
//! | expects the access token of the exchange in polls | [`poll_credential`](crate::ClientBuilder::poll_credential) with a [`PollCredential`] |
//! | refuses parameters that it does not know | [`without_pkce`](crate::ClientBuilder::without_pkce), [`without_redirect_uri_in_exchange`](crate::ClientBuilder::without_redirect_uri_in_exchange), [`without_deferral_hint`](crate::ClientBuilder::without_deferral_hint) |
//! | does not list what it supports | [`allow_unadvertised`](crate::ClientBuilder::allow_unadvertised), [`dialect`](crate::ClientBuilder::dialect) |
//! | answers the exchange of a deferred code with final tokens | [`allow_immediate_answer`](crate::ClientBuilder::allow_immediate_answer) |
//! | changes `sub` between the interim and the final ID Token | [`allow_changed_subject`](crate::ClientBuilder::allow_changed_subject) |
//! | cannot bind tokens to a DPoP key | [`dpop`](crate::ClientBuilder::dpop) with [`DpopMode::Off`](crate::DpopMode::Off) |

pub use crate::client::{AssertionAudience, PollCredential};
