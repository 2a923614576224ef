//! The network between a replica and the OP. It delays, loses and breaks messages before and after the OP has processed
//! a request.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::future::BoxFuture;
use openid_deferred::error::TransportProblem;
use openid_deferred::store::ProcessId;
use openid_deferred::transport::{HttpClient, HttpError, HttpRequest, HttpResponse};
use serde_json::json;
use tokio::sync::oneshot;

use crate::faults::Part;
use crate::life::{Life, mortal};
use crate::op::{self, Reply, Said, client_of};
use crate::world::{HOUR, World, spawn};

/// An answer that takes longer delays others.
const SLOW: Duration = Duration::from_secs(10);

pub struct Network {
    pub world: Arc<World>,
    pub life: Arc<Life>,
}

impl HttpClient for Network {
    fn send(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        Box::pin(mortal(self.life.clone(), send(&self.world, &self.life, request)))
    }
}

/// The fate of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Well,
    /// No connection can be made.
    NotSent,
    LostBefore,
    LostAfter,
    /// A gateway answers instead of the OP, before the OP has seen the request or after it has answered.
    GatewayBefore,
    GatewayAfter,
    /// The request is accepted and never answered.
    Hangs,
    /// The answer says that there are too many requests, and when to try again.
    Overloaded,
}

async fn send(world: &Arc<World>, life: &Arc<Life>, request: HttpRequest) -> Result<HttpResponse, HttpError> {
    world.called();
    world.may_crash(life).await;
    world.oracle().counts.requests += 1;
    let mut flight = Flight::begin(world, life, &request);
    let fate = world.fate(request.url.path());
    let trouble = Trouble { client: client_of(&request.url), path: request.url.path().to_owned() };
    if fate != Fate::Well {
        trouble.note(world);
    }
    if fate == Fate::NotSent {
        if let Some((label, number)) = flight.label.zip(flight.number) {
            world.oracle().off_the_wire(label, number);
        }
        world.sleep_a_little(world.faults.latency).await;
        flight.end(None, false, None);
        return Err(HttpError::not_sent(TransportProblem::Connect));
    }
    let timeout = request.timeout;
    let answer = transit(world, flight.label.zip(flight.number), request, fate);
    let answered = tokio::select! {
        biased;
        answered = answer => answered.map_err(|_| TransportProblem::Broken),
        () = world.sleep(timeout) => Err(TransportProblem::Timeout),
    };
    world.may_crash(life).await;
    match answered {
        Ok(reply) => {
            let is_slow = world.now() >= flight.sent_at + SLOW;
            if is_slow || matches!(reply.said, Said::Challenge | Said::WrongClock | Said::Nonsense | Said::Refused) {
                trouble.note(world);
            }
            if let (Some(label), Said::Challenge | Said::WrongClock) = (flight.cancels, reply.said) {
                world.oracle().cancellation_challenged(label);
            }
            flight.end(Some(reply.said), true, reply.retry_after);
            Ok(reply.into_response())
        }
        Err(problem) => {
            trouble.note(world);
            flight.end(None, true, None);
            Err(HttpError::maybe_sent(problem))
        }
    }
}

/// Notes that a request failed: other requests that depend on the same endpoint may be late.
struct Trouble {
    client: usize,
    path: String,
}

impl Trouble {
    fn note(&self, world: &World) {
        let now = world.now();
        let quiet = &mut world.oracle().quiet;
        match self.path.as_str() {
            "/jwks" => quiet.keys_met_trouble(now, self.client),
            // No other request depends on these.
            "/cancel" | "/revoke" => {}
            _ => quiet.request_failed(now, self.client),
        }
    }
}

/// Carries the request to the OP and its answer back, even if its caller has gone away.
fn transit(
    world: &Arc<World>,
    flight: Option<(usize, u64)>,
    request: HttpRequest,
    fate: Fate,
) -> oneshot::Receiver<Reply> {
    let (sender, receiver) = oneshot::channel();
    let world = world.clone();
    let latency = world.latency(request.timeout);
    let silent = world.chance.odds(0.5) || fate == Fate::Hangs;
    spawn(async move {
        if !latency.is_zero() {
            world.sleep(latency).await;
        }
        let reply = match fate {
            Fate::LostBefore | Fate::Hangs => None,
            Fate::GatewayBefore => Some(world.gateway()),
            Fate::Overloaded => Some(world.overloaded()),
            _ => {
                let now = openid_deferred::Clock::now(&world.clock);
                let mut op = world.op();
                op.refuses_client = world.is_out(Part::Registration);
                if world.is_out(Part::Nonces) && op.nonce.is_some() {
                    op.nonce = Some(format!("nonce-{:x}", world.chance.word()));
                }
                let reply = op.handle(&request, now);
                drop(op);
                match fate {
                    Fate::LostAfter => None,
                    Fate::GatewayAfter => Some(world.gateway()),
                    _ => Some(reply),
                }
            }
        };
        if let Some((label, number)) = flight {
            world.oracle().off_the_wire(label, number);
        }
        match reply {
            // The caller may have gone away.
            Some(reply) => drop(sender.send(reply)),
            None if silent => world.sleep(request.timeout).await,
            None => {}
        }
    });
    receiver
}

