//! HTML pages, with the parts that a user who fills in forms needs.

use std::collections::BTreeMap;

use url::Url;

pub(crate) struct Page {
    url: Url,
    text: String,
}

/// A form and the fields that it submits.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) id: String,
    pub(crate) action: String,
    pub(crate) fields: BTreeMap<String, String>,
}

impl Page {
    pub(crate) fn new(url: Url, text: String) -> Self {
        Self { url, text }
    }

    pub(crate) fn url(&self) -> &Url {
        &self.url
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The first form that matches.
    pub(crate) fn form(&self, wanted: impl Fn(&Form) -> bool) -> Option<Form> {
        self.forms().into_iter().find(wanted)
    }

    fn forms(&self) -> Vec<Form> {
        let mut forms: Vec<Form> = Vec::new();
        let mut inside = false;
        for tag in self.text.split('<').skip(1) {
            let (name, rest) =
                tag.split_at(tag.find(|c: char| !c.is_ascii_alphabetic() && c != '/').unwrap_or(tag.len()));
            let attributes = attributes(rest);
            let attribute = |name: &str| attributes.get(name).cloned().unwrap_or_default();
            match name.to_ascii_lowercase().as_str() {
                "form" => {
                    inside = true;
                    forms.push(Form { id: attribute("id"), action: attribute("action"), fields: BTreeMap::new() });
                }
                "/form" => inside = false,
                // A button counts only if it is pressed.
                "input" if inside && attribute("type") != "submit" => {
                    if let Some(form) = forms.last_mut()
                        && let Some(name) = attributes.get("name")
                    {
                        form.fields.insert(name.clone(), attribute("value"));
                    }
                }
                _ => {}
            }
        }
        forms
    }
}

impl Form {
    /// The form with these fields filled in.
    pub(crate) fn with<const N: usize>(mut self, fields: [(&str, &str); N]) -> Self {
        self.fields.extend(fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
        self
    }

    /// The body that the browser posts.
    pub(crate) fn body(&self) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(&self.fields).finish()
    }
}

/// The attributes at the beginning of a text up to the end of the tag, with unescaped values.
fn attributes(mut rest: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        let end = rest.find(|c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>')).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return found;
        }
        let after = after.trim_start();
        let Some(value) = after.strip_prefix('=').map(str::trim_start) else {
            found.insert(name.to_ascii_lowercase(), String::new());
            rest = after;
            continue;
        };
        let quote = value.chars().next().filter(|first| matches!(first, '"' | '\''));
        let (value, after) = match quote {
            Some(quote) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            None => value.split_at(value.find(|c: char| c.is_ascii_whitespace() || c == '>').unwrap_or(value.len())),
        };
        found.insert(name.to_ascii_lowercase(), unescaped(value));
        rest = after;
    }
}

/// Replaces the character references that OPs use in attribute values.
fn unescaped(value: &str) -> String {
    [
        ("&quot;", "\""),
        ("&#34;", "\""),
        ("&#39;", "'"),
        ("&#43;", "+"),
        ("&#61;", "="),
        ("&#x2F;", "/"),
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(value.to_owned(), |value, (reference, character)| value.replace(reference, character))
}

#[test]
fn forms_are_read_with_their_fields() {
    let page = Page::new(
        Url::parse("https://op.test/").unwrap(),
        "<html><input name=outside><FORM id=\"login\" onsubmit=\"go(); return true;\" action='/a?b=1&amp;c=2' \
         method=\"post\"><input type=\"hidden\" name=\"state\" value=\"a&quot;b\"/><input name=user>\
         <input type=submit name=cancel value=No></form><form action=/other></form>"
            .to_owned(),
    );
    let form = page.form(|form| form.id == "login").unwrap().with([("user", "user-1")]);
    assert_eq!(form.action, "/a?b=1&c=2");
    assert_eq!(form.body(), "state=a%22b&user=user-1");
    assert!(page.form(|form| form.action == "/other").unwrap().fields.is_empty());
}
