//! The authorization endpoint. The provider plays the user and their browser.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header;
use url::Url;

use super::browser::BrowserReturn;
use super::dialect::NOTIFICATION_TOKEN;
use super::identity_assurance;
use super::op::{Handler, Opaque};
use super::process::{Code, Grant};
use super::record::RequestRule;
use super::state::State;
use super::token::has_openid;
use super::wire::{Parameters, Rejection, Reply};

impl Handler<'_> {
    /// Handles an authorization request by GET or POST (OpenID Connect Core §3.1.2.1). The answer sends the browser
    /// back.
    pub(super) fn authorization(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET, POST")?;
        let request = self.request.parameters().unrepeated()?;
        let exposed = BACK_CHANNEL.into_iter().find(|name| request.get(name).is_some());
        let (request, problem) = self.pushed_or_plain(request)?;
        let exposed = exposed.map(|name| Rejection::bad("invalid_request", RequestRule::TokenInQuery, name));
        let problem = exposed.or(problem);
        let redirect_uri = self.redirect_target(&request)?;
        let authorized = problem.map_or(Ok(()), Err).and_then(|()| self.authorize(&request, &redirect_uri));
        let mut response = match authorized {
            Ok(response) => response,
            Err(rejection) => {
                self.rejected(&rejection);
                vec![
                    ("error".to_owned(), rejection.error.to_owned()),
                    ("error_description".to_owned(), rejection.description),
                ]
            }
        };
        if let Some(state) = request.get("state") {
            response.push(("state".into(), state.into()));
        }
        if self.op.settings.sends_iss {
            response.push(("iss".into(), self.op.settings.issuer.clone()));
        }
        let State { faults, requests, .. } = &mut *self.state;
        let mut names = Vec::new();
        for fault in faults {
            let editor = requests.get(self.number).and_then(|request| fault.forges_authorization(request));
            if let Some(editor) = editor {
                (editor.0)(&mut response);
                names.push(fault.name.clone());
            }
        }
        self.state.note_faults(self.number, names);
        let response = match request.get("response_mode") {
            Some("query.jwt" | "form_post.jwt" | "jwt") => self.jwt_response(&request, response)?,
            _ => response,
        };
        let mut reply = match request.get("response_mode") {
            Some("form_post" | "form_post.jwt") => form_post(&redirect_uri, &response),
            _ => redirect(&redirect_uri, &response),
        };
        reply.browser = Some(BrowserReturn::new(&redirect_uri, response));
        Ok(reply)
    }

    /// Errors in these two parameters are shown to the user, because it is not yet known where to send the browser.
    pub(super) fn redirect_target(&self, request: &Parameters) -> Result<String, Rejection> {
        let client_id = request.required("client_id")?;
        let Some(client) = self.state.clients.get(client_id) else {
            return Err(Rejection::bad("invalid_request", RequestRule::UnknownClient, client_id));
        };
        let redirect_uri = request.required("redirect_uri")?;
        match client.accepts_redirect_uri(redirect_uri) {
            true => Ok(redirect_uri.to_owned()),
            false => Err(Rejection::bad("invalid_request", RequestRule::WrongRedirectUri, redirect_uri)),
        }
    }

    /// The values of the response type, and whether the answer is a `deferred_code`.
    fn response_type<'a>(&self, request: &'a Parameters) -> Result<(Vec<&'a str>, bool), Rejection> {
        let response_type = request.required("response_type")?;
        let mut types: Vec<_> = response_type.split(' ').collect();
        types.sort_unstable();
        let openid = self.op.settings.dialects.openid;
        let is_deferred = match *types.as_slice() {
            ["deferred_code"] if openid => true,
            ["code", "deferred_code"] if openid => !self.op.settings.answers_with_code,
            ["code"] => false,
            _ => {
                let rule = RequestRule::WrongResponseType;
                return Err(Rejection::bad("unsupported_response_type", rule, response_type));
            }
        };
        Ok((types, is_deferred))
    }

    /// The specifications make `state` and `nonce` optional. They protect the user, so a client has no reason to omit
    /// them. Only a provider of the IETF dialect accepts a request that is no sign-in.
    fn check_scope(&self, request: &Parameters, types: &[&str]) -> Result<(), Rejection> {
        let may_be_no_sign_in = self.op.settings.dialects.ietf && types == ["code"];
        let is_sign_in = !may_be_no_sign_in || has_openid(request);
        for name in ["state", "nonce"] {
            if is_sign_in || name == "state" {
                request.required(name)?;
            }
        }
        if is_sign_in && !has_openid(request) {
            return Err(Rejection::bad("invalid_scope", RequestRule::NoOpenidScope, ""));
        }
        check_scope_syntax(request)
    }

    /// DTR §Authentication Request Validation. Returns whether the answer is a `deferred_code`.
    pub(super) fn check_request(&self, request: &Parameters) -> Result<bool, Rejection> {
        let invalid = |detail: &str| Rejection::bad("invalid_request", RequestRule::InvalidParameter, detail);
        let (types, is_deferred) = self.response_type(request)?;
        self.check_scope(request, &types)?;
        let challenge = (request.get("code_challenge"), request.get("code_challenge_method"));
        match challenge {
            (Some(challenge), Some("S256")) if is_sha256(challenge) => {}
            (None, None) if !self.op.settings.requires_pkce => {}
            _ => return Err(Rejection::bad("invalid_request", RequestRule::NoPkce, "")),
        }
        let mut modes = vec!["query", "form_post", "query.jwt", "form_post.jwt"];
        if types.len() == 1 {
            // JARM §2.3.4: the default for several values is the fragment, which this provider does not support.
            modes.push("jwt");
        }
        if request.get("response_mode").is_some_and(|mode| !modes.contains(&mode)) {
            return Err(invalid("response_mode"));
        }
        if request.get("max_age").is_some_and(|age| age.parse::<u64>().is_err()) {
            return Err(invalid("max_age"));
        }
        if request.get("dpop_jkt").is_some_and(|thumbprint| !is_sha256(thumbprint)) {
            return Err(invalid("dpop_jkt"));
        }
        // OpenID Connect Core §3.1.2.1: "If this parameter contains none with any other value, an error is returned."
        let prompts: Vec<_> = request.get("prompt").unwrap_or_default().split(' ').collect();
        if prompts.len() > 1 && prompts.contains(&"none") {
            return Err(invalid("prompt"));
        }
        check_resources(request)?;
        let is_request =
            |text: &str| serde_json::from_str(text).is_ok_and(|claims| identity_assurance::is_request(&claims));
        if request.get("claims").is_some_and(|text| !is_request(text)) {
            return Err(invalid("claims"));
        }
        check_details(request)?;
        self.check_completion_mode(request)?;
        Ok(is_deferred)
    }

    /// Plays the user, and starts the sign-in.
    fn authorize(&mut self, request: &Parameters, redirect_uri: &str) -> Result<Vec<(String, String)>, Rejection> {
        let is_deferred = self.check_request(request)?;
        self.check_registered(request.required("client_id")?, request)?;
        if request.get("prompt") == Some("none") {
            return Err(Rejection::innocent("login_required", "the user is not signed in"));
        }

        if std::mem::take(&mut self.state.user_declines) {
            return Err(Rejection::innocent("access_denied", "the user declined"));
        }

        let code = self.op.opaque(Opaque::Text);
        let issued_at = self.op.clock.monotonic();
        let user = self.state.user.clone();
        let process = self.begin(Grant::Code, request.required("client_id")?, request, user);
        let record = &mut self.state.processes[process];
        record.redirect_uri = redirect_uri.to_owned();
        record.code = Some(Code { is_deferred, issued_at, used: false });
        self.state.by_code.insert(code.clone(), process);
        Ok(vec![(if is_deferred { "deferred_code" } else { "code" }.to_owned(), code)])
    }
}

