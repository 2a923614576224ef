//! What a store knows of clients: their names, and whether their OPs refuse them.

use std::time::Duration;

use super::row::Partition;

/// The longest issuer or client identifier that is recorded, in characters.
const LONGEST: usize = 1_000;

/// What a poller records about one of its clients; see [`Store::note_clients`](super::Store::note_clients).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNote {
    /// The client.
    pub partition: Partition,
    /// The issuer of its OP.
    pub issuer: String,
    /// Its client identifier.
    pub client_id: String,
    /// What has become known of whether its OP accepts it.
    pub acceptance: Acceptance,
}

/// Whether an OP accepts a client, as far as a poller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Acceptance {
    /// Nothing new is known: what was noted before stays.
    #[default]
    Unchanged,
    /// The OP refuses the client at present.
    Refused,
    /// The OP accepts the client again.
    Accepted,
}

impl ClientNote {
    /// Creates a note that says nothing about the acceptance. Control characters are replaced, and text beyond 1,000
    /// characters is cut off: the note is for people, and the partition identifies the client.
    pub fn new(partition: Partition, issuer: &str, client_id: &str) -> Self {
        Self { partition, issuer: cleaned(issuer), client_id: cleaned(client_id), acceptance: Acceptance::Unchanged }
    }

    /// Says whether the OP accepts the client.
    #[must_use]
    pub fn acceptance(self, acceptance: Acceptance) -> Self {
        Self { acceptance, ..self }
    }
}

/// What a store knows of a client; see [`Store::known_clients`](super::Store::known_clients).
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownClient {
    /// The client.
    pub partition: Partition,
    /// The issuer of its OP.
    pub issuer: String,
    /// Its client identifier.
    pub client_id: String,
    /// How long ago a poller last noted that the OP refuses the client; `None` if none did, or one has noted since that
    /// the OP accepts it. While the OP refuses it, pollers note that about once a minute.
    pub refused_ago: Option<Duration>,
}

impl KnownClient {
    /// Creates a client that was never refused.
    pub fn new(partition: Partition, issuer: &str, client_id: &str) -> Self {
        Self { partition, issuer: issuer.to_owned(), client_id: client_id.to_owned(), refused_ago: None }
    }
}

fn cleaned(text: &str) -> String {
    let characters = text.chars().take(LONGEST);
    characters.map(|character| if character.is_control() { char::REPLACEMENT_CHARACTER } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_has_no_control_characters_and_a_limited_length() {
        let note = ClientNote::new(Partition(1), "https://op.test/\u{1b}[2J\0", &"x".repeat(5_000));
        assert_eq!(note.issuer, "https://op.test/\u{fffd}[2J\u{fffd}");
        assert_eq!((note.client_id.len(), note.acceptance), (LONGEST, Acceptance::Unchanged));
    }
}
