//! Signed tokens, keys and cryptographic primitives. No other code uses josekit, OpenSSL and ed25519-dalek.
//!
//! Input from the network is parsed and checked here before any library sees it. A key becomes a minimal set of
//! canonical parameters. A token becomes canonical segments with a header that has no critical parameters.

mod algorithm;
mod certificate;
mod compact;
mod digest;
mod hmac_signer;
mod jwe;
mod jwk;
mod key_kind;
mod key_pair;
mod key_set;
mod key_use;
mod openid;
mod private_jwk;
mod signer;
mod verification_key;
mod verifier;

pub(crate) mod aead;
#[cfg(test)]
pub(crate) mod test_keys;
#[cfg(test)]
mod wycheproof;

pub use algorithm::SigningAlgorithm;
pub use jwe::{ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm};
pub use signer::{Signer, SigningKey};

pub(crate) use algorithm::HashFunction;
pub(crate) use certificate::CertifiedKey;
pub(crate) use compact::{CompactJws, Header, Unreadable};
pub(crate) use digest::{hash, hmac_sha256, sha256};
pub(crate) use hmac_signer::HmacSigner;
pub(crate) use jwe::{CompactJwe, Undecryptable};
pub(crate) use jwk::LeftOut;
pub(crate) use key_pair::{KeyPair, KeyPairType, PublicParts};
pub(crate) use key_set::{KeySet, NotVerified};
pub(crate) use openid::{KeyOfToken, NoEncryption, OpenIdAlgorithm};
pub(crate) use signer::sign_compact;
