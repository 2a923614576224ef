use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::*;
use crate::id_token::rfc_3339;

fn set(claim: &Value) -> VerifiedClaimsSet<'_> {
    VerifiedClaimsSet::of(Some(claim))
}

fn problem(claim: Value) -> VerifiedClaimsProblem {
    let set = set(&claim);
    assert!(set.is_empty() && set.malformed().len() == 1, "{claim}");
    set.malformed()[0].problem()
}

fn with(verification: Value) -> Value {
    let mut all = json!({ "trust_framework": "de_aml" });
    all.as_object_mut().unwrap().extend(verification.as_object().unwrap().clone());
    json!({ "verification": all, "claims": { "given_name": "Max" } })
}

fn element_with_everything() -> Value {
    json!({
        "verification": {
            "trust_framework": "de_aml",
            "assurance_level": "high",
            "assurance_process": { "policy": "gpg45", "procedure": "m1b", "assurance_details": [{ "assurance_type": "evidence_validation" }] },
            "time": "2012-04-23T18:25Z",
            "verification_process": "f24c6f-6d3f-4ec5",
            "evidence": [
                {
                    "type": "document",
                    "check_details": [{ "check_method": "vpip", "organization": "Deutsche Post", "txn": "1aa05779", "time": "2012-04-22T11:30:00+02:00" }],
                    "document_details": {
                        "type": "idcard", "document_number": "53554554", "serial_number": "7", "date_of_issuance": "2010-03-23",
                        "date_of_expiry": "2020-03-22",
                        "issuer": { "name": "Stadt Augsburg", "country_code": "DEU", "jurisdiction": "Bayern" },
                    },
                    "attachments": [{ "desc": "front", "content_type": "image/png", "content": "d2h5" }],
                },
                { "type": "electronic_record", "record": { "type": "mortgage_account", "created_at": "2010-01-01", "source": { "name": "A Bank", "country_code": "GBR" } } },
                { "type": "vouch", "attestation": { "type": "written_attestation", "reference_number": "6", "voucher": { "name": "Dr. Who", "occupation": "doctor", "organization": "TARDIS" } } },
                { "type": "electronic_signature", "signature_type": "qes_eidas", "issuer": "CN=TSP", "serial_number": "9", "created_at": "2021-01-01" },
                { "type": "dna", "strands": 2 },
            ],
        },
        "claims": {
            "given_name": "Max", "family_name": "Meier", "birth_family_name": "Müller", "birthdate": "1956-01-28",
            "nationalities": ["DEU"], "place_of_birth": { "country": "DE" }, "address": { "locality": "Augsburg" },
        },
    })
}

#[test]
fn an_element_with_everything_is_read() {
    let element = element_with_everything();
    let set = set(&element);
    assert!(set.malformed().is_empty() && set.len() == 1);
    let element = set.iter().next().unwrap();
    assert_eq!((element.given_name(), element.family_name()), (Some("Max"), Some("Meier")));
    assert_eq!((element.birthdate(), element.nationalities()), (Some("1956-01-28"), vec!["DEU"]));
    assert_eq!(element.address().unwrap().locality(), Some("Augsburg"));
    assert_eq!(element.place_of_birth().unwrap()["country"], "DE");
    assert_eq!(element.get("birth_family_name"), Some(&json!("Müller")));
    let verification = element.verification();
    assert_eq!((verification.trust_framework(), verification.assurance_level()), ("de_aml", Some("high")));
    assert_eq!(verification.verification_process(), Some("f24c6f-6d3f-4ec5"));
    let process = verification.assurance_process().unwrap();
    assert_eq!((process.policy(), process.procedure()), (Some("gpg45"), Some("m1b")));
    assert_eq!(process.assurance_details()[0]["assurance_type"], "evidence_validation");
    assert_eq!(verification.time(), Some(UNIX_EPOCH + Duration::from_secs(1_335_205_500)));

    let evidence = verification.evidence();
    let types: Vec<_> = evidence.iter().map(Evidence::evidence_type).collect();
    assert_eq!(types, ["document", "electronic_record", "vouch", "electronic_signature", "dna"]);
    let [
        Evidence::Document(document),
        Evidence::ElectronicRecord(record),
        Evidence::Vouch(vouch),
        Evidence::ElectronicSignature(signature),
        Evidence::Other(other),
    ] = evidence.as_slice()
    else {
        panic!("{evidence:?}")
    };
    assert_eq!((document.document_type(), document.document_number()), (Some("idcard"), Some("53554554")));
    assert_eq!((document.issuer_name(), document.issuer_country_code()), (Some("Stadt Augsburg"), Some("DEU")));
    assert_eq!((document.date_of_issuance(), document.date_of_expiry()), (Some("2010-03-23"), Some("2020-03-22")));
    assert_eq!((document.serial_number(), document.issuer_jurisdiction()), (Some("7"), Some("Bayern")));
    let check = evidence[0].checks()[0];
    assert_eq!((check.check_method(), check.organization()), (Some("vpip"), Some("Deutsche Post")));
    assert_eq!((check.txn(), check.time()), (Some("1aa05779"), Some(UNIX_EPOCH + Duration::from_secs(1_335_087_000))));
    assert_eq!(evidence[0].attachments()[0]["desc"], "front");
    assert_eq!((record.record_type(), record.source_name()), (Some("mortgage_account"), Some("A Bank")));
    assert_eq!((vouch.voucher_name(), vouch.reference_number()), (Some("Dr. Who"), Some("6")));
    assert_eq!((signature.signature_type(), signature.issuer()), (Some("qes_eidas"), Some("CN=TSP")));
    assert_eq!((other.evidence_type(), other.get("strands")), (Some("dna"), Some(&json!(2))));

    let shown = format!("{set:?} {verification:?} {evidence:?} {check:?} {process:?}");
    for value in ["Max", "Meier", "53554554", "Deutsche Post", "gpg45", "Dr. Who"] {
        assert!(!shown.contains(value), "{shown}");
    }
}

