//! The common parts of all pages, those of the application and those of the OP.

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use maud::{DOCTYPE, Markup, html};

use super::guard;

/// The owner of a page.
#[derive(Clone, Copy)]
pub struct Brand {
    pub name: &'static str,
    pub home: &'static str,
    /// The class of `body`, which selects the colours.
    pub class: &'static str,
}

/// A whole page. `maud` escapes everything that is inserted into its templates, so no text of a user or an OP becomes
/// HTML.
pub struct Page {
    pub brand: Brand,
    pub title: String,
    pub menu: Markup,
    pub body: Markup,
    pub status: StatusCode,
    /// The final origin that a form of this page leads to, if it is not ours.
    pub form_to: Option<String>,
}

impl Page {
    pub fn new(brand: Brand, title: impl Into<String>, body: Markup) -> Self {
        let (title, menu, status) = (title.into(), html! {}, StatusCode::OK);
        Self { brand, title, menu, body, status, form_to: None }
    }
}

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (self.title) " – " (self.brand.name) }
                    link rel="stylesheet" href="/assets/style.css";
                    link rel="icon" href="/assets/icon.svg" type="image/svg+xml";
                    script src="/assets/live.js" defer {}
                }
                body class=(self.brand.class) {
                    a.skip href="#main" { "Skip to the content" }
                    header.bar { div.wide {
                        a.brand href=(self.brand.home) { span.mark aria-hidden="true" {} (self.brand.name) }
                        nav aria-label="Main" { (self.menu) }
                    } }
                    main #main.wide { (self.body) }
                    footer.wide { "A made-up service: the example "
                        code { "web_app" } " of openid-deferred. No real passport is checked." }
                }
            }
        };
        let mut response = (self.status, page).into_response();
        if let Some(origin) = self.form_to {
            response.headers_mut().insert(CONTENT_SECURITY_POLICY, guard::policy_with_form_to(&origin));
        }
        response
    }
}

/// A part of a page. `live.js` replaces it with the content of the stream at `source`.
pub fn live(source: &str, content: Markup) -> Markup {
    html! {
        noscript { p.offline { "Reload this page to see whether anything has changed." } }
        p.offline #offline hidden { "The connection was lost. Trying again, nothing is lost." }
        // Screen readers announce the headline of each change, not the whole page again.
        p.unseen #announcement role="status" {}
        div #live data-live=(source) { (content) }
    }
}

/// Serves the style sheet and the script.
pub fn assets<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let asset = |kind: &'static str, text: &'static str| {
        let headers = [(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=60")];
        get(move || async move { (headers.map(|(name, value)| (name, HeaderValue::from_static(value))), text) })
    };
    Router::new()
        .route("/assets/style.css", asset("text/css; charset=utf-8", include_str!("style.css")))
        .route("/assets/live.js", asset("text/javascript; charset=utf-8", include_str!("live.js")))
        .route("/assets/icon.svg", asset("image/svg+xml", include_str!("icon.svg")))
}
