//! Encrypted ID Tokens, UserInfo responses, and authorization requests and responses.
//!
//! An OP encrypts what it sends for a [`DecryptionKey`] of the client. Generate one or load it, and give it to
//! [`ClientBuilder::decryption_key`](crate::ClientBuilder::decryption_key). The OP gets its public half from
//! [`Client::jwks`](crate::Client::jwks), or with the [registration](crate::registration::RegistrationRequest). The
//! algorithms are a [`KeyManagementAlgorithm`] for the key and a [`ContentEncryptionAlgorithm`] for the content
//! (RFC 7518 §4 and §5).

pub use crate::client::ClientAlgorithms;
pub use crate::id_token::Encryption;
pub use crate::jose::{ContentEncryptionAlgorithm, DecryptionKey, KeyManagementAlgorithm};
