//! The authentication channel of CIBA, which Keycloak calls with each request for a user.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Json;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;

/// The `Authorization` of each request, by its `binding_message`. The decision is sent back with it.
static REQUESTS: LazyLock<Mutex<BTreeMap<String, String>>> = LazyLock::new(Mutex::default);
/// The maximum time until Keycloak has called.
const DEADLINE: Duration = Duration::from_secs(30);

/// The URL of the channel, in a thread of its own that serves all tests.
pub(crate) fn channel() -> &'static str {
    static URL: OnceLock<String> = OnceLock::new();
    URL.get_or_init(|| {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        socket.set_nonblocking(true).expect("it can wait");
        let url = format!("http://{}/asks", socket.local_addr().expect("it is bound"));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let socket = tokio::net::TcpListener::from_std(socket).expect("it is bound");
                axum::serve(socket, Router::new().route("/asks", post(asks))).await
            })
        });
        url
    })
}

/// Keycloak expects 201.
async fn asks(headers: HeaderMap, Json(request): Json<Value>) -> StatusCode {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let message = request["binding_message"].as_str().unwrap_or_default();
    REQUESTS.lock().unwrap().insert(message.to_owned(), token.to_owned());
    StatusCode::CREATED
}

/// The `Authorization` of the request with this message, which is then forgotten.
pub(crate) async fn token_of(message: &str) -> String {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(token) = REQUESTS.lock().unwrap().remove(message) {
            return token;
        }
        assert!(Instant::now() < deadline, "Keycloak has not asked for {message}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
