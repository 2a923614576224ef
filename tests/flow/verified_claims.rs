//! OpenID Connect for Identity Assurance 1.0: which claims are verified, early and late.

use std::time::Duration;

use openid_deferred::claims::{ClaimRequest, ClaimsRequest};
use openid_deferred::error::ConfigurationProblem;
use openid_deferred::identity_assurance::{EvidenceRequest, VerifiedClaimsProblem, VerifiedClaimsRequest};
use openid_deferred::testing::{Endpoint, TestUser};
use openid_deferred::{ErrorKind, InterimState, Outcome, PendingAuthentication, SignIn};
use serde_json::{Value, json};

use crate::support::{World, keyring, reopened, world, world_with};

async fn world_of(user: TestUser) -> World {
    world_with(|op| op.user(user).identity_assurance(&["de_aml", "eidas"]), |client| client).await
}

#[tokio::test]
async fn verified_claims_are_separate_from_unverified_claims() {
    let user = TestUser::new("user-1")
        .claim("given_name", "Self-asserted")
        .verified_claims("de_aml", json!({ "given_name": "Jane", "birthdate": "1990-01-02" }));
    let world = world_of(user).await;
    let authentication = world.approved().await;
    let claims = authentication.claims();
    assert_eq!((claims.given_name(), claims.birthdate()), (Some("Self-asserted"), None));
    let verified = claims.verified_claims();
    assert!(verified.malformed().is_empty() && verified.len() == 1);
    let element = verified.under("de_aml").next().unwrap();
    assert_eq!((element.given_name(), element.birthdate()), (Some("Jane"), Some("1990-01-02")));
    assert_eq!(element.family_name(), None);
    assert_eq!(verified.under("eidas").count(), 0);

    let userinfo = world.client.userinfo(&authentication).await.unwrap();
    assert_eq!(userinfo.claim("given_name"), Some(&json!("Self-asserted")));
    assert_eq!(userinfo.verified_claims().iter().next().unwrap().given_name(), Some("Jane"));
    world.op.assert_clean();
}

#[tokio::test]
async fn an_interim_token_says_what_is_verified_already_and_survives_a_restart() {
    let user = TestUser::new("user-1")
        .interim_claim("birthdate", "1990-01-02")
        .interim_verified_claims("eidas", json!({ "email": "jane@example.com" }))
        .verified_claims("eidas", json!({ "email": "jane@example.com", "birthdate": "1990-01-02" }));
    let world = world_of(user).await;
    let pending = world.pending().await;
    let email = |pending: &PendingAuthentication| {
        let InterimState::Verified(token) = pending.interim() else { panic!("{:?}", pending.interim()) };
        assert_eq!(token.claims().birthdate(), Some("1990-01-02"));
        let verified = token.claims().verified_claims();
        let element = verified.iter().next().unwrap();
        assert_eq!(element.birthdate(), None, "it is not verified yet");
        element.email().unwrap().to_owned()
    };
    assert_eq!(email(&pending), "jane@example.com");
    let mut pending = reopened(pending, &keyring());
    assert_eq!(email(&pending), "jane@example.com");
    let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
    let verified = authentication.claims().verified_claims();
    assert_eq!(verified.iter().next().unwrap().birthdate(), Some("1990-01-02"));
    world.op.assert_clean();
}

#[tokio::test]
async fn a_malformed_element_is_reported_and_never_ends_a_process() {
    let good = json!({ "verification": { "trust_framework": "eidas" }, "claims": { "name": "Jane Doe" } });
    for (claim, usable, problem) in [
        (json!("verified"), 0, VerifiedClaimsProblem::NotAnObject),
        (json!([]), 0, VerifiedClaimsProblem::NotAnObject),
        (json!({ "claims": { "name": "Jane Doe" } }), 0, VerifiedClaimsProblem::NoVerification),
        (
            json!([{ "verification": {}, "claims": { "name": "Jane" } }, good]),
            1,
            VerifiedClaimsProblem::NoTrustFramework,
        ),
        (
            json!([good, { "verification": { "trust_framework": "eidas" }, "claims": {} }, {}]),
            2,
            VerifiedClaimsProblem::NoVerification,
        ),
    ] {
        let user =
            TestUser::new("user-1").claim("verified_claims", claim.clone()).interim_claim("verified_claims", claim);
        let world = world_of(user).await;
        let mut pending = world.pending().await;
        assert!(pending.interim().verified().is_some());
        let Outcome::Approved(authentication) = world.wait(&mut pending).await else { panic!("not approved") };
        let verified = authentication.claims().verified_claims();
        assert_eq!(verified.len(), usable);
        assert_eq!(verified.malformed()[0].problem(), problem);
    }
}

