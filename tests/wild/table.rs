//! The table `expectations.json`, and the files that it describes.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

/// The kind of a file, which is the name of its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Discovery,
    Keys,
    Pushed,
    Callback,
    Exchange,
    Poll,
    Refresh,
    Claims,
    UserInfo,
}

impl Kind {
    pub const ALL: [Self; 9] = [
        Self::Discovery,
        Self::Keys,
        Self::Pushed,
        Self::Callback,
        Self::Exchange,
        Self::Poll,
        Self::Refresh,
        Self::Claims,
        Self::UserInfo,
    ];

    fn folder(self) -> &'static str {
        match self {
            Self::Discovery => "discovery",
            Self::Keys => "keys",
            Self::Pushed => "pushed",
            Self::Callback => "callback",
            Self::Exchange => "exchange",
            Self::Poll => "poll",
            Self::Refresh => "refresh",
            Self::Claims => "claims",
            Self::UserInfo => "userinfo",
        }
    }
}

/// The source from which the shape of a file is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A public report about a client or an OP.
    Report,
    /// The documentation of an OP.
    Documentation,
    /// A test of an OP.
    Measurement,
    /// None of these: the oddity of another file in another place.
    Variation,
}

/// The required result for one file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    pub file: String,
    pub source: Source,
    /// The OPs that send this. A variation was seen at none.
    pub seen_at: Option<String>,
    /// The oddity, and the reason for the required result.
    pub why: String,
    /// The verdict, in the words of `verdict.rs`.
    pub expect: String,
    /// The issuer in the client's settings, for discovery documents.
    pub issuer: Option<String>,
    /// The path of the discovery document, if it differs from the one that the issuer implies.
    pub served_at: Option<String>,
    /// Whether a valid document is at the path of RFC 8414.
    #[serde(default)]
    pub fallback: bool,
    #[serde(default)]
    pub settings: Settings,
    /// Members of the discovery document that differ from the usual ones.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// How the JWT of this row is signed, if not in the usual way.
    pub sign: Option<Sign>,
    /// Claims of `@id_token@` that differ from the usual ones.
    #[serde(default)]
    pub id_token: Map<String, Value>,
    /// Claims that `@id_token@` lacks.
    #[serde(default)]
    pub without: Vec<String>,
    /// The claims of `@jwt@`.
    pub jwt: Option<Value>,
    /// The key set that the OP had when the client was made.
    pub known_before: Option<Value>,
    /// The results of the claims' accessors.
    #[serde(default)]
    pub accessors: Map<String, Value>,
    /// The claims that are passed on although they have an invalid type.
    #[serde(default)]
    pub malformed: Vec<String>,
    /// The results of the tokens' accessors.
    #[serde(default)]
    pub tokens: Map<String, Value>,
    /// After an error of an exchange: whether the code is `spent` or `unspent`.
    pub code: Option<String>,
    /// The state of the interim ID Token.
    pub interim: Option<String>,
    /// After a transient error: whether the OP's answer may have been lost.
    pub lost: Option<bool>,
    /// Whether the tokens of the answer are revoked.
    #[serde(default)]
    pub revoked: bool,
}

/// The application's settings.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    #[serde(default)]
    pub allow_unadvertised: bool,
    /// `secret` unless set; or `key`.
    pub credential: Option<String>,
    pub dpop: Option<bool>,
    pub id_token_signed_response_alg: Option<String>,
    #[serde(default)]
    pub trusted_audiences: Vec<String>,
    pub max_age: Option<u64>,
    pub essential_acr: Option<String>,
}

/// A JWT is signed with this key of `private_keys.json`, by this algorithm, under this header.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sign {
    pub key: String,
    pub alg: String,
    pub header: Value,
}

impl Row {
    pub fn kind(&self) -> Kind {
        let folder = self.file.split('/').next().unwrap_or_default();
        let kind = Kind::ALL.into_iter().find(|kind| kind.folder() == folder);
        kind.unwrap_or_else(|| panic!("{}: no kind has such a folder", self.file))
    }
}

pub fn rows() -> Vec<Row> {
    serde_json::from_str(&read("expectations.json")).expect("the table has the shape of its type")
}

/// The files of all kinds, by their names in the table.
pub fn files() -> BTreeSet<String> {
    let mut files = BTreeSet::new();
    for entry in fs::read_dir(folder()).expect("the folder can be read") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            let inside = fs::read_dir(&path).expect("the folder can be read");
            files.extend(inside.map(|entry| name(&entry.expect("the folder can be read").path())));
        }
    }
    files
}

pub fn read(file: &str) -> String {
    fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn name(path: &Path) -> String {
    let name = path.strip_prefix(folder()).expect("the file is in the folder");
    name.to_str().expect("names of files are ASCII").replace('\\', "/")
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wild")
}
