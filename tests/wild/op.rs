//! A scripted OP.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_core::future::BoxFuture;
use http::Method;
use http::header::AUTHORIZATION;
use openid_deferred::error::TransportProblem;
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use serde_json::Value;
use url::Url;

use crate::answer::Answer;

/// The answers of the OP at each of its endpoints.
#[derive(Debug, Default)]
pub struct Script {
    /// Discovery documents by their paths.
    pub documents: Vec<(String, Answer)>,
    pub keys: Option<Answer>,
    /// The last answer of each list is repeated.
    pub code: VecDeque<Answer>,
    pub exchange: VecDeque<Answer>,
    pub poll: VecDeque<Answer>,
    pub refresh: VecDeque<Answer>,
    pub userinfo: Option<Answer>,
    pub pushed: Option<Answer>,
    /// The deferred codes that were sent.
    pub codes: Vec<String>,
    /// The tokens that were revoked.
    pub revoked: Vec<String>,
}

/// A client's network whose only host is this OP.
#[derive(Debug, Default)]
pub struct Op(Mutex<Script>);

impl Op {
    pub fn script(&self) -> MutexGuard<'_, Script> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &HttpRequest) -> Answer {
        let mut script = self.script();
        let form = |name: &str| {
            let mut pairs = form_urlencoded::parse(&request.body);
            pairs.find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
        };
        if is_of_discovery(&request.url) {
            let document = script.documents.iter().find(|(path, _)| path == request.url.path());
            return document.map_or_else(Answer::not_found, |(_, answer)| answer.clone());
        }
        script.codes.extend(form("deferred_code"));
        if request.url.path().ends_with("/par") {
            return script.pushed.clone().unwrap_or_else(Answer::not_found);
        }
        let answer = match (form("grant_type").as_deref(), request.method == Method::GET) {
            (Some("authorization_code"), _) => next(&mut script.code),
            (Some("refresh_token"), _) => next(&mut script.refresh),
            (Some(_), _) if form("deferred_code").is_some() => next(&mut script.exchange),
            (Some(_), _) => next(&mut script.poll),
            (None, true) if request.headers.contains_key(AUTHORIZATION) => script.userinfo.clone(),
            (None, true) => script.keys.clone(),
            (None, false) => {
                let token = form("token").expect("nothing else is posted without a grant type");
                script.revoked.push(token);
                Some(Answer::json(&Value::Null))
            }
        };
        answer.unwrap_or_else(Answer::not_found)
    }
}

/// Whether the URL is one of OpenID Connect Discovery 1.0 §4 or RFC 8414 §3. Key sets are below `/.well-known/` too,
/// under other names.
fn is_of_discovery(url: &Url) -> bool {
    let mut segments = url.path().split('/');
    segments.any(|segment| matches!(segment, "openid-configuration" | "oauth-authorization-server"))
}

fn next(answers: &mut VecDeque<Answer>) -> Option<Answer> {
    match answers.len() {
        0 | 1 => answers.front().cloned(),
        _ => answers.pop_front(),
    }
}

impl HttpClient for Op {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let answer = self.answer(&request);
        Box::pin(async {
            match answer {
                Answer::Response { status, headers, body } => Ok(HttpResponse { status, headers, body: body.into() }),
                Answer::Nothing => Err(HttpError::not_sent(TransportProblem::Connect)),
            }
        })
    }
}
