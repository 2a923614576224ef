//! Logout: the end-session endpoint (OpenID Connect RP-Initiated Logout 1.0), and logout tokens (OpenID Connect
//! Back-Channel Logout 1.0).

use http_body_util::BodyExt as _;
use serde_json::json;

use super::authorization::redirect;
use super::browser::BrowserReturn;
use super::client::TestClient;
use super::encryption::encrypt;
use super::fault::IdTokenForgery;
use super::id_token::{forged, unix};
use super::keys::Jwt;
use super::logout_token::{SentLogoutToken, sid};
use super::op::Handler;
use super::post::{PATIENCE, post};
use super::process::Process;
use super::provider::{TestProcess, TestProvider};
use super::record::{Endpoint, RequestRule};
use super::wire::{Rejection, Reply};

/// In seconds: "preferably at most two minutes in the future" (OpenID Connect Back-Channel Logout 1.0 §2.4).
const LIFETIME: u64 = 120;

impl TestProvider {
    /// Plays the browser of a user who logs out: opens the URL of a logout request, and returns what the browser brings
    /// back to the client. `None` if the user stays on a page of the provider, because there is no
    /// `post_logout_redirect_uri`.
    ///
    /// # Panics
    ///
    /// Panics if the user would see an error page. The message contains the error.
    pub fn visit_end_session(&self, url: impl AsRef<str>) -> Option<BrowserReturn> {
        let reply = self.browse(url.as_ref(), Endpoint::EndSession);
        assert!(reply.status.as_u16() < 400, "the user sees an error page: {}", String::from_utf8_lossy(&reply.body));
        reply.browser
    }

    /// Every logout token that was sent so far.
    pub fn logout_tokens(&self) -> Vec<SentLogoutToken> {
        self.op.state().logout_tokens.clone()
    }
}

impl TestProcess {
    /// The `sid` of this sign-in. ID Tokens of clients with a
    /// [`backchannel_logout_uri`](TestClient::backchannel_logout_uri) carry it.
    pub fn sid(&self) -> String {
        sid(&self.op.settings.issuer, self.number)
    }

    /// A logout token for this sign-in.
    ///
    /// ```
    /// # fn example(op: openid_deferred::testing::TestProvider) {
    /// let token = op.last_process().logout_token();
    /// # }
    /// ```
    pub fn logout_token(&self) -> String {
        self.new_logout_token(None)
    }

    /// A logout token that is forged like an ID Token.
    ///
    /// ```
    /// # fn example(op: openid_deferred::testing::TestProvider) {
    /// use openid_deferred::testing::IdTokenForgery;
    ///
    /// let with_nonce = IdTokenForgery::claims(|claims| { claims.insert("nonce".into(), "abc".into()); });
    /// let token = op.last_process().forged_logout_token(with_nonce);
    /// # }
    /// ```
    pub fn forged_logout_token(&self, forgery: IdTokenForgery) -> String {
        self.new_logout_token(Some(forgery))
    }

    /// Ends the session: sends a logout token to the client's `backchannel_logout_uri`.
    ///
    /// # Panics
    ///
    /// Panics if the client has none.
    pub async fn log_out(&self) -> SentLogoutToken {
        self.send_logout_token(&self.logout_token()).await
    }

    /// Sends this logout token, genuine or not, to the client's `backchannel_logout_uri`, over plain HTTP.
    ///
    /// # Panics
    ///
    /// Panics if the client has none.
    #[expect(clippy::disallowed_methods, reason = "a real network has real timeouts")]
    pub async fn send_logout_token(&self, token: &str) -> SentLogoutToken {
        let url = self.client().backchannel_logout_uri.expect("the client has a `backchannel_logout_uri`");
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("logout_token", token).finish();
        let answered = tokio::time::timeout(PATIENCE, async {
            let response = post(&url, "application/x-www-form-urlencoded", None, form).await.ok()?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.ok()?.to_bytes();
            let cache_control = head.headers.get(http::header::CACHE_CONTROL).and_then(|value| value.to_str().ok());
            Some((head.status.as_u16(), String::from_utf8_lossy(&body).into_owned(), cache_control.map(str::to_owned)))
        });
        let mut sent = SentLogoutToken {
            url: url.clone(),
            token: token.to_owned(),
            status: None,
            body: String::new(),
            cache_control: None,
        };
        if let Ok(Some((status, body, cache_control))) = answered.await {
            sent = SentLogoutToken { status: Some(status), body, cache_control, ..sent };
        }
        self.op.state().logout_tokens.push(sent.clone());
        sent
    }

