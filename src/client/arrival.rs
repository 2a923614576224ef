//! The forms in which an application hands over what the browser brought back.

use std::borrow::Cow;

use url::{Position, Url};

/// Where the browser brought the response, as far as the caller says.
#[derive(Default)]
pub(super) enum Arrival {
    /// Only the parameters were given.
    #[default]
    Unsaid,
    /// The path of the request, as HTTP servers have it. A router may have taken its first segments off.
    Path(String),
    Url(Url),
}

impl Arrival {
    /// Takes a response apart into the place and the parameters. It is a query string, with or without `?`, a form body,
    /// an absolute URL, with a scheme of a native application too, or what the request line of HTTP has: a path with a
    /// query.
    pub(super) fn of(response: &str) -> (Self, Cow<'_, str>) {
        let (place, query) = response.split_once('?').unwrap_or((response, ""));
        if place.starts_with('/') {
            // A fragment never gets to a server, but applications paste what the address bar shows.
            let query = query.split('#').next().unwrap_or_default();
            return (Self::Path(place.to_owned()), query.into());
        }
        if is_url(place)
            && let Ok(url) = Url::parse(response)
        {
            let query = url.query().unwrap_or_default().to_owned();
            return (Self::Url(url), query.into());
        }
        (Self::Unsaid, response.strip_prefix('?').unwrap_or(response).into())
    }

    /// Whether it is somewhere else than at this redirect URI, which may have got parameters.
    pub(super) fn is_elsewhere(&self, redirect_uri: &str) -> bool {
        let Ok(mut registered) = Url::parse(redirect_uri) else { return !matches!(self, Self::Unsaid) };
        match self {
            Self::Unsaid => false,
            Self::Url(url) => url[..Position::AfterPath] != registered[..Position::AfterPath],
            Self::Path(path) => {
                let whole = registered.path().to_owned();
                registered.set_path(path);
                // The root of a router that serves one path alone.
                path != "/" && !whole.ends_with(registered.path())
            }
        }
    }
}

/// Whether what stands before the first `?` can be a URL and not the first parameter of a query string, which has a name
/// and a `=`.
fn is_url(place: &str) -> bool {
    if place.starts_with("https://") || place.starts_with("http://") {
        return true;
    }
    let Some((scheme, _)) = place.split_once(':') else { return false };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+-.".contains(character));
    is_scheme && !place.contains(['=', '&'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_found_in_every_form() {
        for response in [
            "state=a&code=b%3F",
            "?state=a&code=b%3F",
            "/callback?state=a&code=b%3F",
            "/callback?state=a&code=b%3F#_=_",
            "https://rp.example/callback?state=a&code=b%3F",
            "https://rp.example/a=b/callback?state=a&code=b%3F#_=_",
            "com.example.app:/cb?state=a&code=b%3F",
            "com.example.app://cb?state=a&code=b%3F",
            "com.example.app:cb?state=a&code=b%3F",
        ] {
            assert_eq!(Arrival::of(response).1, "state=a&code=b%3F", "{response}");
        }
    }

    #[test]
    fn what_is_a_query_is_not_taken_for_a_url() {
        for response in ["a:b=c&state=a", "state=a:b?c", "state=a&code=urn:x?y", "http=1&state=a"] {
            let (arrival, query) = Arrival::of(response);
            assert!(matches!(arrival, Arrival::Unsaid), "{response}");
            assert_eq!(query, response);
        }
    }

    #[test]
    fn a_place_is_compared_with_the_redirect_uri() {
        let elsewhere = |response: &str, redirect_uri: &str| Arrival::of(response).0.is_elsewhere(redirect_uri);
        let here = "https://rp.example/auth/callback";
        for response in
            ["a=b", "?a=b", "/auth/callback?a=b", "/callback?a=b", "/?a=b", "https://rp.example/auth/callback?a"]
        {
            assert!(!elsewhere(response, here), "{response}");
        }
        for response in [
            "/other?a=b",
            "/auth/callbacks?a",
            "https://rp.example/callback?a",
            "https://other.example/auth/callback?a",
        ] {
            assert!(elsewhere(response, here), "{response}");
        }
        assert!(!elsewhere("com.example.app:/cb?a=b", "com.example.app:/cb"));
        assert!(elsewhere("com.example.other:/cb?a=b", "com.example.app:/cb"));
        assert!(elsewhere("com.example.app:/cb?a=b", here));
    }
}
