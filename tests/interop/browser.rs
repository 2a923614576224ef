//! A user's browser: it follows redirects, stores cookies and submits forms until it is sent back to the application.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Certificate, Response, redirect};
use url::Url;

use crate::page::{Form, Page};

/// The user's decision at the OP.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    SignsIn,
    Declines,
}

/// The action on a page.
pub(crate) enum Step {
    Submit(Form),
    Open(Url),
}

/// Returns the user's action on a page of an OP, or `None` for an unknown page.
pub(crate) type Answer = fn(&Page, Decision) -> Option<Step>;

pub(crate) struct Browser {
    http: reqwest::Client,
    /// By name and path.
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    pub(crate) fn new(authority: &str, cookie: Option<&str>) -> Self {
        let mut browser = Self { http: http(authority), cookies: BTreeMap::new() };
        if let Some(cookie) = cookie {
            browser.keep(cookie);
        }
        browser
    }

    /// Opens a page and continues until the user is back at `redirect_uri`. Returns that URL, or the body of the form
    /// that the browser posts there.
    pub(crate) async fn visit(&mut self, url: Url, redirect_uri: &str, answer: Answer, decision: Decision) -> String {
        let mut url = url;
        let mut body = None;
        for _ in 0..20 {
            if url.as_str().starts_with(redirect_uri) {
                return body.unwrap_or_else(|| url.into());
            }
            let response = self.open(&url, body.take()).await;
            let status = response.status();
            let step = match response.headers().get(LOCATION) {
                Some(location) if status.is_redirection() => {
                    let location = location.to_str().expect("a location is text");
                    Step::Open(url.join(location).expect("a location is a URL"))
                }
                _ => {
                    let page = Page::new(url.clone(), response.text().await.unwrap_or_default());
                    let form = page.form(|form| form.action.starts_with(redirect_uri)).map(Step::Submit);
                    let step = form.or_else(|| answer(&page, decision));
                    step.unwrap_or_else(|| {
                        panic!("the user sees an unexpected page at {url} with {status}: {}", page.text())
                    })
                }
            };
            match step {
                Step::Open(next) => url = next,
                Step::Submit(form) => {
                    url = url.join(&form.action).expect("the action of a form is a URL");
                    body = Some(form.body());
                }
            }
        }
        panic!("the browser is sent in circles");
    }

    /// Gets a page, or posts a form to it.
    async fn open(&mut self, url: &Url, body: Option<String>) -> Response {
        let fitting = self.cookies.iter().filter(|((_, path), _)| url.path().starts_with(path.as_str()));
        let cookies: Vec<_> = fitting.map(|((name, _), value)| format!("{name}={value}")).collect();
        let request = match body {
            None => self.http.get(url.clone()),
            Some(body) => {
                self.http.post(url.clone()).header("Content-Type", "application/x-www-form-urlencoded").body(body)
            }
        };
        let request = request.header(COOKIE, cookies.join("; "));
        let response = request.send().await.unwrap_or_else(|error| panic!("the provider answers: {error:?}"));
        for cookie in response.headers().get_all(SET_COOKIE) {
            self.keep(cookie.to_str().expect("a cookie is text"));
        }
        response
    }

    fn keep(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie has a name");
        let attribute = |name: &str| {
            let mut attributes = parts.clone().filter_map(|part| part.split_once('='));
            attributes.find_map(|(key, value)| key.eq_ignore_ascii_case(name).then_some(value))
        };
        let key = (name.to_owned(), attribute("path").unwrap_or("/").to_owned());
        if attribute("max-age") == Some("0") {
            self.cookies.remove(&key);
        } else {
            self.cookies.insert(key, value.to_owned());
        }
    }
}

/// An HTTP client that trusts only this authority and follows no redirects.
pub(crate) fn http(authority: &str) -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([certificate(authority)])
        .redirect(redirect::Policy::none())
        .build()
        .expect("the settings are right")
}

pub(crate) fn certificate(pem: &str) -> Certificate {
    Certificate::from_pem(pem.as_bytes()).expect("the authority is a certificate")
}
