//! Authorization responses as JWTs (JARM).

use serde_json::{Map, Value, json};

use super::client::TestClient;
use super::id_token::{forged, unix};
use super::op::Handler;
use super::state::State;
use super::wire::{Parameters, Rejection};

/// In seconds: "A maximum JWT lifetime of 10 minutes is RECOMMENDED" (JARM §2.1).
const LIFETIME: u64 = 600;

impl Handler<'_> {
    /// The parameter that contains all others. It is signed as the client registered, and encrypted if it registered
    /// that.
    pub(super) fn jwt_response(
        &mut self,
        request: &Parameters,
        response: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, Rejection> {
        let client_id = request.required("client_id")?;
        let client = self.state.clients.get(client_id).cloned().expect("its redirect URI was looked at");
        let mut claims: Map<String, Value> = response.into_iter().map(|(name, value)| (name, json!(value))).collect();
        claims.insert("iss".into(), json!(self.op.settings.issuer));
        claims.insert("aud".into(), json!(client.id));
        claims.insert("exp".into(), json!(unix(self.op.now()) + LIFETIME));
        let token = self.signed_response(&client, Value::Object(claims));
        let token = self.encrypted(&client, client.authorization_response_encryption.as_ref(), token);
        Ok(vec![("response".to_owned(), token)])
    }

    fn signed_response(&mut self, client: &TestClient, claims: Value) -> String {
        let State { faults, requests, .. } = &mut *self.state;
        let struck = faults.iter_mut().find_map(|fault| {
            let forgery = fault.forges_jwt_response(requests.get(self.number)?)?;
            Some((forgery, fault.name.clone()))
        });
        let (forgery, name) = struck.unzip();
        self.state.note_faults(self.number, name.into_iter().collect());
        let key = self.state.signing_key(client.authorization_response_algorithm()).clone();
        match forgery {
            None => key.sign(&key.header(), &claims),
            Some(forgery) => forged(forgery, &key, key.header(), claims),
        }
    }
}
