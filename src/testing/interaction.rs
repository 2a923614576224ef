//! The pages of `interaction_uri`, where a user does their part of a process (IETF draft).

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use url::Url;

use super::authorization::escaped;
use super::op::{Handler, Op, Opaque};
use super::process::{Decision, Interaction};
use super::provider::{TestProcess, TestProvider};
use super::record::{Endpoint, RequestRule};
use super::settings::When;
use super::state::State;
use super::wire::{Delivery, Incoming, Rejection, Reply};

impl TestProvider {
    /// Plays the user who opens an `interaction_uri` and looks at the page, without a socket. The decision can be made
    /// by the returned process.
    ///
    /// # Panics
    ///
    /// Panics if the user would see an error page, because the URI is unknown or was opened before, because the process
    /// is over, or because of a [`Fault`](super::Fault).
    pub fn open_interaction(&self, uri: impl AsRef<str>) -> TestProcess {
        let url = Url::parse(uri.as_ref()).expect("the interaction URI is a URL");
        assert_eq!(url.origin(), self.op.base.origin(), "the interaction URI leads to another server");
        let number = self.op.state().by_interaction.get(url.as_str()).copied();
        let request = Incoming {
            method: Method::GET,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            certificates: Vec::new(),
        };
        match self.op.browse(&request, Endpoint::Interaction) {
            Delivery::Whole(reply) if reply.status.is_success() => {}
            Delivery::Whole(reply) => {
                let page = String::from_utf8_lossy(&reply.body).into_owned();
                panic!("the user sees an error page with status {}: {page}", reply.status)
            }
            _ => panic!("the user's browser got no answer"),
        }
        TestProcess { op: self.op.clone(), number: number.expect("an unknown URI shows an error page") }
    }
}

impl TestProcess {
    /// Requires the user from now on: polls are answered with `interaction_required` and a new `interaction_uri`, then
    /// with `interaction_pending` when the user has opened it. A [`DecisionPolicy`](super::DecisionPolicy) decides
    /// nothing until [`resume`](Self::resume).
    pub fn require_interaction(&self) {
        self.op.require_interaction(&mut self.op.state(), self.number);
    }

    /// Ends the interaction without a decision: polls are answered with `authorization_pending` again, and a
    /// [`DecisionPolicy`](super::DecisionPolicy) decides when it is due.
    pub fn resume(&self) {
        let mut state = self.op.state();
        let record = &mut state.processes[self.number];
        record.interaction = Interaction::None;
        let next = record.next_decision().filter(|_| matches!(record.policy.when, When::Time(_)));
        state.timed.extend(next.map(|due| (due, self.number)));
        self.op.changed.notify_waiters();
    }

    /// The current `interaction_uri`, opened or not. `None` if the user is not required.
    pub fn interaction_uri(&self) -> Option<String> {
        match &self.op.state().processes[self.number].interaction {
            Interaction::Required(uri) | Interaction::Opened(uri) => Some(uri.clone()),
            Interaction::None => None,
        }
    }
}

impl Op {
    /// IETF DTR §Token Endpoint — Deferred Response: the URI is without fragment, single-use and opaque.
    pub(super) fn require_interaction(&self, state: &mut State, process: usize) {
        let uri = self.url(&format!("/interact/{}", self.opaque(Opaque::Uri)));
        let uri = Url::parse(&uri).expect("the interaction URI is a URL").to_string();
        state.by_interaction.insert(uri.clone(), process);
        state.processes[process].interaction = Interaction::Required(uri);
        self.changed.notify_waiters();
    }
}

impl Handler<'_> {
    /// Shows the page, or takes the user's decision.
    pub(super) fn interaction(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET, POST")?;
        let uri = self.request.url.as_str();
        let Some(process) = self.state.by_interaction.get(uri).copied() else {
            return Err(Rejection::new(404, "invalid_request", RequestRule::UnknownInteraction, uri));
        };
        let now = self.op.clock.monotonic();
        let record = &mut self.state.processes[process];
        record.decide(now);
        let is_over = record.decision.is_some() || record.has_expired(now);
        let opens = self.request.method == Method::GET;
        match &record.interaction {
            _ if is_over => Ok(page(410, "<p>There is nothing to decide any more.</p>")),
            Interaction::Required(current) if opens && current == uri => {
                record.interaction = Interaction::Opened(uri.to_owned());
                self.op.changed.notify_waiters();
                Ok(page(200, &form(&record.client_id, record.request.get("authorization_details"))))
            }
            Interaction::Opened(current) if !opens && current == uri => Ok(self.decided_by_user(process)),
            _ => Ok(page(410, "<p>This link was used before, or has been replaced by another one.</p>")),
        }
    }

    fn decided_by_user(&mut self, process: usize) -> Reply {
        let (decision, text) = match self.request.parameters().get("decision") {
            Some("approve") => (Decision::Approved, "<p>You approved.</p>"),
            Some("deny") => (Decision::Denied("the user denied".into()), "<p>You denied.</p>"),
            _ => return page(400, "<p>Approve or deny.</p>"),
        };
        self.op.decide(self.state, process, decision);
        page(200, text)
    }
}

/// The question to the user. The form is sent to the URL of the page itself.
fn form(client_id: &str, details: Option<&str>) -> String {
    let details = details.map(|details| format!("<pre>{}</pre>\n", escaped(details))).unwrap_or_default();
    format!(
        "<p>The application <b>{}</b> asks for your approval.</p>\n{details}<form method=\"post\">\n\
         <button name=\"decision\" value=\"approve\">Approve</button>\n\
         <button name=\"decision\" value=\"deny\">Deny</button>\n</form>",
        escaped(client_id)
    )
}

/// A page with an empty icon. Otherwise browsers ask for `/favicon.ico`, which would be noted as a request to an unknown
/// URL.
fn page(status: u16, content: &str) -> Reply {
    let page = format!(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><title>Test provider</title><link rel=\"icon\" href=\"data:,\">\
         <meta name=\"viewport\" content=\"width=device-width\"></head>\n<body>\n{content}\n</body></html>\n"
    );
    Reply::new(status, "text/html; charset=utf-8", page)
        .with(header::CACHE_CONTROL, "no-store")
        .with(header::REFERRER_POLICY, "no-referrer")
}