#[test]
fn an_element_that_breaks_a_rule_is_reported_and_the_others_are_not_touched() {
    let good = |name: &str| json!({ "verification": { "trust_framework": "eidas" }, "claims": { "name": name } });
    let claim = json!([good("first"), { "claims": { "name": "nobody" } }, "text", good("last"), with(json!({ "time": "soon" }))]);
    let set = set(&claim);
    assert_eq!(set.iter().map(|element| element.name().unwrap()).collect::<Vec<_>>(), ["first", "last"]);
    let malformed: Vec<_> = set.malformed().iter().map(|found| (found.position(), found.problem())).collect();
    let expected = [
        (1, VerifiedClaimsProblem::NoVerification),
        (2, VerifiedClaimsProblem::NotAnObject),
        (4, VerifiedClaimsProblem::InvalidMember("time")),
    ];
    assert_eq!(malformed, expected);
    assert_eq!(
        set.malformed()[0].to_string(),
        "element 1 of `verified_claims`: `verification` is missing or not an object"
    );
    assert_eq!(set.under("eidas").count(), 2);
    assert_eq!(set.under("de_aml").count(), 0);
}

#[test]
fn required_parts_of_verified_claims_and_their_types_are_checked() {
    let claims = json!({ "name": "Max" });
    for claim in [json!("text"), json!(7), json!([]), json!(true)] {
        assert_eq!(problem(claim), VerifiedClaimsProblem::NotAnObject);
    }
    assert_eq!(problem(json!({ "claims": claims })), VerifiedClaimsProblem::NoVerification);
    assert_eq!(problem(json!({ "verification": [], "claims": claims })), VerifiedClaimsProblem::NoVerification);
    for framework in [
        json!({}),
        json!({ "trust_framework": null }),
        json!({ "trust_framework": "" }),
        json!({ "trust_framework": ["a"] }),
    ] {
        let claim = json!({ "verification": framework, "claims": claims });
        assert_eq!(problem(claim), VerifiedClaimsProblem::NoTrustFramework);
    }
    let verification = json!({ "trust_framework": "eidas" });
    assert_eq!(problem(json!({ "verification": verification })), VerifiedClaimsProblem::NoClaims);
    assert_eq!(problem(json!({ "verification": verification, "claims": ["name"] })), VerifiedClaimsProblem::NoClaims);
    for (member, value) in [
        ("assurance_level", json!(3)),
        ("assurance_process", json!("gpg45")),
        ("verification_process", json!({})),
        ("time", json!(1_335_205_500)),
        ("time", json!("2012-04-23")),
        ("evidence", json!({ "type": "document" })),
        ("evidence", json!([])),
        ("evidence", json!([{ "document": {} }])),
        ("evidence", json!(["document"])),
        ("evidence", json!([{ "type": "" }])),
    ] {
        assert_eq!(problem(with(json!({ member: value }))), VerifiedClaimsProblem::InvalidMember(member), "{value}");
    }
    assert!(VerifiedClaimsSet::of(None).malformed().is_empty());
    assert!(set(&Value::Null).malformed().is_empty());
}

#[test]
fn the_number_of_elements_is_bounded() {
    let claim = Value::Array(vec![with(json!({})); LIMIT + 10]);
    let set = set(&claim);
    assert_eq!((set.len(), set.malformed().len()), (LIMIT, 1));
    assert_eq!(set.malformed()[0].problem(), VerifiedClaimsProblem::TooMany);
    let evidence = vec![json!({ "type": "document" }); LIMIT + 1];
    assert_eq!(problem(with(json!({ "evidence": evidence }))), VerifiedClaimsProblem::InvalidMember("evidence"));
}

