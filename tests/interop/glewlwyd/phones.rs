//! The page on which its users decide requests of CIBA.
#![expect(clippy::disallowed_methods, reason = "a request arrives in real time")]

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::{COOKIE, LOCATION};
use serde_json::Value;

use super::{Glewlwyd, Running};
use crate::browser::http;

/// The maximum time until a request is on the page.
const DEADLINE: Duration = Duration::from_secs(30);

impl Glewlwyd {
    /// Decides the request with this `binding_message`.
    pub(crate) async fn decide_request(&self, message: &str, approves: bool) {
        let running = self.running().await.expect("a client has been registered");
        let request = running.request_with(message).await;
        let (decision, expected) = if approves { ("g_continue", "complete") } else { ("cancel", "cancelled") };
        let url = format!("{}/ciba_user_check?user_req_id={request}&{decision}", running.site.issuer);
        let http = http(&running.site.authority.certificate_pem());
        let response = http.get(url).header(COOKIE, &running.user).send().await.expect("it answers");
        let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
        let location = location.unwrap_or_else(|| panic!("{message} is not decided: {}", response.status()));
        assert!(location.contains(&format!("ciba_message={expected}")), "{message}: {location}");
    }
}

impl Running {
    async fn request_with(&self, message: &str) -> String {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let list = self.call_as(&self.user, Method::GET, "oidc/ciba_user_list", Value::Null).await;
            let mut requests = list.as_array().into_iter().flatten();
            if let Some(request) = requests.find(|request| request["binding_message"] == message) {
                return request["user_req_id"].as_str().expect("it has an identifier").to_owned();
            }
            assert!(Instant::now() < deadline, "no request with {message} in {list}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
