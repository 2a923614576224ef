//! Verified claims (OpenID Connect for Identity Assurance 1.0): their announcement, and a check of requests for them.

use serde_json::{Map, Value, json};

use super::builder::TestProviderBuilder;
use super::client::TestUser;

impl TestProviderBuilder {
    /// Announces that claims are verified under these trust frameworks. The provider delivers the claims of the
    /// [user](TestUser::verified_claims) and of the test, whatever was requested.
    pub fn identity_assurance(self, trust_frameworks: &[&str]) -> Self {
        let trust_frameworks = json!(trust_frameworks);
        self.metadata(move |members| {
            members.insert("verified_claims_supported".into(), json!(true));
            members.insert("trust_frameworks_supported".into(), trust_frameworks.clone());
            members.insert(
                "claims_in_verified_claims_supported".into(),
                json!(["given_name", "family_name", "birthdate"]),
            );
            members.insert("evidence_supported".into(), json!(["document"]));
            members.insert("documents_supported".into(), json!(["idcard", "passport"]));
            members.insert("documents_check_methods_supported".into(), json!(["vpip"]));
        })
    }
}

impl TestUser {
    /// Adds verified claims to ID Tokens and UserInfo responses.
    ///
    /// ```
    /// use openid_deferred::testing::TestUser;
    ///
    /// let user = TestUser::new("24400320")
    ///     .verified_claims("de_aml", serde_json::json!({ "given_name": "Jane", "family_name": "Doe" }));
    /// ```
    pub fn verified_claims(self, trust_framework: &str, claims: Value) -> Self {
        self.claim("verified_claims", element(trust_framework, claims))
    }

    /// Adds verified claims to this user's interim ID Tokens: those that the provider has verified so far.
    pub fn interim_verified_claims(self, trust_framework: &str, claims: Value) -> Self {
        self.interim_claim("verified_claims", element(trust_framework, claims))
    }
}

fn element(trust_framework: &str, claims: Value) -> Value {
    json!({ "verification": { "trust_framework": trust_framework }, "claims": claims })
}

/// Whether a `claims` parameter requests verified claims in the right form, if it does.
pub(super) fn is_request(claims: &Value) -> bool {
    ["id_token", "userinfo"].iter().filter_map(|section| claims.get(section)?.get("verified_claims")).all(|verified| {
        match verified {
            Value::Array(elements) => !elements.is_empty() && elements.iter().all(is_element),
            one => is_element(one),
        }
    })
}

fn is_element(element: &Value) -> bool {
    let object = |name: &str| element.get(name).and_then(Value::as_object);
    let has_framework = object("verification").is_some_and(|members| members.contains_key("trust_framework"));
    let names_claims = object("claims").is_some_and(|claims| !claims.is_empty() && has_good_purposes(claims));
    has_framework && names_claims
}

fn has_good_purposes(claims: &Map<String, Value>) -> bool {
    claims
        .values()
        .filter_map(|claim| claim.get("purpose"))
        .all(|purpose| purpose.as_str().is_some_and(|purpose| (3..=300).contains(&purpose.chars().count())))
}
