//! A strict parser of the compact serialization of a signed token (RFC 7515 §7.1).

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::json::{Flaw, Object};

/// The length of the longest token that is parsed.
const LENGTH_LIMIT: usize = 256 * 1024;

/// A parsed signed token. Nothing in it is verified.
pub(crate) struct CompactJws<'a> {
    header: Header,
    payload: Vec<u8>,
    signing_input: &'a str,
    signature: Vec<u8>,
}

/// The header parameters that this crate uses. Keys in the header (`jwk`, `jku`, `x5u`, `x5c`) are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) alg: String,
    pub(crate) kid: Option<String>,
    pub(crate) typ: Option<String>,
    pub(crate) cty: Option<String>,
}

/// The header parameters that determine what is verified and how.
const PARAMETERS: [&str; 6] = ["alg", "kid", "typ", "cty", "crit", "b64"];

/// Why a text is not a signed token that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unreadable {
    /// Too long, not three segments, not canonical base64url, or without a header that has an `alg`.
    Malformed,
    /// The header has a `crit`, or a `b64` of `false` (RFC 7797). These parameters change what the signature covers,
    /// and no token of this flow may use them.
    Critical,
    /// This header parameter is repeated with another value.
    Repeated(&'static str),
}

impl From<Flaw> for Unreadable {
    fn from(flaw: Flaw) -> Self {
        match flaw {
            Flaw::Repeated(parameter) => Self::Repeated(parameter),
            Flaw::Unclear(_) => Self::Malformed,
        }
    }
}

impl<'a> CompactJws<'a> {
    /// Parses a token. Verify its [`signature`](Self::signature) over its [`signing_input`](Self::signing_input) before
    /// you trust its [`payload`](Self::payload).
    pub(crate) fn parse(token: &'a str) -> Result<Self, Unreadable> {
        let [header, payload, signature] = segments(token)?;
        let signing_input = token.get(..header.len() + 1 + payload.len()).ok_or(Unreadable::Malformed)?;
        Ok(Self {
            header: Header::parse(&segment(header)?)?,
            payload: segment(payload)?,
            signing_input,
            signature: segment(signature)?,
        })
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    pub(crate) fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The input of the signature.
    pub(crate) fn signing_input(&self) -> &[u8] {
        self.signing_input.as_bytes()
    }

    pub(crate) fn signature(&self) -> &[u8] {
        &self.signature
    }
}

impl Header {
    /// Parses only the header of a token.
    pub(crate) fn of(token: &str) -> Result<Self, Unreadable> {
        let [header, ..] = segments(token)?;
        Self::parse(&segment(header)?)
    }

