//! Decisions, and the Ping Callbacks that announce them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::dialect::Dialect;
use super::op::Op;
use super::ping::{Ping, PingForgery, SentPing};
use super::post::{PATIENCE, post};
use super::process::{Decision, Process};
use super::state::State;

impl Op {
    /// Decides a sign-in and notifies the client if possible.
    pub(super) fn decide(&self, state: &mut State, process: usize, decision: Decision) {
        let is_expiry = decision == Decision::Expired;
        state.processes[process].decision = Some(decision);
        self.changed.notify_waiters();
        // DTR §Ping Callback: "Ping callbacks are not sent for timed-out Authentication Processes".
        if !is_expiry && state.processes[process].identifier.is_some() {
            state.due_pings.push(process);
        }
    }

    /// Sends the pings of past decisions. It must be called without the lock, because a hook may use the provider.
    pub(super) fn send_due_pings(self: &Arc<Self>) {
        let now = self.clock.monotonic();
        let mut state = self.state();
        let mut ready = Vec::new();
        for process in std::mem::take(&mut state.due_pings) {
            match state.processes[process].notification(now) {
                Notification::Now => ready.push(process),
                Notification::Later => state.due_pings.push(process),
                Notification::Never => {}
            }
        }
        drop(state);
        for process in ready {
            self.send_ping(process, PingForgery::Genuine);
        }
    }

    pub(super) fn send_ping(self: &Arc<Self>, process: usize, forgery: PingForgery) {
        let mut state = self.state();
        let record = &state.processes[process];
        let url = state.clients[&record.client_id].notification_endpoint.clone();
        if url.is_none() && self.ping_hook.is_none() {
            return;
        }
        let name = record.dialect.identifier();
        let mut id = record.identifier.clone().unwrap_or_default();
        let mut bearer = record.notification_token.clone();
        let mut body = None;
        match forgery {
            PingForgery::Genuine => {}
            PingForgery::NoBearer => bearer = None,
            PingForgery::Bearer(other) => bearer = Some(other),
            PingForgery::DeferredAuthId(other) => id = other,
            PingForgery::Body(text) => body = Some(text),
        }
        let body = body.unwrap_or_else(|| json!({ name: id }).to_string());
        let ping = Ping { url, deferred_auth_id: id, bearer, body };
        state.processes[process].pace.pinged = true;
        let position = state.pings.len();
        state.pings.push(SentPing { ping: ping.clone(), status: None });
        drop(state);
        match &self.ping_hook {
            Some(hook) => {
                let status = (hook.0)(&ping);
                self.state().pings[position].status = Some(status);
            }
            None => {
                let op = Arc::clone(self);
                std::thread::spawn(move || {
                    let status = send(&ping).ok();
                    op.state().pings[position].status = status;
                });
            }
        }
    }
}

/// When a client is told of a decision.
enum Notification {
    Now,
    Later,
    Never,
}

impl Process {
    /// IETF DTR §Callback Notification: never after the expiry, and not before the deferred response was written. CIBA
    /// §10.2: only in ping mode, in which the client has sent a token.
    fn notification(&self, now: Duration) -> Notification {
        match self.dialect {
            Dialect::OpenId => Notification::Now,
            Dialect::Ciba if self.notification_token.is_none() => Notification::Never,
            Dialect::Ietf | Dialect::Ciba if self.has_expired(now) => Notification::Never,
            Dialect::Ietf | Dialect::Ciba if !self.is_announced => Notification::Later,
            Dialect::Ietf | Dialect::Ciba => Notification::Now,
        }
    }
}

/// Posts a ping over plain HTTP and returns the status. Redirects are not followed, and the body is not read.
#[expect(clippy::disallowed_methods, reason = "a real network has real timeouts")]
fn send(ping: &Ping) -> io::Result<u16> {
    let url = ping.url.as_ref().ok_or_else(|| io::Error::other("there is no notification endpoint"))?;
    let authorization = ping.bearer.as_ref().map(|bearer| format!("Bearer {bearer}"));
    let exchange = async {
        let response = post(url, "application/json", authorization.as_deref(), ping.body.clone()).await?;
        Ok(response.status().as_u16())
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async { tokio::time::timeout(PATIENCE, exchange).await? })
}
