//! The parts of a sealed value as short JSON. Secrets are serialized only for an envelope.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

pub(crate) mod secret {
    use super::*;
    use crate::secret::Secret;

    pub(crate) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        Ok(Secret::new(String::deserialize(deserializer)?))
    }
}

pub(crate) mod optional_secret {
    use super::*;
    use crate::secret::Secret;

    pub(crate) fn serialize<S: Serializer>(secret: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
        secret.as_ref().map(Secret::expose).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
        Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
    }
}

pub(crate) mod secret_bytes {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bytes: &Zeroizing<Vec<u8>>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Zeroizing<Vec<u8>>, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        URL_SAFE_NO_PAD.decode(text.as_bytes()).map(Zeroizing::new).map_err(|_| D::Error::custom("not base64url"))
    }
}

/// For members that are omitted if they are empty.
pub(crate) fn no_bytes(bytes: &Zeroizing<Vec<u8>>) -> bool {
    bytes.is_empty()
}

pub(crate) mod dpop_key {
    use super::*;
    use crate::dpop::DpopKey;

    pub(crate) fn serialize<S: Serializer>(key: &Option<DpopKey>, serializer: S) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => {
                let bytes = key.to_bytes().map_err(|_| S::Error::custom("the key cannot be written"))?;
                secret_bytes::serialize(&bytes, serializer)
            }
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<DpopKey>, D::Error> {
        let bytes = secret_bytes::deserialize(deserializer)?;
        DpopKey::from_bytes(&bytes).map(Some).map_err(|_| D::Error::custom("not a DPoP key"))
    }
}

pub(crate) mod id_token {
    use super::*;
    use crate::id_token::{IdToken, StoredIdToken};

    pub(crate) fn serialize<S: Serializer>(token: &IdToken, serializer: S) -> Result<S::Ok, S::Error> {
        token.to_stored().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IdToken, D::Error> {
        let stored = StoredIdToken::deserialize(deserializer)?;
        IdToken::from_stored(&stored).map_err(|_| D::Error::custom("not an ID Token"))
    }
}

pub(crate) mod optional_id_token {
    use super::*;
    use crate::id_token::IdToken;

    pub(crate) fn serialize<S: Serializer>(token: &Option<IdToken>, serializer: S) -> Result<S::Ok, S::Error> {
        match token {
            Some(token) => id_token::serialize(token, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<IdToken>, D::Error> {
        id_token::deserialize(deserializer).map(Some)
    }
}

pub(crate) mod interim {
    use super::*;
    use crate::id_token::{InterimState, StoredInterim};

    pub(crate) fn serialize<S: Serializer>(interim: &InterimState, serializer: S) -> Result<S::Ok, S::Error> {
        interim.to_stored().serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<InterimState, D::Error> {
        Ok(InterimState::from_stored(StoredInterim::deserialize(deserializer)?))
    }
}
