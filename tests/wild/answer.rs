//! Responses of the OP, made from the files.

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::table::{self, Row};

/// One response, or none.
#[derive(Debug, Clone)]
pub enum Answer {
    Response {
        status: StatusCode,
        headers: HeaderMap,
        body: String,
    },
    /// No connection can be made.
    Nothing,
}

/// The values of the placeholders in a file.
#[derive(Debug, Clone, Default)]
pub struct Values {
    pub state: String,
    pub nonce: String,
    pub id_token: String,
    pub jwt: String,
}

impl Values {
    pub fn fill(&self, text: &str) -> String {
        let filled =
            text.replace("@state@", &self.state).replace("@nonce@", &self.nonce).replace("@id_token@", &self.id_token);
        filled.replace("@jwt@", &self.jwt).replace("@bom@", "\u{feff}")
    }
}

impl Answer {
    /// The answer in the file of a row.
    pub fn of(row: &Row, values: &Values) -> Self {
        let text = values.fill(&table::read(&row.file));
        match row.file.ends_with(".http") {
            true => Self::parse(&text).unwrap_or_else(|| panic!("{}: not an HTTP response", row.file)),
            false => Self::json_text(200, text),
        }
    }

    pub fn json(body: &Value) -> Self {
        Self::json_text(200, body.to_string())
    }

    pub fn not_found() -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("text/html"));
        Self::Response { status: StatusCode::NOT_FOUND, headers, body: "<html>nothing here</html>".to_owned() }
    }

    fn json_text(status: u16, body: String) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        Self::Response { status: StatusCode::from_u16(status).expect("a status"), headers, body }
    }

    /// Parses a response in the format of HTTP, but with line feeds alone.
    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\n\n")?;
        let mut lines = head.lines();
        let status = lines.next()?.strip_prefix("HTTP/1.1 ")?.split(' ').next()?;
        let status = StatusCode::from_u16(status.parse().ok()?).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines {
            let (name, value) = line.split_once(": ")?;
            headers.append(name.parse::<HeaderName>().ok()?, value.parse().ok()?);
        }
        // An empty body is an empty line in the file.
        let body = if body.trim().is_empty() { "" } else { body };
        Some(Self::Response { status, headers, body: body.to_owned() })
    }
}
