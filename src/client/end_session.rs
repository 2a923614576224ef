//! OpenID Connect RP-Initiated Logout 1.0 §2: makes the URL that the browser is sent to for a logout.

use std::fmt;

use url::Url;
use zeroize::Zeroizing;

use super::Client;
use super::authentication::Authentication;
use super::logout_session::LogoutSession;
use super::request_object::LONGEST_URL;
use super::request_values::{check_extra, check_session_data};
use super::setting::{check_post_logout_redirect_uri, setting};
use crate::error::Error;
use crate::random;
use crate::secret::Secret;

/// The parameters of the specification (§2), which this crate sets itself.
const RESERVED: [&str; 6] =
    ["id_token_hint", "logout_hint", "client_id", "post_logout_redirect_uri", "state", "ui_locales"];

/// A logout request that is being built. Finish with [`start`](Self::start).
#[must_use = "a logout request has no effect until `start` returns its URL"]
pub struct EndSessionRequest<'a> {
    client: &'a Client,
    id_token_hint: Option<Secret>,
    /// The client that the ID Token was issued to, if that is known: issuer and client identifier.
    issued_to: Option<(String, String)>,
    post_logout_redirect_uri: Option<String>,
    parameters: Vec<(&'static str, String)>,
    extra: Vec<(String, String)>,
    session_data: Zeroizing<Vec<u8>>,
}

impl Client {
    /// Starts a logout at the OP (OpenID Connect RP-Initiated Logout 1.0 §2). End the session of your application
    /// first.
    ///
    /// ```
    /// # async fn example(client: &openid_deferred::Client, user: &openid_deferred::Authentication)
    /// # -> Result<(), openid_deferred::Error> {
    /// let (url, session) = client.end_session().of(user).start().await?;
    /// // Seal the session into a cookie, and redirect the browser to the URL.
    /// # Ok(())
    /// # }
    /// ```
    pub fn end_session(&self) -> EndSessionRequest<'_> {
        EndSessionRequest {
            client: self,
            id_token_hint: None,
            issued_to: None,
            post_logout_redirect_uri: self.0.options.post_logout_redirect_uri.clone(),
            parameters: Vec::new(),
            extra: Vec::new(),
            session_data: Zeroizing::default(),
        }
    }
}