impl World {
    fn fate(&self, path: &str) -> Fate {
        let hanging = match path {
            "/token" | "/bc-authorize" => Part::HangingToken,
            "/jwks" => Part::HangingKeys,
            "/cancel" => Part::HangingCancellation,
            _ => Part::Op,
        };
        if hanging != Part::Op && self.is_out(hanging) {
            return Fate::Hangs;
        }
        if path == "/token" && self.is_out(Part::Overloaded) && self.chance.odds(0.2) {
            return Fate::Overloaded;
        }
        if self.is_out(Part::Op) || (path == "/jwks" && self.is_out(Part::Keys)) {
            return self.chance.pick(&[Fate::NotSent, Fate::NotSent, Fate::LostBefore, Fate::GatewayBefore]);
        }
        if self.strikes(self.faults.wire_fault) {
            return self.chance.pick(&[Fate::NotSent, Fate::LostBefore, Fate::LostAfter, Fate::LostAfter]);
        }
        if self.strikes(self.faults.garbage) {
            return self.chance.pick(&[Fate::GatewayBefore, Fate::GatewayAfter]);
        }
        Fate::Well
    }

    fn latency(&self, timeout: Duration) -> Duration {
        if self.strikes(self.faults.slow) {
            // Held until shortly before the client gives up, or slightly longer.
            return timeout.mul_f64(0.5) + self.chance.up_to(timeout.mul_f64(0.6));
        }
        match self.now() < self.faults.calm_at {
            true => self.chance.up_to(self.faults.latency),
            false => Duration::ZERO,
        }
    }

    fn gateway(&self) -> Reply {
        let page = |status, text: &str| Reply {
            html: true,
            body: text.as_bytes().to_vec(),
            ..Reply::json(Said::Nonsense, status, &json!(null))
        };
        match self.chance.below(6) {
            0 => page(502, "<html>Bad Gateway"),
            1 => page(200, "<html>Sign in to this network"),
            2 => Reply { retry_after: Some(self.retry_after()), ..page(503, "") },
            // An OP may send a code with status 500; a status of 502 or above is a gateway's.
            3 => {
                let (status, code) = self.chance.pick(&[
                    (502, "invalid_grant"),
                    (503, "access_denied"),
                    (504, "unauthorized_client"),
                    (520, "invalid_request"),
                ]);
                Reply::json(Said::Nonsense, status, &json!({ "error": code }))
            }
            4 => Reply { body: b"{\"error\": \"authoriz".to_vec(), ..Reply::json(Said::Nonsense, 400, &json!(null)) },
            _ => Reply::json(Said::Nonsense, 200, &json!({"status": "ok"})),
        }
    }

    fn overloaded(&self) -> Reply {
        Reply { retry_after: Some(self.retry_after()), ..Reply::json(Said::Nonsense, 503, &json!(null)) }
    }

    fn retry_after(&self) -> Duration {
        let longest = self.faults.rare.longest_retry_after.unwrap_or(HOUR);
        let wait = self.chance.between(Duration::from_secs(1), longest);
        Duration::from_secs(wait.as_secs())
    }
}

/// A request from its departure until its answer arrives or its caller goes away.
struct Flight<'a> {
    world: &'a World,
    life: &'a Arc<Life>,
    label: Option<usize>,
    number: Option<u64>,
    is_poll: bool,
    /// The sign-in whose cancellation it requests.
    cancels: Option<usize>,
    sent_at: Duration,
}

impl<'a> Flight<'a> {
    fn begin(world: &'a World, life: &'a Arc<Life>, request: &HttpRequest) -> Self {
        let now = world.now();
        let mut flight = Self { world, life, label: None, number: None, is_poll: false, cancels: None, sent_at: now };
        let form: BTreeMap<_, _> = form_urlencoded::parse(&request.body).into_owned().collect();
        if request.url.path() == "/cancel" {
            flight.cancels = op::identifier(&form).and_then(|id| world.op().label_of_auth_id(id));
            flight.cancels.into_iter().for_each(|label| world.oracle().cancellation_sent(now, life, label));
        }
        let begins = match request.url.path() {
            "/token" => op::code(&form).map(|code| world.op().label_of_code(code)),
            // It begins a sign-in as a code does.
            "/bc-authorize" => Some(op::label_of_hint(&form)),
            _ => {
                world.oracle().say(now, || format!("replica {} asks for {}", life.number, request.url));
                return flight;
            }
        };
        if let Some(label) = begins {
            flight.label = label;
            let id = op::notification_token(&form).and_then(|token| process_of(token));
            flight.number = flight.label.map(|label| world.oracle().exchange_sent(now, life, label, id));
        } else {
            flight.is_poll = true;
            flight.label = op::identifier(&form).and_then(|id| world.op().label_of_auth_id(id));
            flight.number = flight.label.map(|label| world.oracle().poll_sent(now, life, label));
        }
        if let Some(label) = flight.label {
            let (asked, owner) = (client_of(&request.url), world.op().processes[label].client);
            world.oracle().must(now, asked == owner, || format!("{label} of client {owner} is asked of OP {asked}"));
        }
        flight
    }

    fn end(&mut self, said: Option<Said>, sent: bool, retry_after: Option<Duration>) {
        let (Some(label), Some(number), now) = (self.label, self.number.take(), self.world.now()) else { return };
        let mut oracle = self.world.oracle();
        match self.is_poll {
            true => oracle.poll_ended(now, self.life, label, number, self.sent_at, said, sent, retry_after),
            false => oracle.exchange_ended(now, label, number, said, sent),
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        // Requests of a dead machine are still in flight.
        if self.life.is_alive() {
            self.end(None, true, None);
        }
    }
}

/// The sign-in that a notification token names (format, key, client, process, random, MAC).
fn process_of(token: &str) -> Option<ProcessId> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    Some(ProcessId::from_bytes(bytes.get(13..29)?.try_into().ok()?))
}

impl fmt::Debug for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Network").finish_non_exhaustive()
    }
}