    fn client(&self) -> TestClient {
        let state = self.op.state();
        state.clients[&state.processes[self.number].client_id].clone()
    }

    fn new_logout_token(&self, forgery: Option<IdTokenForgery>) -> String {
        let client = self.client();
        let now = unix(self.op.now());
        let jti = self.op.token();
        let mut state = self.op.state();
        let Process { user, .. } = &state.processes[self.number];
        let claims = json!({
            "iss": self.op.settings.issuer,
            "sub": user.sub,
            "aud": client.id,
            "iat": now,
            "exp": now + LIFETIME,
            "jti": jti,
            "sid": self.sid(),
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        });
        let key = state.key_for(&client);
        drop(state);
        let mut header = key.header();
        header["typ"] = json!("logout+jwt");
        let token = match forgery {
            None => key.sign(&header, &claims),
            Some(forgery) => forged(forgery, &key, header, claims),
        };
        match &client.id_token_encryption {
            None => token,
            Some(encryption) => encrypt(&token, &client.encryption_key(&encryption.alg), encryption, None),
        }
    }
}

impl Handler<'_> {
    /// OpenID Connect RP-Initiated Logout 1.0 §2 to §4. The provider plays the user, who agrees.
    pub(super) fn end_session(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET, POST")?;
        let request = self.request.parameters().unrepeated()?;
        let hinted = request.get("id_token_hint").map(|hint| self.hinted_client(hint)).transpose()?;
        let stated = request.get("client_id").map(str::to_owned);
        if hinted.is_some() && stated.is_some() && hinted != stated {
            return Err(hint_refused("its audience is not the `client_id`"));
        }
        let client = match hinted.or(stated) {
            None => None,
            Some(id) => match self.state.clients.get(&id) {
                None => return Err(Rejection::bad("invalid_request", RequestRule::UnknownClient, id)),
                client => client,
            },
        };
        let Some(uri) = request.get("post_logout_redirect_uri") else {
            // It would be sent to nobody.
            return match request.get("state") {
                Some(_) => Err(Rejection::bad("invalid_request", RequestRule::InvalidParameter, "state")),
                None => Ok(Reply::new(200, "text/html", "<p>You are logged out.</p>")),
            };
        };
        if !client.is_some_and(|client| client.post_logout_redirect_uris.iter().any(|registered| registered == uri)) {
            return Err(Rejection::bad("invalid_request", RequestRule::WrongPostLogoutRedirectUri, uri));
        }
        // It is optional. It protects the user, so a client has no reason to omit it.
        let response = vec![("state".to_owned(), request.required("state")?.to_owned())];
        let mut reply = redirect(uri, &response);
        reply.browser = Some(BrowserReturn::new(uri, response));
        Ok(reply)
    }

    /// The client that an ID Token of this provider was issued to. It may have expired (§4).
    fn hinted_client(&self, hint: &str) -> Result<String, Rejection> {
        let token = Jwt::parse(hint).ok_or_else(|| hint_refused("it is no signed JWT"))?;
        let client = token.claim("aud").and_then(|audience| self.state.clients.get(audience));
        let client = client.ok_or_else(|| hint_refused("its audience is no client"))?;
        let is_ours = match client.hmac_secret() {
            Some(secret) => token.verifies_with_secret(secret.as_bytes()),
            None => self.state.keys.iter().any(|key| token.verifies(&key.public_jwk())),
        };
        match is_ours && token.claim("iss") == Some(&self.op.settings.issuer) {
            true => Ok(client.id.clone()),
            false => Err(hint_refused("this provider has not issued it")),
        }
    }
}

fn hint_refused(detail: &str) -> Rejection {
    Rejection::bad("invalid_request", RequestRule::IdTokenHint, detail)
}
