//! The reviewers' page: who waits, and the decisions. Anyone who can open the page may decide; there is no login here.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::sse::{self, KeepAlive};
use axum::response::{IntoResponse, Redirect, Response, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use openid_deferred::testing::{Endpoint, Fault, IdTokenForgery, PingForgery, RecordedRequest};
use openid_deferred::{Clock as _, SystemClock};
use serde::Deserialize;

use super::op::{Case, Front};
use super::{op_pages, shell};

/// How often the page updates the number of polls.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

pub async fn desk(State(front): State<Front>) -> Response {
    let cases = front.cases().clone();
    op_pages::desk(shell::live("/desk/live", op_pages::cases(&cases))).into_response()
}

/// Sends the page's content after each change.
pub async fn stream(State(front): State<Front>) -> Sse<impl Stream<Item = Result<sse::Event, Infallible>>> {
    let changes = front.changed.subscribe();
    let events = unfold((front, changes, None), |(front, mut changes, shown)| async move {
        loop {
            let html = op_pages::cases(&front.cases().clone()).into_string();
            if shown.as_ref() != Some(&html) {
                let event = sse::Event::default().retry(Duration::from_secs(1)).json_data(&html).ok()?;
                return Some((Ok(event), (front, changes, Some(html))));
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = SystemClock.sleep(CHECK_INTERVAL) => {}
            }
        }
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

pub async fn picture(State(front): State<Front>, Path(case): Path<usize>) -> Response {
    match front.cases().get(case) {
        None => StatusCode::NOT_FOUND.into_response(),
        Some(Case { picture, .. }) => {
            // Whatever its content is, it is served as a picture that cannot run scripts.
            let headers =
                [(CONTENT_TYPE, picture.media_type), (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox")];
            (headers, picture.bytes.clone()).into_response()
        }
    }
}

#[derive(Deserialize)]
pub struct Decision {
    decision: Verdict,
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Approve,
    Refuse,
    Progress,
    Expire,
    SlowDown,
    /// Approve with an ID Token whose signature is wrong.
    Forge,
    /// Approve, and break the connection during the answer.
    Lose,
    /// Forget the sign-in.
    Forget,
}

pub async fn decide(
    State(front): State<Front>,
    Path(case): Path<usize>,
    Form(decision): Form<Decision>,
) -> Result<Redirect, StatusCode> {
    let mut cases = front.cases();
    let case = cases.get_mut(case).ok_or(StatusCode::NOT_FOUND)?;
    // The application may have cancelled it, or another reviewer was faster.
    if let Some(id) = case.identifier().filter(|_| !case.process.is_decided()) {
        let text = Some(decision.text.trim()).filter(|text| !text.is_empty());
        case.apply(&front, decision.decision, id, text);
        front.changed.send_replace(());
    }
    Ok(Redirect::to("/desk"))
}

impl Case {
    fn apply(&mut self, front: &Front, verdict: Verdict, id: String, text: Option<&str>) {
        let process = &self.process;
        let about_it = move |request: &RecordedRequest| {
            let identifier = request.parameter("deferred_auth_id").or(request.parameter("deferral_code"));
            identifier == Some(&id)
        };
        self.verdict = Some(match verdict {
            Verdict::Progress => {
                let text = text.unwrap_or("A reviewer is checking your passport.");
                process.progress(text);
                self.progress = Some(text.to_owned());
                // Pings are only sent for decisions. Polls return this text.
                return;
            }
            Verdict::SlowDown => return process.slow_down_next(),
            Verdict::Approve => {
                process.approve();
                "approved"
            }
            Verdict::Refuse => {
                process.deny_with(text.unwrap_or("The passport could not be read."));
                "refused"
            }
            Verdict::Expire => {
                process.expire();
                "left to expire"
            }
            Verdict::Forge => {
                let forgery = Fault::id_token(Endpoint::Poll, IdTokenForgery::broken_signature());
                front.op.misbehave(forgery.when(about_it));
                process.approve();
                "approved, with a false signature"
            }
            Verdict::Lose => {
                front.op.misbehave(Fault::reset(Endpoint::Poll).after_success().when(about_it));
                process.approve();
                "approved, and the answer lost"
            }
            Verdict::Forget => {
                front.op.misbehave(Fault::error(Endpoint::Poll, "invalid_grant").when(about_it));
                process.send_ping(PingForgery::Genuine);
                "forgotten"
            }
        });
    }
}
