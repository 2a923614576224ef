//! The bearer tokens of Ping Callbacks. Each token names its sign-in, and forged tokens are refused here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::Keyring;
use crate::error::Error;
use crate::jose::hmac_sha256;
use crate::random::{self, Random};
use crate::secret::{Secret, constant_time_eq};

const FORMAT: u8 = 1;
const LENGTH: usize = 1 + 4 + 8 + 16 + 16 + 32;

/// A parsed `deferred_notification_token` (DTR §Deferred Code Exchange Request): format ‖ key id ‖ client ‖ process ‖
/// random ‖ MAC, in base64url: 103 characters of RFC 6750's `b64token`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotificationToken {
    key_id: [u8; 4],
    /// The client, so that its issuer and identifier can be looked up for the MAC.
    pub(crate) client: i64,
    /// The sign-in.
    pub(crate) process: [u8; 16],
    random: [u8; 16],
    mac: [u8; 32],
}

impl NotificationToken {
    /// Parses a bearer token. `None` if it does not have the format. Do not trust its content before
    /// [`Keyring::verifies`].
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let mut bytes = [0; LENGTH + 2];
        let written = URL_SAFE_NO_PAD.decode_slice(token, &mut bytes).ok().filter(|written| *written == LENGTH)?;
        let (&[format], rest) = bytes.get(..written)?.split_first_chunk()?;
        let (&key_id, rest) = rest.split_first_chunk()?;
        let (&client, rest) = rest.split_first_chunk()?;
        let (&process, rest) = rest.split_first_chunk()?;
        let (&random, rest) = rest.split_first_chunk()?;
        let (&mac, _) = rest.split_first_chunk()?;
        let client = i64::from_be_bytes(client);
        (format == FORMAT).then_some(Self { key_id, client, process, random, mac })
    }

    fn mac(&self, key: &[u8; 32], issuer: &str, client_id: &str) -> [u8; 32] {
        let length = |text: &str| (text.len() as u64).to_be_bytes();
        let parts: [&[u8]; 9] = [
            b"notification token",
            &[FORMAT],
            &self.client.to_be_bytes(),
            &self.process,
            &self.random,
            &length(issuer),
            issuer.as_bytes(),
            &length(client_id),
            client_id.as_bytes(),
        ];
        hmac_sha256(key, &parts)
    }
}

impl Keyring {
    /// A new bearer token for the pings of one sign-in.
    pub(crate) fn notification_token(
        &self,
        random: &dyn Random,
        client: i64,
        process: [u8; 16],
        issuer: &str,
        client_id: &str,
    ) -> Result<Secret, Error> {
        let random = random::bytes(random)?;
        let mut token = NotificationToken { key_id: self.primary.id, client, process, random, mac: [0; 32] };
        token.mac = token.mac(&self.primary.notification_token, issuer, client_id);
        let bytes =
            [&[FORMAT], token.key_id.as_slice(), &client.to_be_bytes(), &process, &token.random, &token.mac].concat();
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Whether this keyring issued the token for a sign-in of this client.
    pub(crate) fn verifies(&self, token: &NotificationToken, issuer: &str, client_id: &str) -> bool {
        let mut keys = self.keys().filter(|keys| keys.id == token.key_id);
        keys.any(|keys| constant_time_eq(&token.mac(&keys.notification_token, issuer, client_id), &token.mac))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::SealingKey;
    use super::*;
    use crate::random::SystemRandom;

    fn keyring() -> Keyring {
        Keyring::new(SealingKey::generate(&SystemRandom).unwrap())
    }

    fn token(keyring: &Keyring) -> Secret {
        keyring.notification_token(&SystemRandom, -3, [7; 16], "https://op.example", "app").unwrap()
    }

    #[test]
    fn a_token_names_its_process_and_verifies_for_its_client_alone() {
        let keyring = keyring();
        let token = token(&keyring);
        assert!(token.expose().len() < 128, "{}", token.expose().len());
        let parsed = NotificationToken::parse(token.expose()).unwrap();
        assert_eq!((parsed.client, parsed.process), (-3, [7; 16]));
        assert!(keyring.verifies(&parsed, "https://op.example", "app"));
        assert!(!keyring.verifies(&parsed, "https://op.example", "other"));
        assert!(!keyring.verifies(&parsed, "https://op.examplea", "pp"));
        assert!(!self::keyring().verifies(&parsed, "https://op.example", "app"));
    }

    #[test]
    fn a_token_of_an_older_key_still_verifies() {
        let key = || SealingKey::from_bytes(std::array::from_fn(|index| index as u8)).unwrap();
        let token = token(&Keyring::new(key()));
        let rotated = keyring().also_opens(key());
        assert!(rotated.verifies(&NotificationToken::parse(token.expose()).unwrap(), "https://op.example", "app"));
    }

    proptest! {
        #[test]
        fn a_changed_token_does_not_verify(position in 0..103_usize, replacement in "[A-Za-z0-9_-]") {
            let keyring = keyring();
            let token = token(&keyring);
            let mut changed = token.expose().to_owned();
            changed.replace_range(position..=position, &replacement);
            prop_assume!(changed != token.expose());
            let parsed = NotificationToken::parse(&changed);
            prop_assert!(parsed.is_none_or(|parsed| !keyring.verifies(&parsed, "https://op.example", "app")));
        }

        #[test]
        fn any_text_is_parsed_without_a_panic(text: String) {
            NotificationToken::parse(&text);
        }
    }
}
