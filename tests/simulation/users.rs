//! Users who sign in, reload, hang up and change their minds, and the pings that the OP sends in the meantime.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use openid_deferred::ciba::UserHint;
use openid_deferred::store::ProcessId;
use openid_deferred::{AuthorizationSession, PendingAuthentication, SignIn};
use serde_json::json;

use crate::life::mortal;
use crate::op::{Dialect, Plan};
use crate::replica::Replica;
use crate::watched::Accepted;
use crate::world::{World, spawn};

const MINUTE: Duration = Duration::from_secs(60);

pub async fn sign_in(world: Arc<World>, label: usize, plan: Plan) {
    let chance = &world.chance;
    let spread = if world.rushes { world.horizon / 20 } else { world.horizon };
    world.sleep(chance.up_to(spread)).await;
    if world.op().dialect_of(label) == Dialect::Ciba {
        if plan.pings {
            spawn(pings(world.clone(), label, plan));
        }
        let Some(id) = be_named(&world, label).await else { return };
        if chance.odds(0.3) {
            change_mind(&world, label, id).await;
        }
        return;
    }
    let Some((query, session)) = go_out(&world, label).await else { return };
    if plan.pings {
        spawn(pings(world.clone(), label, plan));
    }
    world.sleep(chance.up_to(2 * MINUTE)).await;
    let id = match chance.odds(0.2) {
        true => come_back_elsewhere(&world, label, &query, &session).await,
        false => come_back(&world, label, &query, &session).await,
    };
    let Some(id) = id else { return };
    if chance.odds(0.3) {
        change_mind(&world, label, id).await;
    }
}

/// Sends a user to the OP. Returns the query of the redirect, and the session.
async fn go_out(world: &World, label: usize) -> Option<(String, String)> {
    for _ in 0..10 {
        let Some(replica) = running(world).await else { continue };
        let client = &replica.clients[world.op().processes[label].client];
        let request = client.authorize().context(label.to_string()).start();
        let started = tokio::select! {
            biased;
            () = replica.life.ended() => continue,
            started = request => started,
        };
        if let Ok((url, session)) = started {
            let parameters: BTreeMap<_, _> = url.query_pairs().into_owned().collect();
            let query = world.op().visit(label, &parameters, &world.chance);
            return Some((query, session.seal(&world.keyring).expect("it is small")));
        }
        world.sleep(world.chance.between(MINUTE, 30 * MINUTE)).await;
    }
    None
}

async fn running(world: &World) -> Option<Replica> {
    for _ in 0..1_000 {
        if let Some(replica) = world.some_replica() {
            return Some(replica);
        }
        world.sleep(Duration::from_secs(10)).await;
    }
    None
}

/// Returns the user to some replica, and again after an error, as long as the user has patience.
async fn come_back(world: &World, label: usize, query: &str, session: &str) -> Option<ProcessId> {
    let chance = &world.chance;
    let mut named = None;
    for _ in 0..4 {
        let replica = running(world).await?;
        let session = AuthorizationSession::open(&world.keyring, session).expect("it was sealed here");
        let poller = replica.poller.clone();
        let patience = if world.strikes(0.2) { chance.up_to(2 * MINUTE) } else { Duration::MAX };
        let accepted = tokio::select! {
            biased;
            () = replica.life.ended() => Accepted::Nothing,
            accepted = poller.authorization_response(query, session) => match accepted {
                Ok(openid_deferred::poller::AcceptedSignIn::Deferred(id)) => Accepted::Deferred(id),
                Ok(openid_deferred::poller::AcceptedSignIn::Complete(_)) => Accepted::Complete,
                // The result was already reported.
                Ok(_) => Accepted::Nothing,
                Err(_) => Accepted::Error,
            },
            () = world.sleep(patience) => Accepted::Nothing,
        };
        world.oracle().accepted(world.now(), label, accepted);
        if let Accepted::Deferred(id) = accepted {
            named = Some(id);
        }
        if chance.odds(if named.is_some() { 0.8 } else { 0.4 }) {
            break;
        }
        world.sleep(chance.between(Duration::from_millis(10), 30 * MINUTE)).await;
    }
    named
}

/// Has some replica ask the OP for the user (CIBA), and again after an error, as long as the application has patience.
async fn be_named(world: &World, label: usize) -> Option<ProcessId> {
    let chance = &world.chance;
    let mut named = None;
    for _ in 0..4 {
        let replica = running(world).await?;
        let client = &replica.clients[world.op().processes[label].client];
        let request = client.backchannel_authentication(UserHint::login_hint(format!("user-{label}")));
        let request = request.context(label.to_string()).idempotency_key(label.to_string());
        let patience = if world.strikes(0.2) { chance.up_to(2 * MINUTE) } else { Duration::MAX };
        let accepted = tokio::select! {
            biased;
            () = replica.life.ended() => Accepted::Nothing,
            accepted = replica.poller.request_authentication(request) => match accepted {
                Ok(openid_deferred::poller::AcceptedSignIn::Deferred(id)) => Accepted::Deferred(id),
                Ok(_) => Accepted::Nothing,
                Err(_) => Accepted::Error,
            },
            () = world.sleep(patience) => Accepted::Nothing,
        };
        world.oracle().accepted(world.now(), label, accepted);
        if let Accepted::Deferred(id) = accepted {
            named = Some(id);
        }
        if chance.odds(if named.is_some() { 0.8 } else { 0.4 }) {
            break;
        }
        world.sleep(chance.between(Duration::from_millis(10), 30 * MINUTE)).await;
    }
    named
}