    fn parse(json: &[u8]) -> Result<Self, Unreadable> {
        let object = Object::parse(json).map_err(|_| Unreadable::Malformed)?;
        let members = object.needing(&PARAMETERS)?;
        // RFC 7515 §4.1.11: "If any of the listed extension Header Parameters are not understood and supported by the
        // recipient, then the JWS is invalid." None are supported. `null` lists no extension. As `b64` it means the
        // default `true` (RFC 7797 §3), and the signature is always verified over the encoded payload.
        let present = |name| members.get(name).filter(|value| !value.is_null());
        if present("crit").is_some() || present("b64").is_some_and(|b64| *b64 != Value::Bool(true)) {
            return Err(Unreadable::Critical);
        }
        Ok(Self {
            alg: text(&members, "alg")?.ok_or(Unreadable::Malformed)?,
            kid: value(&members, "kid")?,
            typ: value(&members, "typ")?,
            cty: value(&members, "cty")?,
        })
    }
}

/// `null` counts as absent, because some serializers write it.
fn text(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Unreadable> {
    match members.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(_) => Err(Unreadable::Malformed),
    }
}

/// The same for an optional parameter: an empty one is absent too. This is safe: a token without `kid` must be verified
/// by one of the same keys, and one without `typ` and `cty` by the same rules.
fn value(members: &Map<String, Value>, name: &str) -> Result<Option<String>, Unreadable> {
    Ok(text(members, name)?.filter(|text| !text.is_empty()))
}

/// The three segments, still encoded.
fn segments(token: &str) -> Result<[&str; 3], Unreadable> {
    if token.len() > LENGTH_LIMIT {
        return Err(Unreadable::Malformed);
    }
    let (signing_input, signature) = token.rsplit_once('.').ok_or(Unreadable::Malformed)?;
    let (header, payload) = signing_input.split_once('.').ok_or(Unreadable::Malformed)?;
    // A third dot would be in the payload segment.
    if payload.contains('.') { Err(Unreadable::Malformed) } else { Ok([header, payload, signature]) }
}

/// Decodes unpadded base64url. The engine refuses padding and stray bits at the end, so that one signature has only one
/// encoding.
fn segment(encoded: &str) -> Result<Vec<u8>, Unreadable> {
    URL_SAFE_NO_PAD.decode(encoded).map_err(|_| Unreadable::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token(header: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"))
    }

    fn refusal(token: &str) -> Unreadable {
        CompactJws::parse(token).map(|_| ()).unwrap_err()
    }

    #[test]
    fn a_token_is_split_into_its_parts() {
        let text = token(r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#);
        let jws = CompactJws::parse(&text).unwrap();
        assert_eq!(
            jws.header(),
            &Header { alg: "ES256".into(), kid: Some("1".into()), typ: Some("JWT".into()), cty: None }
        );
        assert_eq!(jws.payload(), b"{}");
        assert_eq!(jws.signature(), b"sig");
        assert_eq!(jws.signing_input(), text.rsplit_once('.').unwrap().0.as_bytes());
    }

    #[test]
    fn any_other_number_of_segments_is_refused() {
        for text in ["", ".", "..", "a", "a.b", "e30.e30.c2ln.", ".e30.e30.c2ln", "a.b.c.d", "a.b.c.d.e.f"] {
            assert_eq!(refusal(text), Unreadable::Malformed, "{text}");
        }
    }

    #[test]
    fn only_canonical_unpadded_base64url_is_read() {
        let good = token(r#"{"alg":"ES256"}"#);
        assert!(CompactJws::parse(&good).is_ok());
        // `c2ln` is `sig`; `c2k` is `si`, which `c2l` encodes with stray bits.
        let body = good.strip_suffix("c2ln").unwrap();
        assert!(CompactJws::parse(&format!("{body}c2k")).is_ok());
        for signature in ["c2k=", "c2l", "c2+n", "c2/n", "c2 n", "c2ln\n", "c"] {
            assert_eq!(refusal(&format!("{body}{signature}")), Unreadable::Malformed, "{signature:?}");
        }
    }

    #[test]
    fn a_header_is_an_object_with_an_alg_and_members_of_their_types() {
        for header in [
            "",
            "[]",
            "{}",
            r#"{"alg":1}"#,
            r#"{"alg":null}"#,
            r#"{"alg":"ES256","kid":5}"#,
            r#"{"alg":"ES256","typ":[]}"#,
            r#"{"alg":"ES256","cty":{}}"#,
        ] {
            assert_eq!(refusal(&token(header)), Unreadable::Malformed, "{header}");
        }
    }

    #[test]
    fn a_header_parameter_that_contradicts_itself_is_named_unless_nothing_needs_it() {
        let repeated = token(r#"{"alg":"none","kid":"1","alg":"ES256"}"#);
        assert_eq!(refusal(&repeated), Unreadable::Repeated("alg"));
        for header in [r#"{"alg":"ES256","alg":"ES256"}"#, r#"{"x5t":"a","alg":"ES256","x5t":"b"}"#] {
            assert_eq!(CompactJws::parse(&token(header)).unwrap().header().alg, "ES256");
        }
    }

    #[test]
    fn header_parameters_that_are_null_or_empty_are_absent() {
        let header = Header { alg: "ES256".into(), kid: None, typ: None, cty: None };
        for text in [
            r#"{"alg":"ES256","kid":null,"typ":null,"cty":null,"crit":null,"b64":null}"#,
            r#"{"alg":"ES256","kid":"","typ":"","cty":""}"#,
        ] {
            assert_eq!(CompactJws::parse(&token(text)).unwrap().header(), &header, "{text}");
        }
    }

    #[test]
    fn critical_and_unencoded_payload_parameters_are_refused() {
        for header in [
            r#"{"alg":"ES256","crit":["exp"]}"#,
            r#"{"alg":"ES256","crit":[]}"#,
            r#"{"alg":"ES256","crit":""}"#,
            r#"{"alg":"ES256","b64":false,"crit":null}"#,
            r#"{"alg":"ES256","b64":false,"crit":["b64"]}"#,
            r#"{"alg":"ES256","b64":false}"#,
            r#"{"alg":"ES256","b64":"false"}"#,
        ] {
            assert_eq!(refusal(&token(header)), Unreadable::Critical, "{header}");
        }
    }

    #[test]
    fn a_token_over_the_size_limit_is_not_parsed() {
        let text = format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256"}"#), "A".repeat(LENGTH_LIMIT));
        assert_eq!(refusal(&text), Unreadable::Malformed);
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".*") {
            let _ = CompactJws::parse(&text);
        }

        #[test]
        fn arbitrary_segments_never_panic(header: Vec<u8>, payload: Vec<u8>, signature: Vec<u8>) {
            let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let _ = CompactJws::parse(&format!("{}.{}.{}", encode(&header), encode(&payload), encode(&signature)));
        }

        #[test]
        fn a_header_of_arbitrary_json_never_panics(alg in ".*", name in "(alg|kid|typ|cty|crit|b64|x)", value in ".{0,20}") {
            let header = serde_json::json!({"alg": alg, name: value}).to_string();
            let _ = CompactJws::parse(&token(&header));
        }
    }
}
