//! The names of encryption algorithms and their properties.

/// How the key of an encrypted token is transmitted: the `alg` of a JWE (RFC 7518 §4.1), registered as
/// `id_token_encrypted_response_alg`.
///
/// Only algorithms with a public key are supported. `RSA1_5` is not, because of its history of padding oracles (RFC
/// 8725 §3.2). `dir` and the password-based algorithms are not, because they need a shared secret.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum KeyManagementAlgorithm {
    /// RSAES OAEP with SHA-1 (`RSA-OAEP`). SHA-1 is not a weakness here, but prefer another algorithm.
    RsaOaep,
    /// RSAES OAEP with SHA-256 (`RSA-OAEP-256`).
    RsaOaep256,
    /// Key agreement with an ephemeral key, used directly (`ECDH-ES`), on P-256, P-384, P-521 or X25519.
    EcdhEs,
    /// Key agreement that yields a key to unwrap the content's key with AES-128 (`ECDH-ES+A128KW`).
    EcdhEsA128Kw,
    /// Key agreement as above, with AES-192 (`ECDH-ES+A192KW`).
    EcdhEsA192Kw,
    /// Key agreement as above, with AES-256 (`ECDH-ES+A256KW`).
    EcdhEsA256Kw,
}

/// How the content of an encrypted token is encrypted: the `enc` of a JWE (RFC 7518 §5.1), registered as
/// `id_token_encrypted_response_enc`.
///
/// Prefer AES-GCM if the OP supports both.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum ContentEncryptionAlgorithm {
    /// AES-GCM with 128 bits (`A128GCM`).
    A128Gcm,
    /// AES-GCM with 192 bits (`A192GCM`).
    A192Gcm,
    /// AES-GCM with 256 bits (`A256GCM`).
    A256Gcm,
    /// AES-CBC with 128 bits and HMAC-SHA-256 (`A128CBC-HS256`): the default of OPs if nothing is registered.
    A128CbcHs256,
    /// AES-CBC with 192 bits and HMAC-SHA-384 (`A192CBC-HS384`).
    A192CbcHs384,
    /// AES-CBC with 256 bits and HMAC-SHA-512 (`A256CBC-HS512`).
    A256CbcHs512,
}

impl KeyManagementAlgorithm {
    pub(super) const ALL: [Self; 6] =
        [Self::RsaOaep, Self::RsaOaep256, Self::EcdhEs, Self::EcdhEsA128Kw, Self::EcdhEsA192Kw, Self::EcdhEsA256Kw];

    /// The registered name, as in the `alg` of a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaOaep => "RSA-OAEP",
            Self::RsaOaep256 => "RSA-OAEP-256",
            Self::EcdhEs => "ECDH-ES",
            Self::EcdhEsA128Kw => "ECDH-ES+A128KW",
            Self::EcdhEsA192Kw => "ECDH-ES+A192KW",
            Self::EcdhEsA256Kw => "ECDH-ES+A256KW",
        }
    }

    /// The algorithm of this registered name, which is case-sensitive. `None` if it is not supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    pub(super) fn is_rsa(self) -> bool {
        matches!(self, Self::RsaOaep | Self::RsaOaep256)
    }

    /// The length in bytes of the agreed key that unwraps the content's key. `None` if no such key is used.
    pub(super) fn wraps_key(self) -> Option<usize> {
        match self {
            Self::EcdhEsA128Kw => Some(16),
            Self::EcdhEsA192Kw => Some(24),
            Self::EcdhEsA256Kw => Some(32),
            Self::RsaOaep | Self::RsaOaep256 | Self::EcdhEs => None,
        }
    }
}

impl ContentEncryptionAlgorithm {
    pub(super) const ALL: [Self; 6] =
        [Self::A128Gcm, Self::A192Gcm, Self::A256Gcm, Self::A128CbcHs256, Self::A192CbcHs384, Self::A256CbcHs512];

    /// The registered name, as in the `enc` of a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::A128Gcm => "A128GCM",
            Self::A192Gcm => "A192GCM",
            Self::A256Gcm => "A256GCM",
            Self::A128CbcHs256 => "A128CBC-HS256",
            Self::A192CbcHs384 => "A192CBC-HS384",
            Self::A256CbcHs512 => "A256CBC-HS512",
        }
    }

    /// The algorithm of this registered name, which is case-sensitive. `None` if it is not supported.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    pub(super) fn is_cbc(self) -> bool {
        matches!(self, Self::A128CbcHs256 | Self::A192CbcHs384 | Self::A256CbcHs512)
    }

    /// The length of its key in bytes. With CBC it includes the key of the MAC and that of the cipher.
    pub(super) fn key_length(self) -> usize {
        match self {
            Self::A128Gcm => 16,
            Self::A192Gcm => 24,
            Self::A256Gcm | Self::A128CbcHs256 => 32,
            Self::A192CbcHs384 => 48,
            Self::A256CbcHs512 => 64,
        }
    }

    pub(super) fn iv_length(self) -> usize {
        if self.is_cbc() { 16 } else { 12 }
    }

    pub(super) fn tag_length(self) -> usize {
        match self {
            Self::A128Gcm | Self::A192Gcm | Self::A256Gcm | Self::A128CbcHs256 => 16,
            Self::A192CbcHs384 => 24,
            Self::A256CbcHs512 => 32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_found_by_its_name_and_no_other_is() {
        for algorithm in KeyManagementAlgorithm::ALL {
            assert_eq!(KeyManagementAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        for algorithm in ContentEncryptionAlgorithm::ALL {
            assert_eq!(ContentEncryptionAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        for name in ["", "none", "dir", "RSA1_5", "rsa-oaep", "A128KW", "A128GCMKW", "PBES2-HS256+A128KW", "ECDH-1PU"] {
            assert_eq!(KeyManagementAlgorithm::from_name(name), None, "{name:?}");
        }
        for name in ["", "none", "a128gcm", "A128GCM ", "A128CBC", "XC20P", "A128GCMKW"] {
            assert_eq!(ContentEncryptionAlgorithm::from_name(name), None, "{name:?}");
        }
    }
}
