//! The issuer identifier (OpenID Connect Core 1.0 §1.2).

use url::Url;

use crate::error::ConfigurationProblem;
use crate::transport::UrlPolicy;

/// The identifier of an OP: a URL without query and fragment, compared as a string.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Issuer {
    text: String,
    url: Url,
}

impl Issuer {
    /// # Errors
    ///
    /// [`ConfigurationProblem::Setting`] for anything else, [`ConfigurationProblem::InsecureUrl`] for a URL that is
    /// neither `https:` nor an allowed loopback address, and [`ConfigurationProblem::PrivateAddress`] for a private
    /// address that the application excluded. Other private addresses are allowed, because the application names the
    /// issuer.
    pub(crate) fn new(text: &str, urls: UrlPolicy) -> Result<Self, ConfigurationProblem> {
        let problem = |problem| ConfigurationProblem::Setting { setting: "issuer", problem };
        let url = Url::parse(text).map_err(|_| problem("it is not a URL"))?;
        if text.contains(['?', '#']) {
            return Err(problem("an issuer must not have a query or a fragment"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(problem("an issuer must not have a user name or a password"));
        }
        urls.check_own(&url).map_err(|problem| problem.of_setting("issuer"))?;
        // A URL parser removes white space, but the OP's `iss` is compared with the original string.
        if text.contains(|character: char| character.is_whitespace() || character.is_control()) {
            return Err(problem("it contains white space"));
        }
        Ok(Self { text: text.to_owned(), url })
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    /// The possible URLs of its metadata, the most likely one first.
    pub(super) fn metadata_urls(&self) -> Vec<Url> {
        let at = |path: String| {
            let mut url = self.url.clone();
            url.set_path(&path);
            url
        };
        // OpenID Connect Discovery 1.0 §4.1 and RFC 8414 §3.1: a terminating slash is removed first.
        let path = self.url.path().trim_end_matches('/');
        let mut urls = vec![at(format!("{path}/.well-known/openid-configuration"))];
        urls.push(at(format!("/.well-known/oauth-authorization-server{path}")));
        if !path.is_empty() {
            urls.push(at(format!("/.well-known/openid-configuration{path}")));
        }
        urls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::PrivateAddresses;

    const PLAIN: UrlPolicy =
        UrlPolicy { allow_insecure_loopback: true, private_addresses: PrivateAddresses::RefusedInDocuments };

    fn urls(issuer: &str) -> Vec<String> {
        Issuer::new(issuer, UrlPolicy::default()).unwrap().metadata_urls().into_iter().map(String::from).collect()
    }

    #[test]
    fn an_issuer_with_a_path_has_the_suffix_form_and_both_infix_forms() {
        let expected = [
            "https://op.example/tenant/1/.well-known/openid-configuration",
            "https://op.example/.well-known/oauth-authorization-server/tenant/1",
            "https://op.example/.well-known/openid-configuration/tenant/1",
        ];
        assert_eq!(urls("https://op.example/tenant/1"), expected);
        assert_eq!(urls("https://op.example/tenant/1/"), expected);
    }

    #[test]
    fn an_issuer_without_a_path_has_two_metadata_urls() {
        let expected = [
            "https://op.example/.well-known/openid-configuration",
            "https://op.example/.well-known/oauth-authorization-server",
        ];
        assert_eq!(urls("https://op.example"), expected);
        assert_eq!(urls("https://op.example/"), expected);
    }

    #[test]
    fn a_malformed_issuer_is_refused() {
        for text in ["", "op.example", "https://", "https://op.example?a", "https://op.example#", " https://op.example"]
        {
            assert!(matches!(Issuer::new(text, PLAIN), Err(ConfigurationProblem::Setting { .. })), "{text}");
        }
        for text in ["http://op.example", "ftp://op.example", "http://127.0.0.1.example"] {
            assert!(matches!(Issuer::new(text, PLAIN), Err(ConfigurationProblem::InsecureUrl { .. })), "{text}");
        }
        assert!(Issuer::new("http://127.0.0.1:8080", UrlPolicy::default()).is_err());
        assert!(Issuer::new("http://127.0.0.1:8080", PLAIN).is_ok());
        assert!(Issuer::new("https://user:secret@op.example", PLAIN).is_err());
    }

    #[test]
    fn a_private_address_is_an_issuer_unless_the_application_refuses_them() {
        for text in ["https://10.0.0.5", "https://localhost:8443", "https://[fd00::1]/realms/a"] {
            assert!(Issuer::new(text, UrlPolicy::default()).is_ok(), "{text}");
            let refusing = UrlPolicy { private_addresses: PrivateAddresses::Refused, ..UrlPolicy::default() };
            let refused = Issuer::new(text, refusing);
            assert_eq!(refused, Err(ConfigurationProblem::PrivateAddress { name: "issuer" }), "{text}");
        }
    }
}
