//! Settings that cannot work.

use url::Url;

use crate::error::{ConfigurationProblem, Error};

/// RFC 6749 §3.1.2: an absolute URI without a fragment. Custom schemes are for native applications.
pub(super) fn check_redirect_uri(redirect_uri: &str) -> Result<(), Error> {
    check_uri("redirect_uri", redirect_uri, "it has a fragment, which RFC 6749 §3.1.2 forbids")
}

/// OpenID Connect RP-Initiated Logout 1.0 §3.1: the same for the return from a logout. The OP adds `state` to its query.
pub(super) fn check_post_logout_redirect_uri(uri: &str) -> Result<(), Error> {
    check_uri("post_logout_redirect_uri", uri, "it has a fragment, which servers do not receive")
}

fn check_uri(name: &'static str, uri: &str, about_fragment: &'static str) -> Result<(), Error> {
    match Url::parse(uri) {
        Ok(url) if url.fragment().is_none() => Ok(()),
        Ok(_) => Err(setting(name, about_fragment)),
        Err(_) => Err(setting(name, "it is not an absolute URL")),
    }
}

pub(super) fn setting(setting: &'static str, problem: &'static str) -> Error {
    Error::new(ConfigurationProblem::Setting { setting, problem })
}
