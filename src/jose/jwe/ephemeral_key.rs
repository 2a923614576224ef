//! The sender's part of a key agreement, from the header of a token (RFC 7518 §4.6.1).

use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::error::ErrorStack;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, PKeyRef, Private, Public};

/// The curves for key agreement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
    X25519,
}

/// The sender's part of an agreement.
pub(super) struct Agreement {
    pub(super) ephemeral: EphemeralKey,
    pub(super) apu: Vec<u8>,
    pub(super) apv: Vec<u8>,
}

/// A public key that a sender made for one token. It may not be a point of its curve.
pub(super) struct EphemeralKey {
    pub(super) curve: Curve,
    pub(super) x: Vec<u8>,
    /// Empty on X25519.
    pub(super) y: Vec<u8>,
}

impl Curve {
    /// The length of a coordinate in bytes.
    pub(super) fn width(self) -> usize {
        match self {
            Self::P256 | Self::X25519 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }

    /// The curve of a key. `None` for keys that do not support key agreement.
    pub(super) fn of(key: &PKeyRef<Private>) -> Option<Self> {
        if key.id() == Id::X25519 {
            return Some(Self::X25519);
        }
        match key.ec_key().ok()?.group().curve_name()? {
            Nid::X9_62_PRIME256V1 => Some(Self::P256),
            Nid::SECP384R1 => Some(Self::P384),
            Nid::SECP521R1 => Some(Self::P521),
            _ => None,
        }
    }

    fn group(self) -> Option<Nid> {
        match self {
            Self::P256 => Some(Nid::X9_62_PRIME256V1),
            Self::P384 => Some(Nid::SECP384R1),
            Self::P521 => Some(Nid::SECP521R1),
            Self::X25519 => None,
        }
    }
}

impl EphemeralKey {
    pub(super) fn to_public_key(&self) -> Result<PKey<Public>, ErrorStack> {
        let Some(group) = self.curve.group() else {
            return PKey::public_key_from_raw_bytes(&self.x, Id::X25519);
        };
        let group = EcGroup::from_curve_name(group)?;
        let (x, y) = (BigNum::from_slice(&self.x)?, BigNum::from_slice(&self.y)?);
        // Fails if it is not a point of the curve. On another curve, the answers would reveal our key bit by bit.
        PKey::from_ec_key(EcKey::from_public_key_affine_coordinates(&group, &x, &y)?)
    }
}
