//! Verified tokens as they are sealed, and brought back without being verified again.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::claims::{Claims, Times};
use super::{IdToken, InterimIdToken, InterimMember, InterimState};
use crate::error::{Error, ErrorKind, Rule};
use crate::jose::{CompactJws, SigningAlgorithm};
use crate::json::Object;
use crate::secret::Secret;

/// A verified ID Token in storage. It counts as verified, so it must only ever stand inside something sealed.
#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub(crate) struct StoredIdToken {
    token: String,
    /// As they were read when the token was verified.
    #[zeroize(skip)]
    times: Times,
}

impl IdToken {
    pub(crate) fn to_stored(&self) -> StoredIdToken {
        StoredIdToken { token: self.token.expose().to_owned(), times: self.claims.times() }
    }

    /// # Errors
    ///
    /// [`ErrorKind::Sealed`] for what [`to_stored`](Self::to_stored) cannot have made.
    pub(crate) fn from_stored(stored: &StoredIdToken) -> Result<Self, Error> {
        let parts = || {
            let jws = CompactJws::parse(&stored.token).ok()?;
            let algorithm = SigningAlgorithm::from_name(&jws.header().alg)?;
            Some((Claims::new(Object::parse(jws.payload()).ok()?.members().clone(), stored.times), algorithm))
        };
        let (claims, algorithm) = parts().ok_or_else(|| Error::new(ErrorKind::Sealed))?;
        Ok(Self { claims, token: Secret::new(stored.token.as_str()), algorithm })
    }
}

/// An [`InterimState`] in storage, with the same care.
#[derive(Serialize, Deserialize)]
pub(crate) enum StoredInterim {
    Absent,
    Verified { members: Map<String, Value>, times: Times, member: InterimMember },
    Rejected(String),
    NotYetVerifiable,
}

impl InterimState {
    pub(crate) fn to_stored(&self) -> StoredInterim {
        match self {
            Self::Absent => StoredInterim::Absent,
            Self::Verified(InterimIdToken { claims, member }) => {
                StoredInterim::Verified { members: claims.as_json().clone(), times: claims.times(), member: *member }
            }
            Self::Rejected(rule) => StoredInterim::Rejected(rule.code().to_owned()),
            Self::NotYetVerifiable => StoredInterim::NotYetVerifiable,
        }
    }

    pub(crate) fn from_stored(stored: StoredInterim) -> Self {
        match stored {
            StoredInterim::Absent => Self::Absent,
            StoredInterim::Verified { members, times, member } => {
                Self::Verified(InterimIdToken { claims: Claims::new(members, times), member })
            }
            // A newer version of this crate may know more rules; that the token was rejected is what counts.
            StoredInterim::Rejected(code) => Self::Rejected(
                Rule::ALL.iter().copied().find(|rule| rule.code() == code).unwrap_or(Rule::IdTokenMalformed),
            ),
            StoredInterim::NotYetVerifiable => Self::NotYetVerifiable,
        }
    }
}
