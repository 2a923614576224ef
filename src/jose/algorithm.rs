//! The names of signature algorithms and their properties.

/// A signature algorithm of JOSE (RFC 7518 §3.1, RFC 8037 §3.1, RFC 8812 §3.2, RFC 9864 §2.2). It excludes `none`.
#[non_exhaustive]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum SigningAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    Rs384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    Rs512,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PSS with SHA-384.
    Ps384,
    /// RSASSA-PSS with SHA-512.
    Ps512,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// ECDSA on P-521 with SHA-512.
    Es512,
    /// ECDSA on secp256k1 with SHA-256.
    Es256k,
    /// EdDSA under its older name (`EdDSA`), which does not name the curve. Here it is always Ed25519.
    EdDsa,
    /// EdDSA on Ed25519 under its specific name (`Ed25519`, RFC 9864 §2.2). Keys and signatures are those of
    /// [`EdDsa`](Self::EdDsa), but a server that lists only one of the names may support only that one.
    Ed25519,
    /// HMAC with SHA-256, keyed with a shared secret.
    Hs256,
    /// HMAC with SHA-384, keyed with a shared secret.
    Hs384,
    /// HMAC with SHA-512, keyed with a shared secret.
    Hs512,
}

/// The hash functions of JOSE's signature algorithms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum HashFunction {
    Sha256,
    Sha384,
    Sha512,
}

impl SigningAlgorithm {
    const ALL: [Self; 15] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::Es256k,
        Self::EdDsa,
        Self::Ed25519,
        Self::Hs256,
        Self::Hs384,
        Self::Hs512,
    ];

    /// The registered name, as in the `alg` of a header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::Es256k => "ES256K",
            Self::EdDsa => "EdDSA",
            Self::Ed25519 => "Ed25519",
            Self::Hs256 => "HS256",
            Self::Hs384 => "HS384",
            Self::Hs512 => "HS512",
        }
    }

    /// The algorithm of this registered name, which is case-sensitive (RFC 7515 §4.1.1).
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Whether one key both signs and verifies.
    pub(crate) fn is_symmetric(self) -> bool {
        matches!(self, Self::Hs256 | Self::Hs384 | Self::Hs512)
    }

    /// The hash function, which is also that of `at_hash` and `c_hash` (OpenID Connect Core 1.0 §3.1.3.6). For Ed25519
    /// it is the internal one.
    pub(crate) fn hash(self) -> HashFunction {
        match self {
            Self::Rs256 | Self::Ps256 | Self::Es256 | Self::Es256k | Self::Hs256 => HashFunction::Sha256,
            Self::Rs384 | Self::Ps384 | Self::Es384 | Self::Hs384 => HashFunction::Sha384,
            Self::Rs512 | Self::Ps512 | Self::Es512 | Self::EdDsa | Self::Ed25519 | Self::Hs512 => HashFunction::Sha512,
        }
    }

    /// The length of a signature in bytes, if the algorithm determines it.
    pub(crate) fn signature_length(self) -> Option<usize> {
        match self {
            Self::Es256 | Self::Es256k | Self::EdDsa | Self::Ed25519 | Self::Hs512 => Some(64),
            Self::Es384 => Some(96),
            Self::Es512 => Some(132),
            Self::Hs256 => Some(32),
            Self::Hs384 => Some(48),
            Self::Rs256 | Self::Rs384 | Self::Rs512 | Self::Ps256 | Self::Ps384 | Self::Ps512 => None,
        }
    }
}

impl HashFunction {
    /// The length of a hash in bytes.
    pub(crate) fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_algorithm_is_found_by_its_name() {
        for algorithm in SigningAlgorithm::ALL {
            assert_eq!(SigningAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
    }

    #[test]
    fn none_and_names_in_another_case_are_no_algorithms() {
        for name in ["none", "None", "NONE", "", "rs256", "RS256 ", "EDDSA", "ed25519", "Ed448", "RSA-OAEP"] {
            assert_eq!(SigningAlgorithm::from_name(name), None, "{name:?}");
        }
    }
}