impl EndSessionRequest<'_> {
    /// Names the session by the ID Token of a sign-in (`id_token_hint`). OPs then usually need not ask the user whether
    /// they want to log out. The ID Token becomes part of the URL.
    pub fn of(mut self, authentication: &Authentication) -> Self {
        let body = authentication.body();
        self.issued_to = Some((body.issuer.clone(), body.client_id.clone()));
        self.id_token_hint = Some(authentication.id_token().token().clone());
        self
    }

    /// The same with an ID Token that the application stored: the text of [`IdToken::token`](crate::IdToken::token). It
    /// may have expired. The OP verifies it.
    pub fn id_token_hint(mut self, token: impl Into<Secret>) -> Self {
        self.issued_to = None;
        self.id_token_hint = Some(token.into());
        self
    }

    /// Sets a hint about who logs out, such as the e-mail address that the user signed in with or the `sid` of the ID
    /// Token. It depends on the OP what it accepts.
    pub fn logout_hint(self, hint: impl Into<String>) -> Self {
        self.set("logout_hint", hint.into())
    }

    /// Sets the user's languages as BCP 47 tags, the preferred one first.
    pub fn ui_locales<S: AsRef<str>>(self, locales: impl IntoIterator<Item = S>) -> Self {
        let locales: Vec<_> = locales.into_iter().map(|locale| locale.as_ref().to_owned()).collect();
        self.set("ui_locales", locales.join(" "))
    }

    /// Uses this registered URI instead of the client's
    /// [`post_logout_redirect_uri`](crate::ClientBuilder::post_logout_redirect_uri).
    pub fn post_logout_redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.post_logout_redirect_uri = Some(uri.into());
        self
    }

    /// Adds a parameter that this crate does not interpret.
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extra.push((name.into(), value.into()));
        self
    }

    /// Attaches data of the application to the [`LogoutSession`], such as the page to return to: at most 256 bytes. It
    /// is sealed into the session and not sent to the OP.
    pub fn session_data(mut self, data: impl Into<Vec<u8>>) -> Self {
        self.session_data = Zeroizing::new(data.into());
        self
    }

    /// Returns the URL to send the browser to, and the session to keep until the browser returns. There is no session
    /// if there is no URI to return to: the OP then shows a page of its own.
    ///
    /// # Errors
    ///
    /// - [`ConfigurationProblem::NoEndpoint`](crate::error::ConfigurationProblem::NoEndpoint) if the OP has no
    ///   `end_session_endpoint`. The user is then logged out of your application alone.
    /// - [`Configuration`](crate::ErrorKind::Configuration) or [`Misuse`](crate::ErrorKind::Misuse) for parameters that
    ///   cannot be sent, for an ID Token of another client, and for a URL of more than 8,000 characters. Leave the ID
    ///   Token out then.
    /// - The errors of [`Client::provider_metadata`] if the OP's metadata has not been fetched yet.
    pub async fn start(self) -> Result<(Url, Option<LogoutSession>), Error> {
        self.prepare().await.map_err(|error| error.in_step("starting the logout"))
    }

    async fn prepare(self) -> Result<(Url, Option<LogoutSession>), Error> {
        self.check()?;
        let client = self.client;
        let metadata = client.0.provider.metadata().await?;
        let mut url = metadata.end_session_url()?.clone();
        let session = match &self.post_logout_redirect_uri {
            None => None,
            Some(uri) => {
                let state = random::base64url::<32>(&*client.0.random)?;
                let names = (client.issuer(), client.client_id());
                Some(LogoutSession::new(names, uri, state, client.0.clock.now(), self.session_data.clone()))
            }
        };
        let mut query = url.query_pairs_mut();
        query.append_pair("client_id", client.client_id());
        if let Some(token) = &self.id_token_hint {
            query.append_pair("id_token_hint", token.expose());
        }
        if let Some(session) = &session {
            query.append_pair("post_logout_redirect_uri", session.post_logout_redirect_uri());
            query.append_pair("state", session.state().expose());
        }
        query.extend_pairs(&self.parameters).extend_pairs(&self.extra);
        drop(query);
        if url.as_str().len() > LONGEST_URL {
            let problem = "the URL would have more than 8,000 characters, which not every server accepts; leave the ID \
                           Token out, and use `logout_hint`";
            return Err(setting("id_token_hint", problem));
        }
        Ok((url, session))
    }

    /// Makes the checks that need no metadata.
    fn check(&self) -> Result<(), Error> {
        check_extra(&self.extra, &RESERVED)?;
        check_session_data(&self.session_data)?;
        if let Some((issuer, client_id)) = &self.issued_to {
            self.client.check_ownership(issuer, client_id)?;
        }
        if self.id_token_hint.as_ref().is_some_and(|token| token.expose().is_empty()) {
            return Err(setting("id_token_hint", "it is empty; leave it out"));
        }
        self.post_logout_redirect_uri.as_deref().map_or(Ok(()), check_post_logout_redirect_uri)
    }

    fn set(mut self, name: &'static str, value: String) -> Self {
        self.parameters.retain(|(existing, _)| *existing != name);
        self.parameters.push((name, value));
        self
    }
}

/// Leaves out the parameters, because they are about the user.
impl fmt::Debug for EndSessionRequest<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("EndSessionRequest")
            .field("issuer", &self.client.issuer())
            .field("client_id", &self.client.client_id())
            .field("post_logout_redirect_uri", &self.post_logout_redirect_uri)
            .finish_non_exhaustive()
    }
}