#[test]
fn the_age_of_a_verification_is_known_only_with_a_time() {
    let claim = json!([with(json!({})), with(json!({ "time": "2012-04-23T18:25:00Z" }))]);
    let set = set(&claim);
    let verifications: Vec<_> = set.iter().map(|element| element.verification()).collect();
    let at = |seconds: u64| UNIX_EPOCH + Duration::from_secs(1_335_205_500 + seconds);
    let day = Duration::from_secs(86_400);
    assert!(!verifications[0].is_within(day, at(0)));
    assert!(verifications[1].is_within(day, at(86_400)) && !verifications[1].is_within(day, at(86_401)));
    assert!(!verifications[1].is_within(day, UNIX_EPOCH), "a verification in the future is none");
}

#[test]
fn times_are_read_in_every_form_and_nothing_else_is_a_time() {
    let seconds = |text: &str| rfc_3339::parse(text).map(|time| time.duration_since(UNIX_EPOCH).unwrap().as_secs());
    for (text, expected) in [
        ("1970-01-01T00:00Z", 0),
        ("2000-02-29T12:00:00Z", 951_825_600),
        ("2012-04-23T18:25Z", 1_335_205_500),
        ("2012-04-23T18:25:43.511+01:00", 1_335_201_943),
        ("2012-04-23T18:25:43-0130", 1_335_210_943),
        ("2016-12-31T23:59:60Z", 1_483_228_799),
        ("2024-12-31t23:59:59z", 1_735_689_599),
        ("9999-12-31T23:59:59Z", 253_402_300_799),
    ] {
        assert_eq!(seconds(text), Some(expected), "{text}");
    }
    for text in [
        "",
        "T",
        "2012-04-23",
        "2012-04-23T18:25",
        "2012-04-23 18:25Z",
        "2012-4-23T18:25Z",
        "2012-04-31T18:25Z",
        "2012-13-01T00:00Z",
        "2012-00-01T00:00Z",
        "2012-01-00T00:00Z",
        "2011-02-29T00:00Z",
        "1900-01-01T00:00Z",
        "2012-04-23T24:00Z",
        "2012-04-23T18:60Z",
        "2012-04-23T18Z",
        "2012-04-23T18:25:00.Z",
        "2012-04-23T18:25:00+1:00",
        "2012-04-23T18:25:00+25:00",
        "2012-04-23T18:25ZZ",
        "2012-04-23T+1:25Z",
        "1970-01-01T00:00+01:00",
        "2012-04-23T18:25:00.00000000000000000000000000000Z",
        "２012-04-23T18:25Z",
    ] {
        assert_eq!(seconds(text), None, "{text}");
    }
}

#[test]
fn verified_claims_may_be_empty() {
    let claim = json!({ "verification": { "trust_framework": "eidas" }, "claims": {} });
    let set = set(&claim);
    assert_eq!((set.len(), set.malformed().len()), (1, 0));
    assert!(set.under("eidas").next().unwrap().as_json().is_empty());
}

/// Every part of an element, replaced by everything that JSON has.
#[test]
fn arbitrary_verified_claims_are_read_or_reported() {
    let odd = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(""),
        json!("x"),
        json!([]),
        json!([[]]),
        json!({}),
        json!([{ "type": "document", "document_details": 7 }]),
    ];
    let good = json!({
        "verification": {
            "trust_framework": "eidas", "assurance_level": "high", "assurance_process": { "policy": "p", "assurance_details": [] },
            "time": "2012-04-23T18:25Z", "verification_process": "v",
            "evidence": [{ "type": "document", "check_details": [{ "time": "2012-04-23T18:25Z" }], "document_details": { "issuer": {} }, "attachments": [] }],
        },
        "claims": { "name": "Max", "address": {}, "nationalities": ["DEU"], "place_of_birth": {} },
    });
    let places = [
        "",
        "/verification",
        "/claims",
        "/verification/trust_framework",
        "/verification/assurance_level",
        "/verification/assurance_process",
        "/verification/assurance_process/assurance_details",
        "/verification/time",
        "/verification/verification_process",
        "/verification/evidence",
        "/verification/evidence/0",
        "/verification/evidence/0/type",
        "/verification/evidence/0/check_details",
        "/verification/evidence/0/check_details/0",
        "/verification/evidence/0/document_details",
        "/verification/evidence/0/document_details/issuer",
        "/verification/evidence/0/attachments",
        "/claims/name",
        "/claims/address",
        "/claims/nationalities",
        "/claims/place_of_birth",
    ];
    for place in places {
        for value in &odd {
            let mut claim = good.clone();
            *claim.pointer_mut(place).unwrap() = value.clone();
            let set = set(&claim);
            assert!(set.len() + set.malformed().len() == usize::from(!claim.is_null()), "{place} {value}");
            for element in set {
                assert!(!element.verification().trust_framework().is_empty());
                let _ = (element.name(), element.address(), element.nationalities(), element.place_of_birth());
                for evidence in element.verification().evidence() {
                    let _ = (evidence.checks().iter().map(EvidenceCheck::time).count(), evidence.attachments());
                    assert!(!evidence.evidence_type().is_empty() && !format!("{evidence:?}").contains("DEU"));
                }
            }
        }
    }
}