#[tokio::test]
async fn verified_claims_are_requested_in_the_form_of_the_specification() {
    let world = world_of(TestUser::new("user-1")).await;
    let verified = VerifiedClaimsRequest::under_one_of(["de_aml", "eidas"])
        .verified_within(Duration::from_secs(3_600))
        .evidence(EvidenceRequest::document().document_types(["passport"]))
        .claim("birthdate", ClaimRequest::essential().purpose("Only adults"));
    let request = || {
        let json = json!({ "userinfo": { "name": null } });
        world.client.authorize().claims(ClaimsRequest::from(json).verified_in_id_token(verified.clone()))
    };
    let expected = json!({
        "userinfo": { "name": null },
        "id_token": { "verified_claims": {
            "verification": {
                "trust_framework": { "values": ["de_aml", "eidas"] },
                "time": { "max_age": 3600 },
                "evidence": [{ "type": { "value": "document" }, "document_details": { "type": { "values": ["passport"] } } }],
            },
            "claims": { "birthdate": { "essential": true, "purpose": "Only adults" } },
        } },
    });
    for request in [request(), request().pushed()] {
        let (url, session) = request.start().await.unwrap();
        let query = world.op.visit(url).query();
        let SignIn::Deferred(_) = world.client.authorization_response(&query, session).await.unwrap() else {
            panic!("the OP should take its time")
        };
        let sent: Value =
            serde_json::from_str(&world.op.last_process().authorization_parameter("claims").unwrap()).unwrap();
        assert_eq!(sent, expected);
    }
    world.op.assert_clean();
}

#[tokio::test]
async fn an_essential_acr_of_a_typed_claims_request_is_checked() {
    let world = world_of(TestUser::new("user-1").claim("acr", "low")).await;
    let acr = ClaimRequest::essential().values(["high"]);
    let request = world.client.authorize().claims(ClaimsRequest::new().id_token("acr", acr));
    let (url, session) = request.start().await.unwrap();
    let query = world.op.visit(url).query();
    let SignIn::Deferred(mut pending) = world.client.authorization_response(&query, session).await.unwrap() else {
        panic!("the OP should take its time")
    };
    let outcome = world.wait(&mut pending).await;
    assert_eq!(crate::support::broken_rule(&outcome), Some(openid_deferred::error::Rule::IdTokenAcr));
}

#[tokio::test]
async fn a_claims_request_that_every_op_must_refuse_is_not_sent() {
    let world = world().await;
    let nothing = ClaimsRequest::new().verified_in_id_token(VerifiedClaimsRequest::under("de_aml"));
    let error = world.client.authorize().claims(nothing).start().await.unwrap_err();
    let ErrorKind::Configuration(ConfigurationProblem::Setting { setting, .. }) = error.kind() else {
        panic!("{error:?}")
    };
    assert_eq!(*setting, "claims");
    let raw = json!({ "id_token": { "verified_claims": { "claims": { "name": null } } } });
    let (url, _) = world.client.authorize().claims(raw).start().await.unwrap();
    assert!(world.op.visit(url).query().contains("error=invalid_request"), "the test provider sees it too");
    assert_eq!(world.op.requests_to(Endpoint::Exchange).len(), 0);
}

#[tokio::test]
async fn the_metadata_lists_what_the_op_can_verify() {
    let metadata = world_of(TestUser::new("user-1")).await.client.provider_metadata().await.unwrap();
    assert!(metadata.verified_claims_supported() && metadata.claims_parameter_supported());
    assert_eq!(metadata.trust_frameworks_supported(), ["de_aml", "eidas"]);
    assert_eq!(metadata.claims_in_verified_claims_supported(), ["given_name", "family_name", "birthdate"]);
    assert_eq!(
        (metadata.evidence_supported(), metadata.documents_supported()),
        (vec!["document"], vec!["idcard", "passport"])
    );
    assert_eq!(metadata.documents_check_methods_supported(), ["vpip"]);
    assert!(metadata.electronic_records_supported().is_empty() && metadata.attachments_supported().is_empty());
    for (flag, supported) in [(json!(false), false), (Value::Null, true), (json!("yes"), true)] {
        let flagged = world_with(
            |op| {
                op.identity_assurance(&["eidas"]).metadata(move |members| {
                    members.insert("verified_claims_supported".into(), flag.clone());
                })
            },
            |client| client,
        );
        let metadata = flagged.await.client.provider_metadata().await.unwrap();
        assert_eq!(metadata.verified_claims_supported(), supported);
    }
    let without = world().await.client.provider_metadata().await.unwrap();
    assert!(!without.verified_claims_supported() && without.trust_frameworks_supported().is_empty());
}
