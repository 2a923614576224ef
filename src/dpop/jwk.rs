//! The public key as a JWK.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::jose::PublicParts;

/// The JSON whose SHA-256 is the thumbprint (RFC 7638 §3): the required members only, "ordered lexicographically by
/// the Unicode code points of the member names", without white space. Being a JWK as well, it is also what a proof's
/// header carries.
pub(super) fn canonical(public: &PublicParts) -> String {
    // No character of base64url needs escaping in JSON.
    let encoded = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
    match public {
        PublicParts::P256 { x, y } => {
            format!(r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#, encoded(x), encoded(y))
        }
        PublicParts::Ed25519 { x } => format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{}"}}"#, encoded(x)),
        PublicParts::Rsa { n, e } => format!(r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#, encoded(e), encoded(n)),
    }
}
