//! The response that the browser brings to the client.

/// The response that the browser brings to the client; returned by [`TestProvider::visit`](super::TestProvider::visit).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrowserReturn {
    redirect_uri: String,
    parameters: Vec<(String, String)>,
}

impl BrowserReturn {
    pub(super) fn new(redirect_uri: &str, parameters: Vec<(String, String)>) -> Self {
        Self { redirect_uri: redirect_uri.to_owned(), parameters }
    }

    /// The parameters as a query string, without `?`. They are the same for every response mode.
    pub fn query(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.parameters).finish()
    }

    /// The body that the browser posts if the response mode is `form_post`.
    pub fn form(&self) -> String {
        self.query()
    }

    /// The whole URL that the browser is redirected to if the response mode is `query`.
    pub fn url(&self) -> String {
        let separator = if self.redirect_uri.contains('?') { '&' } else { '?' };
        format!("{}{separator}{}", self.redirect_uri, self.query())
    }

    /// The redirect URI itself.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// One parameter, such as `deferred_code` or `error`.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All parameters, in order.
    pub fn parameters(&self) -> &[(String, String)] {
        &self.parameters
    }
}
