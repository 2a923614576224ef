//! A user's browser: it follows redirects and keeps cookies until it is sent back to the application.

use std::collections::BTreeMap;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Certificate, Response, redirect};
use url::Url;

pub(crate) struct Browser {
    http: reqwest::Client,
    /// By name and path.
    cookies: BTreeMap<(String, String), String>,
}

impl Browser {
    pub(crate) fn new(authority: &str) -> Self {
        let authority = Certificate::from_pem(authority.as_bytes()).expect("the authority is a certificate");
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([authority])
            .redirect(redirect::Policy::none())
            .build()
            .expect("the settings are right");
        Self { http, cookies: BTreeMap::new() }
    }

    /// Opens a page and goes wherever it leads, up to where the user is back at `redirect_uri`: that URL, or the form
    /// that the browser posts there.
    pub(crate) async fn visit(&mut self, url: Url, redirect_uri: &str) -> String {
        let mut url = url;
        for _ in 0..20 {
            if url.as_str().starts_with(redirect_uri) {
                return url.into();
            }
            let response = self.open(&url).await;
            let status = response.status();
            match response.headers().get(LOCATION) {
                Some(location) if status.is_redirection() => {
                    url = url.join(location.to_str().expect("a location is text")).expect("a location is a URL");
                }
                _ => {
                    let page = response.text().await.unwrap_or_default();
                    return form(&page, redirect_uri)
                        .unwrap_or_else(|| panic!("the user sees a page with status {status}: {page}"));
                }
            }
        }
        panic!("the browser is sent in circles");
    }

    async fn open(&mut self, url: &Url) -> Response {
        let fitting = self.cookies.iter().filter(|((_, path), _)| url.path().starts_with(path.as_str()));
        let cookies: Vec<_> = fitting.map(|((name, _), value)| format!("{name}={value}")).collect();
        let request = self.http.get(url.clone()).header(COOKIE, cookies.join("; "));
        let response = request.send().await.expect("the provider answers");
        for cookie in response.headers().get_all(SET_COOKIE) {
            self.keep(cookie.to_str().expect("a cookie is text"));
        }
        response
    }

    fn keep(&mut self, cookie: &str) {
        let mut parts = cookie.split(';').map(str::trim);
        let (name, value) = parts.next().and_then(|pair| pair.split_once('=')).expect("a cookie has a name");
        let path = parts.find_map(|part| part.strip_prefix("path=")).unwrap_or("/");
        self.cookies.insert((name.to_owned(), path.to_owned()), value.to_owned());
    }
}

/// The body of the form on a page that submits itself (OAuth 2.0 Form Post Response Mode).
fn form(page: &str, action: &str) -> Option<String> {
    page.split_once(&format!("<form method=\"post\" action=\"{action}\">"))?;
    let mut body = form_urlencoded::Serializer::new(String::new());
    for input in page.split("<input type=\"hidden\" name=\"").skip(1) {
        let (name, rest) = input.split_once("\" value=\"")?;
        let (value, _) = rest.split_once('"')?;
        // A code, a state and an issuer have nothing else that has to be escaped.
        body.append_pair(name, &value.replace("&amp;", "&"));
    }
    Some(body.finish())
}
