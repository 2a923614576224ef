//! What an OP has looked at (OpenID Identity Assurance Schema Definition 1.0 §Evidence element).

use std::fmt;
use std::time::SystemTime;

use serde_json::{Map, Value};

use crate::id_token::rfc_3339;

/// A piece of evidence, by its type. Types that this crate does not know are [`Other`](Self::Other), and of each one all
/// members are in [`as_json`](Self::as_json).
///
/// Evidence is written down in many ways, and a member of another type than it should have reads as if it were missing.
#[non_exhaustive]
#[derive(Debug, Clone, Copy)]
pub enum Evidence<'a> {
    /// `document`: a document, physical or electronic.
    Document(DocumentEvidence<'a>),
    /// `electronic_record`: an entry in the records of an organisation.
    ElectronicRecord(ElectronicRecordEvidence<'a>),
    /// `vouch`: the word of a person.
    Vouch(VouchEvidence<'a>),
    /// `electronic_signature`: an electronic signature.
    ElectronicSignature(ElectronicSignatureEvidence<'a>),
    /// Something else.
    Other(OtherEvidence<'a>),
}

/// What was done to check a piece of evidence (`check_details`).
#[derive(Clone, Copy)]
pub struct EvidenceCheck<'a>(&'a Map<String, Value>);

macro_rules! evidence {
    ($($(#[$attribute:meta])* $name:ident { $($(#[$member_attribute:meta])* $member:ident: $($path:literal).+;)* })*) => {$(
        $(#[$attribute])*
        ///
        /// `Debug` shows the names of its members and no values.
        #[derive(Clone, Copy)]
        pub struct $name<'a>(&'a Map<String, Value>);

        impl<'a> $name<'a> {
            $(
                $(#[$member_attribute])*
                pub fn $member(&self) -> Option<&'a str> {
                    text(self.0, &[$($path),+])
                }
            )*

            /// Any member by its name.
            pub fn get(&self, name: &str) -> Option<&'a Value> {
                self.0.get(name)
            }
        }

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(concat!(stringify!($name), " "))?;
                formatter.debug_set().entries(self.0.keys()).finish()
            }
        }
    )*};
}

evidence! {
    /// A document that the OP has looked at (`document_details`). Dates are as `YYYY-MM-DD`.
    DocumentEvidence {
        /// Its kind, such as `idcard` or `passport`.
        document_type: "document_details"."type";
        /// Its number, which is its holder's.
        document_number: "document_details"."document_number";
        /// The number of this very copy.
        serial_number: "document_details"."serial_number";
        /// When it was issued.
        date_of_issuance: "document_details"."date_of_issuance";
        /// Until when it is good.
        date_of_expiry: "document_details"."date_of_expiry";
        /// Who issued it.
        issuer_name: "document_details"."issuer"."name";
        /// The country of the issuer, as a code of ICAO 9303 or ISO 3166-1.
        issuer_country_code: "document_details"."issuer"."country_code";
        /// For which region the issuer speaks.
        issuer_jurisdiction: "document_details"."issuer"."jurisdiction";
    }

    /// An entry in the records of an organisation (`record`).
    ElectronicRecordEvidence {
        /// Its kind, such as `bank_account` or `mortgage_account`.
        record_type: "record"."type";
        /// When it was made.
        created_at: "record"."created_at";
        /// Until when it is good.
        date_of_expiry: "record"."date_of_expiry";
        /// The organisation that keeps it.
        source_name: "record"."source"."name";
        /// The country of this organisation.
        source_country_code: "record"."source"."country_code";
    }

    /// The word of a person (`attestation`).
    VouchEvidence {
        /// Its kind, such as `written_attestation`.
        attestation_type: "attestation"."type";
        /// By what it can be found again.
        reference_number: "attestation"."reference_number";
        /// When it was given.
        date_of_issuance: "attestation"."date_of_issuance";
        /// Until when it is good.
        date_of_expiry: "attestation"."date_of_expiry";
        /// Who gave it.
        voucher_name: "attestation"."voucher"."name";
        /// What that person does.
        voucher_occupation: "attestation"."voucher"."occupation";
        /// For whom.
        voucher_organization: "attestation"."voucher"."organization";
    }

    /// An electronic signature.
    ElectronicSignatureEvidence {
        /// Its kind, such as `qes_eidas`.
        signature_type: "signature_type";
        /// The authority that issued its certificate.
        issuer: "issuer";
        /// The number of that certificate.
        serial_number: "serial_number";
        /// When it was made.
        created_at: "created_at";
    }

    /// Evidence of a type that this crate does not know.
    OtherEvidence {
        /// The type.
        evidence_type: "type";
    }
}

impl<'a> Evidence<'a> {
    pub(super) fn of(members: &'a Map<String, Value>) -> Self {
        match members.get("type").and_then(Value::as_str).unwrap_or_default() {
            "document" => Self::Document(DocumentEvidence(members)),
            "electronic_record" => Self::ElectronicRecord(ElectronicRecordEvidence(members)),
            "vouch" => Self::Vouch(VouchEvidence(members)),
            "electronic_signature" => Self::ElectronicSignature(ElectronicSignatureEvidence(members)),
            _ => Self::Other(OtherEvidence(members)),
        }
    }

    /// `type`, whether it is known or not.
    pub fn evidence_type(&self) -> &'a str {
        text(self.as_json(), &["type"]).unwrap_or_default()
    }

    /// `check_details`: what was done to check it, and by whom.
    pub fn checks(&self) -> Vec<EvidenceCheck<'a>> {
        let checks = self.as_json().get("check_details").and_then(Value::as_array);
        checks.into_iter().flatten().filter_map(|check| check.as_object().map(EvidenceCheck)).collect()
    }

    /// `attachments`: copies of it, embedded or at a URL, as the OP sent them. Nothing is fetched. Do not trust a URL:
    /// compare what it returns with the digest beside it.
    pub fn attachments(&self) -> &'a [Value] {
        self.as_json().get("attachments").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
    }

    /// Any member by its name.
    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.as_json().get(name)
    }

    /// All members.
    pub fn as_json(&self) -> &'a Map<String, Value> {
        match self {
            Self::Document(evidence) => evidence.0,
            Self::ElectronicRecord(evidence) => evidence.0,
            Self::Vouch(evidence) => evidence.0,
            Self::ElectronicSignature(evidence) => evidence.0,
            Self::Other(evidence) => evidence.0,
        }
    }
}

impl<'a> EvidenceCheck<'a> {
    /// `check_method`: how, such as `vpip` (physically, in person) or `vcrypt` (cryptographically).
    pub fn check_method(&self) -> Option<&'a str> {
        text(self.0, &["check_method"])
    }

    /// `organization`: who did it.
    pub fn organization(&self) -> Option<&'a str> {
        text(self.0, &["organization"])
    }

    /// `txn`: by what it can be found again.
    pub fn txn(&self) -> Option<&'a str> {
        text(self.0, &["txn"])
    }

    /// `time`: when.
    pub fn time(&self) -> Option<SystemTime> {
        rfc_3339::parse(text(self.0, &["time"])?)
    }

    /// All members.
    pub fn as_json(&self) -> &'a Map<String, Value> {
        self.0
    }
}

impl fmt::Debug for EvidenceCheck<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EvidenceCheck ")?;
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

fn text<'a>(members: &'a Map<String, Value>, path: &[&str]) -> Option<&'a str> {
    let (last, objects) = path.split_last()?;
    let inner = objects.iter().try_fold(members, |object, name| object.get(*name)?.as_object())?;
    inner.get(*last)?.as_str()
}