/// Returns the user to a client without a poller, and then passes the sign-in to the poller.
async fn come_back_elsewhere(world: &World, label: usize, query: &str, session: &str) -> Option<ProcessId> {
    let replica = running(world).await?;
    let session = AuthorizationSession::open(&world.keyring, session).expect("it was sealed here");
    let client = &replica.clients[world.op().processes[label].client];
    let exchanged = tokio::select! {
        biased;
        () = replica.life.ended() => return None,
        exchanged = client.authorization_response(query, session) => exchanged,
    };
    let Ok(SignIn::Deferred(pending)) = exchanged else { return None };
    world.sleep(world.chance.up_to(Duration::from_secs(30))).await;
    let life = replica.life.clone();
    tokio::select! {
        biased;
        () = life.ended() => None,
        id = hand_over(world, label, &replica, pending) => Some(id),
    }
}

async fn hand_over(world: &World, label: usize, replica: &Replica, pending: PendingAuthentication) -> ProcessId {
    let _turn = replica.tracks.lock().await;
    world.tracking.lock().unwrap().insert(replica.life.number, label);
    loop {
        if let Ok(id) = replica.poller.track(&pending).await {
            world.oracle().accepted(world.now(), label, Accepted::Deferred(id));
            return id;
        }
        world.sleep(Duration::from_secs(1)).await;
    }
}

async fn change_mind(world: &World, label: usize, id: ProcessId) {
    let chance = &world.chance;
    world.sleep(chance.between(Duration::from_secs(1), world.horizon)).await;
    let Some(replica) = running(world).await else { return };
    let act = async {
        match chance.below(5) {
            0 => {
                world.oracle().forgotten(world.now(), label);
                drop(replica.poller.forget(id).await);
            }
            1 => drop((replica.poller.status(id).await, replica.poller.stats().await)),
            _ => {
                world.oracle().cancelled(world.now(), label);
                world.oracle().cancels(label, true);
                drop(replica.poller.cancel(id).await);
            }
        }
    };
    tokio::select! {
        biased;
        () = replica.life.ended() => {}
        () = act => {}
    }
    world.oracle().cancels(label, false);
}

/// Sends pings: genuine, early, repeated, forged and mixed up.
async fn pings(world: Arc<World>, label: usize, plan: Plan) {
    let chance = &world.chance;
    for _ in 0..1 + chance.below(6) {
        let wait = if chance.odds(0.3) { plan.decides_after } else { chance.up_to(plan.decides_after) };
        world.sleep(wait + chance.up_to(Duration::from_secs(3))).await;
        let (token, auth_id, other) = {
            let op = world.op();
            let (process, other) = (&op.processes[label], &op.processes[chance.below(op.processes.len())]);
            let Some(token) = process.notification_token.clone() else { continue };
            (token, process.auth_id.clone(), other.auth_id.clone())
        };
        world.oracle().counts.pings += 1;
        match chance.below(6) {
            0 => {
                let status = ping(&world, label, &forged(&token, chance.below(token.len())), &auth_id, false).await;
                let refused = status.is_none_or(|status| status == StatusCode::UNAUTHORIZED);
                world.oracle().must(world.now(), refused, || format!("a forged ping is answered with {status:?}"));
            }
            1 if other != auth_id => {
                let known = world.oracle().is_in_store(label);
                let status = ping(&world, label, &token, &other, true).await;
                let refused = !known || status != Some(StatusCode::NO_CONTENT);
                world.oracle().must(world.now(), refused, || format!("a mixed-up ping is answered with {status:?}"));
            }
            _ => {
                for _ in 0..chance.pick(&[1, 1, 1, 20]) {
                    let status = ping(&world, label, &token, &auth_id, true).await;
                    let taken = matches!(status, None | Some(StatusCode::NO_CONTENT | StatusCode::SERVICE_UNAVAILABLE));
                    world.oracle().must(world.now(), taken, || format!("a ping is answered with {status:?}"));
                }
            }
        }
    }
}

/// Sends a ping. Returns `None` if no replica received it.
async fn ping(world: &World, label: usize, token: &str, auth_id: &str, genuine: bool) -> Option<StatusCode> {
    let replica = world.some_replica()?;
    if genuine {
        world.oracle().genuine_pings += 1;
    }
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {token}").parse().expect("a header"));
    headers.insert("content-type", "application/json".parse().expect("a header"));
    let mut body = json!({});
    body[world.op().identifier(label)] = json!(auth_id);
    let body = body.to_string();
    let mut request = http::Request::post("/").body(body).expect("a request");
    *request.headers_mut() = headers;
    let receiver = replica.receiver.clone();
    tokio::select! {
        biased;
        () = replica.life.ended() => None,
        response = mortal(replica.life.clone(), receiver.receive(request)) => Some(response.status()),
    }
}

fn forged(token: &str, at: usize) -> String {
    let flip = |(index, letter): (usize, char)| match letter {
        'A' if index == at => 'B',
        _ if index == at => 'A',
        other => other,
    };
    token.chars().enumerate().map(flip).collect()
}
