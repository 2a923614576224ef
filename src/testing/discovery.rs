//! The metadata and the key set.

use jsonwebtoken::Algorithm;
use serde_json::{Map, Value, json};

use super::dialect::{CODE_TYPE, REVOCABLE, SUPPORTED};
use super::encryption;
use super::keys;
use super::op::Handler;
use super::wire::{Rejection, Reply};

impl Handler<'_> {
    pub(super) fn metadata(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET")?;
        Ok(Reply::json(200, &self.metadata_document()).with(http::header::CACHE_CONTROL, "max-age=3600"))
    }

    pub(super) fn metadata_document(&self) -> Value {
        let op = self.op;
        let algorithms: Vec<_> = self.id_token_algorithms().into_iter().map(keys::name).collect();
        let mut document = json!({
            "issuer": op.settings.issuer,
            "authorization_endpoint": op.url("/authorize"),
            "token_endpoint": op.url("/token"),
            "userinfo_endpoint": op.url("/userinfo"),
            "revocation_endpoint": op.url("/revoke"),
            "introspection_endpoint": op.url("/introspect"),
            "pushed_authorization_request_endpoint": op.url("/par"),
            "end_session_endpoint": op.url("/logout"),
            "backchannel_logout_supported": true,
            "backchannel_logout_session_supported": true,
            "jwks_uri": op.url("/jwks"),
            "response_types_supported": op.settings.dialects.response_types(),
            "response_modes_supported": ["query", "form_post", "query.jwt", "form_post.jwt", "jwt"],
            "authorization_signing_alg_values_supported": self.response_algorithms(),
            "authorization_encryption_alg_values_supported": encryption::ALGORITHMS,
            "authorization_encryption_enc_values_supported": encryption::CONTENT_ENCRYPTIONS,
            "grant_types_supported": op.settings.dialects.grant_types(),
            "subject_types_supported": ["public"],
            "scopes_supported": ["openid", "profile", "email", "offline_access"],
            "claims_parameter_supported": true,
            "id_token_signing_alg_values_supported": algorithms,
            "userinfo_signing_alg_values_supported": algorithms,
            "id_token_encryption_alg_values_supported": encryption::ALGORITHMS,
            "id_token_encryption_enc_values_supported": encryption::CONTENT_ENCRYPTIONS,
            "userinfo_encryption_alg_values_supported": encryption::ALGORITHMS,
            "userinfo_encryption_enc_values_supported": encryption::CONTENT_ENCRYPTIONS,
            "request_parameter_supported": true,
            "request_object_signing_alg_values_supported":
                op.settings.allowed(&["ES256", "ES384", "EdDSA", "PS256", "RS256"]),
            "request_object_encryption_alg_values_supported": encryption::ALGORITHMS,
            "request_object_encryption_enc_values_supported": encryption::CONTENT_ENCRYPTIONS,
            "token_endpoint_auth_methods_supported":
                match op.settings.fapi {
                    true => &["private_key_jwt"][..],
                    false => &["none", "client_secret_basic", "client_secret_post", "client_secret_jwt", "private_key_jwt"],
                },
            "token_endpoint_auth_signing_alg_values_supported":
                op.settings.allowed(&["ES256", "ES384", "EdDSA", "PS256", "RS256", "HS256", "HS384", "HS512"]),
            "code_challenge_methods_supported": ["S256"],
        });
        self.add_optional(&mut document);
        let Value::Object(members) = &mut document else { unreachable!("the document is an object") };
        self.ietf_metadata(members);
        self.backchannel_metadata(members);
        for editor in &op.settings.edit_metadata {
            (editor.0)(members);
        }
        document
    }

    /// Adds what not every provider has.
    fn add_optional(&self, document: &mut Value) {
        let op = self.op;
        if op.settings.supports_dpop {
            document["dpop_signing_alg_values_supported"] = json!(["ES256", "EdDSA", "PS256"]);
        }
        if op.settings.sends_iss {
            document["authorization_response_iss_parameter_supported"] = json!(true);
        }
        if op.settings.registration.is_offered() {
            document["registration_endpoint"] = json!(op.url("/register"));
        }
        if op.settings.requires_pushed {
            document["require_pushed_authorization_requests"] = json!(true);
        }
        if op.settings.requires_signed {
            document["require_signed_request_object"] = json!(true);
        }
        if op.settings.mutual_tls {
            let methods = document["token_endpoint_auth_methods_supported"].as_array_mut().expect("it is an array");
            methods.extend([json!("tls_client_auth"), json!("self_signed_tls_client_auth")]);
            document["tls_client_certificate_bound_access_tokens"] = json!(true);
        }
        if let Some(base) = &op.alias_base {
            let alias = |path: &str| json!(format!("{}{path}", base.as_str().trim_end_matches('/')));
            document["mtls_endpoint_aliases"] = json!({
                "token_endpoint": alias("/token"),
                "userinfo_endpoint": alias("/userinfo"),
                "revocation_endpoint": alias("/revoke"),
                "introspection_endpoint": alias("/introspect"),
                "pushed_authorization_request_endpoint": alias("/par"),
            });
            if op.settings.dialects.ciba {
                document["mtls_endpoint_aliases"]["backchannel_authentication_endpoint"] = alias("/bc-authorize");
            }
            if op.settings.registration.is_offered() {
                document["mtls_endpoint_aliases"]["registration_endpoint"] = alias("/register");
            }
        }
    }

    fn ietf_metadata(&self, members: &mut Map<String, Value>) {
        let settings = &self.op.settings;
        if !settings.dialects.ietf {
            return;
        }
        let mut revocable = vec!["access_token", "refresh_token"];
        if !settings.ietf.cannot_revoke_codes {
            revocable.push(CODE_TYPE);
        }
        members.insert(SUPPORTED.to_owned(), json!(true));
        members.insert(REVOCABLE.to_owned(), json!(revocable));
        if settings.ietf.is_the_demo {
            members.shift_remove("jwks_uri");
            members.shift_remove("authorization_endpoint");
        }
    }

    /// Whether a list in the served metadata has this value. A missing list allows every value.
    pub(super) fn lists(&self, member: &str, value: &str) -> bool {
        let listed = &self.metadata_document()[member];
        listed.as_array().is_none_or(|listed| listed.iter().any(|listed| listed == value))
    }

    fn response_algorithms(&self) -> Vec<String> {
        let mut algorithms = vec![keys::name(Algorithm::RS256)];
        algorithms.retain(|name| self.op.settings.allows(name));
        for client in self.state.clients.values() {
            let algorithm = keys::name(client.authorization_response_algorithm());
            if !algorithms.contains(&algorithm) {
                algorithms.push(algorithm);
            }
        }
        algorithms
    }

    fn id_token_algorithms(&self) -> Vec<Algorithm> {
        // OpenID Connect Discovery §3: "The algorithm RS256 MUST be included."
        let mut algorithms = if self.op.settings.fapi { Vec::new() } else { vec![Algorithm::RS256] };
        for client in self.state.clients.values() {
            if !algorithms.contains(&client.id_token_algorithm) {
                algorithms.push(client.id_token_algorithm);
            }
        }
        algorithms
    }

    pub(super) fn key_set(&mut self) -> Result<Reply, Rejection> {
        self.request.check_method("GET")?;
        // A client may fetch the keys before the first token is signed, and must find the right ones.
        let clients = self.state.clients.values();
        let of_id_tokens = clients.clone().filter(|client| client.hmac_secret().is_none());
        let of_responses = clients.filter_map(|client| client.authorization_response_algorithm);
        let used: Vec<_> = of_id_tokens.map(|client| client.id_token_algorithm).chain(of_responses).collect();
        for algorithm in used {
            self.state.signing_key(algorithm);
        }
        let published = self.state.keys.iter().filter(|key| key.published);
        let mut keys: Vec<_> = published.map(keys::ProviderKey::public_jwk).collect();
        if self.state.clients.values().any(|client| client.request_object_encryption.is_some()) {
            keys.extend(self.state.decryption_keys().public_jwks());
        }
        Ok(Reply::json(200, &json!({ "keys": keys })).with(http::header::CACHE_CONTROL, "max-age=3600"))
    }
}
