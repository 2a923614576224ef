//! The flows that users start: sign-ins in both drafts, orders, for which the application requests tokens of its own,
//! and confirmations on their phones (CIBA).

use openid_deferred::testing::{Endpoint, RecordedRequest, TestProcess, TestUser};
use openid_deferred::{Clock as _, SystemClock};
use serde_json::{Value, json};
use url::Url;

use crate::service::{MOMENT, Service, Visit};

/// What a user starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// A sign-in in the OpenID dialect.
    OpenId,
    /// A sign-in in the IETF dialect.
    Ietf,
    /// A client credentials grant in the IETF dialect.
    Order,
    /// A user whom the application has asked.
    Asked,
}

impl Flow {
    pub fn of_user(user: u32) -> Self {
        match user % 4 {
            0 => Self::OpenId,
            1 => Self::Ietf,
            2 => Self::Order,
            _ => Self::Asked,
        }
    }

    /// The parameter of the authorization response with the code.
    fn code(self) -> &'static str {
        if self == Self::OpenId { "deferred_code" } else { "code" }
    }

    /// What the application writes about this user's success.
    pub fn success(self, user: u32) -> (&'static str, Value) {
        match self {
            Self::OpenId | Self::Ietf | Self::Asked => ("approved", format!("user-{user}").into()),
            Self::Order => ("issued", details(user)),
        }
    }
}

/// The `authorization_details` of an order.
fn details(order: u32) -> Value {
    json!([{ "type": "order", "identifier": order.to_string() }])
}

/// Identifies a flow in the requests to the provider before it is deferred.
pub fn key(request: &RecordedRequest) -> Option<String> {
    let name = match request.endpoint {
        Endpoint::Exchange => "deferred_code",
        Endpoint::Code => "code",
        Endpoint::ClientCredentials => "authorization_details",
        Endpoint::BackchannelAuthentication => "login_hint",
        _ => return None,
    };
    Some(request.parameter(name).expect("it has one").to_owned())
}

/// The identifier in a poll.
pub fn identifier(poll: &RecordedRequest) -> &str {
    let names = ["deferred_auth_id", "deferral_code", "auth_req_id"];
    names.iter().find_map(|name| poll.parameter(name)).expect("it has one")
}

impl Service {
    /// Runs the flow of a user, who repeats requests that were refused for the moment, until the flow is pending.
    pub async fn sign_in(&self, user: u32) -> TestProcess {
        let visit = self.visit(user).await;
        assert_eq!(visit.status, 202, "user {user} came back");
        visit.process.expect("it was deferred")
    }

    /// The same, for users who may be told to start again.
    pub async fn visit(&self, user: u32) -> Visit {
        let flow = Flow::of_user(user);
        let visit = match flow {
            Flow::OpenId => self.there_and_back(user, "start", flow.code()).await,
            Flow::Ietf => self.there_and_back(user, "ietf/start", flow.code()).await,
            Flow::Order => self.order(user).await,
            Flow::Asked => self.ask(user).await,
        };
        // In the IETF dialect some polls are answered with an `interaction_uri`, until the decision.
        if matches!(flow, Flow::Ietf | Flow::Order) && (user / 4).is_multiple_of(2) {
            visit.process.iter().for_each(TestProcess::require_interaction);
        }
        self.visits().insert(user, visit.clone());
        visit
    }

    /// Sends a user to the OP and back.
    async fn there_and_back(&self, user: u32, start: &str, code: &str) -> Visit {
        let start = self.load(&format!("http://{}/{start}/{user}", self.app), "").await;
        let header = |name| start.headers().get(name).and_then(|value| value.to_str().ok()).expect("a redirect");
        let (url, cookie) = (header("location"), header("set-cookie"));
        let (back, process) = {
            let _guard = self.user_at_op.lock().unwrap();
            self.op.set_user(TestUser::new(&format!("user-{user}")));
            let back = self.op.visit(url).url();
            let mut processes = self.op.processes().into_iter().rev();
            // An order may have come in between.
            (back, processes.find(|process| process.authorization_parameter("state").is_some()))
        };
        let page = self.load(&back, cookie.split(';').next().unwrap_or_default()).await;
        let url = Url::parse(&back).expect("the provider sends browsers to URLs");
        let key = url.query_pairs().find(|(name, _)| name == code).expect("the user did their part").1;
        Visit { process, key: key.into_owned(), status: page.status().as_u16() }
    }

    async fn load(&self, url: &str, cookie: &str) -> reqwest::Response {
        loop {
            match self.browser.get(url).header("cookie", cookie).send().await {
                Ok(page) if page.status() != 503 => return page,
                _ => SystemClock.sleep(MOMENT).await,
            }
        }
    }

    /// Gives the application an order. It is repeated only if the application was not there or could not store it:
    /// every request that reached the provider counts.
    async fn order(&self, order: u32) -> Visit {
        let key = details(order).to_string();
        self.demand(&format!("ietf/order/{order}"), Endpoint::ClientCredentials, "authorization_details", key).await
    }

    /// Lets the application have a user asked.
    async fn ask(&self, user: u32) -> Visit {
        let key = format!("user-{user}");
        self.demand(&format!("ciba/ask/{user}"), Endpoint::BackchannelAuthentication, "login_hint", key).await
    }

    /// Sends a demand to the application, whose request to the provider has this key in a parameter.
    async fn demand(&self, path: &str, endpoint: Endpoint, parameter: &str, key: String) -> Visit {
        let status = loop {
            let answer = self.browser.post(format!("http://{}/{path}", self.app)).send().await;
            match answer {
                Ok(page) if page.status() != 503 || self.has_arrived(endpoint, &key) => break page.status().as_u16(),
                Err(error) if !error.is_connect() => break 0,
                _ => SystemClock.sleep(MOMENT).await,
            }
        };
        let mut processes = self.op.processes().into_iter().rev();
        let is_it =
            |process: &TestProcess| process.authorization_parameter(parameter).is_some_and(|found| found == key);
        Visit { process: processes.find(is_it), key, status }
    }

    fn has_arrived(&self, endpoint: Endpoint, key: &str) -> bool {
        self.op.requests_to(endpoint).iter().any(|request| self::key(request).is_some_and(|of| of == key))
    }

    /// Sends a ping for this process, and returns the status of the answer.
    pub async fn ping(&self, process: &TestProcess) -> u16 {
        let body = match (process.deferral_code(), process.auth_req_id()) {
            (Some(code), _) => json!({ "deferral_code": code }),
            (_, Some(id)) => json!({ "auth_req_id": id }),
            _ => json!({ "deferred_auth_id": process.deferred_auth_id().expect("it was exchanged") }),
        };
        let token = process.notification_token().expect("pings are taken");
        let request = self.browser.post(format!("http://{}/ping", self.app)).bearer_auth(token);
        let answer = request.header("content-type", "application/json").body(body.to_string()).send().await;
        answer.expect("the server answers").status().as_u16()
    }
}