/// Parameters that only the client and the provider may see. A browser must not carry them.
const BACK_CHANNEL: [&str; 9] = [
    "client_secret",
    "client_assertion",
    "code_verifier",
    "access_token",
    "refresh_token",
    "deferred_auth_id",
    "deferred_notification_token",
    "deferral_code",
    NOTIFICATION_TOKEN,
];

/// RFC 6749 §3.3.
pub(super) fn check_scope_syntax(request: &Parameters) -> Result<(), Rejection> {
    match request.get("scope").is_none_or(|scope| scope.split(' ').all(is_scope_token)) {
        true => Ok(()),
        false => Err(Rejection::bad("invalid_scope", RequestRule::InvalidParameter, "scope")),
    }
}

/// RFC 8707 §2.
pub(super) fn check_resources(request: &Parameters) -> Result<(), Rejection> {
    match request.0.iter().any(|(name, value)| name == "resource" && !is_resource(value)) {
        true => Err(Rejection::bad("invalid_target", RequestRule::InvalidParameter, "resource")),
        false => Ok(()),
    }
}

/// RFC 9396 §5.
pub(super) fn check_details(request: &Parameters) -> Result<(), Rejection> {
    match request.get("authorization_details").is_some_and(|text| !are_details(text)) {
        true => {
            let rule = RequestRule::InvalidParameter;
            Err(Rejection::bad("invalid_authorization_details", rule, "authorization_details"))
        }
        false => Ok(()),
    }
}

/// RFC 6749 §3.3.
fn is_scope_token(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// Whether a text is a SHA-256 hash in base64url, like a PKCE challenge or the thumbprint of a key.
fn is_sha256(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|hash| hash.len() == 32)
}

/// RFC 8707 §2: an absolute URI without a fragment.
fn is_resource(uri: &str) -> bool {
    Url::parse(uri).is_ok_and(|uri| uri.fragment().is_none())
}

/// RFC 9396 §2: an array of objects that each have a `type`.
fn are_details(text: &str) -> bool {
    let details: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_str(text).unwrap_or_default();
    !details.is_empty() && details.iter().all(|detail| detail.get("type").is_some_and(serde_json::Value::is_string))
}

pub(super) fn redirect(redirect_uri: &str, response: &[(String, String)]) -> Reply {
    let target = BrowserReturn::new(redirect_uri, response.to_vec());
    Reply::new(303, "", "").with(header::LOCATION, &target.url()).with(header::CACHE_CONTROL, "no-store")
}

/// OAuth 2.0 Form Post Response Mode §2: a page that submits itself.
fn form_post(redirect_uri: &str, response: &[(String, String)]) -> Reply {
    let mut page = String::from("<!DOCTYPE html>\n<html><head><title>Submit this form</title></head>\n");
    page += "<body onload=\"document.forms[0].submit()\">\n";
    page += &format!("<form method=\"post\" action=\"{}\">\n", escaped(redirect_uri));
    for (name, value) in response {
        page += &format!("<input type=\"hidden\" name=\"{}\" value=\"{}\"/>\n", escaped(name), escaped(value));
    }
    page += "<noscript><button>Continue</button></noscript>\n</form></body></html>\n";
    Reply::new(200, "text/html; charset=utf-8", page).with(header::CACHE_CONTROL, "no-store")
}

pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
