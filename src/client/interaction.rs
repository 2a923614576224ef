//! The URI at which the user should continue (IETF DTR §Token Endpoint — Deferred Response).

use url::Url;

use super::Client;
use crate::dialect::Interaction;
use crate::secret::Secret;

impl Client {
    /// Checks the URI that an application may show to its user: an `https:` URL without credentials and a fragment. A
    /// refused URI counts as not mentioned, because it must not end a wait. An accepted one is written as a browser
    /// requests it: in ASCII, without the spaces and control characters that the OP may have sent.
    pub(super) fn checked_interaction(&self, interaction: Interaction) -> Interaction {
        let Interaction::At(uri) = &interaction else { return interaction };
        let url = Url::parse(uri.expose()).ok().filter(|url| url.fragment().is_none());
        // Only the browser opens it, which reaches addresses of its own network.
        match url.filter(|url| self.0.urls.check_for_browser(url).is_ok()) {
            Some(url) => Interaction::At(Secret::new(String::from(url))),
            None => {
                tracing::warn!(
                    issuer = self.issuer(),
                    "the OP's `interaction_uri` is not an `https:` URL without a fragment; it is ignored"
                );
                Interaction::Unmentioned
            }
        }
    }
}
