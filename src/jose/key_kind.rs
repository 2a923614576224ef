//! The kinds of keys for signatures.

use super::algorithm::SigningAlgorithm;

/// The type of a key with its curve, so that each signature algorithm has exactly one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) enum KeyKind {
    Rsa,
    P256,
    P384,
    P521,
    Secp256k1,
    Ed25519,
    Secret,
}

impl KeyKind {
    pub(super) fn of(algorithm: SigningAlgorithm) -> Self {
        use SigningAlgorithm as A;
        match algorithm {
            A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512 => Self::Rsa,
            A::Es256 => Self::P256,
            A::Es384 => Self::P384,
            A::Es512 => Self::P521,
            A::Es256k => Self::Secp256k1,
            A::EdDsa | A::Ed25519 => Self::Ed25519,
            A::Hs256 | A::Hs384 | A::Hs512 => Self::Secret,
        }
    }

    pub(super) fn algorithms(self) -> &'static [SigningAlgorithm] {
        use SigningAlgorithm as A;
        match self {
            Self::Rsa => &[A::Rs256, A::Rs384, A::Rs512, A::Ps256, A::Ps384, A::Ps512],
            Self::P256 => &[A::Es256],
            Self::P384 => &[A::Es384],
            Self::P521 => &[A::Es512],
            Self::Secp256k1 => &[A::Es256k],
            Self::Ed25519 => &[A::EdDsa, A::Ed25519],
            Self::Secret => &[A::Hs256, A::Hs384, A::Hs512],
        }
    }
}
