//! A golden file.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use openid_deferred::store::{Cancellation, Process, ProcessId};
use openid_deferred::{Keyring, SealingKey};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The key under which everything in the files is sealed. It protects nothing else.
pub fn keyring() -> Keyring {
    Keyring::new(SealingKey::from_base64("Z29sZGVuIHJvd3MgYXJlIHNlYWxlZCBieSB0aGlzISE=").unwrap())
}

/// What a release wrote, and the values that it was given.
#[derive(Serialize, Deserialize)]
pub struct Release {
    pub issuer: String,
    pub session: String,
    pub state: String,
    pub pending: Bytes,
    pub deferred_auth_id: String,
    pub waiting_deferred_auth_id: String,
    pub thumbprint: String,
    /// With a success response that is not validated yet.
    pub answered: Bytes,
    pub authentication: Bytes,
    pub access_token: String,
    pub rows: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
pub struct Row {
    pub label: String,
    pub id: [u8; 16],
    pub partition: i64,
    pub state: String,
    pub provisional: bool,
    pub cancelled: bool,
    pub schedule: String,
    pub format: u8,
    pub key: [u8; 4],
    pub body: Bytes,
}

impl Row {
    pub fn of(label: &str, id: ProcessId, row: Process) -> Self {
        let body = row.body.unwrap();
        Self {
            label: label.to_owned(),
            id: id.to_bytes(),
            partition: row.partition.0,
            state: format!("{:?}", row.state).to_lowercase(),
            provisional: row.provisional,
            cancelled: row.cancellation != Cancellation::None,
            schedule: row.schedule,
            format: body.format,
            key: body.key,
            body: Bytes(body.bytes),
        }
    }
}

pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}
