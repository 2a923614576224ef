//! Settings that cannot work.

use url::Url;

use crate::error::{ConfigurationProblem, Error};

/// RFC 6749 §3.1.2: an absolute URI without a fragment. Custom schemes are for native applications.
pub(super) fn check_redirect_uri(redirect_uri: &str) -> Result<(), Error> {
    match Url::parse(redirect_uri) {
        Ok(url) if url.fragment().is_none() => Ok(()),
        Ok(_) => Err(setting("redirect_uri", "it has a fragment, which RFC 6749 §3.1.2 forbids")),
        Err(_) => Err(setting("redirect_uri", "it is not an absolute URL")),
    }
}

pub(super) fn setting(setting: &'static str, problem: &'static str) -> Error {
    Error::new(ConfigurationProblem::Setting { setting, problem })
}
