//! The forms in which an application passes on an authorization response.

use std::borrow::Cow;

use url::{Position, Url};

/// Where the browser sent the response, as far as the caller says.
#[derive(Default)]
pub(super) enum Arrival {
    /// Only the parameters were given.
    #[default]
    Unsaid,
    /// The path of the request, as HTTP servers see it. A router may have removed its first segments.
    Path(String),
    Url(Url),
}

/// How the place where a response arrived compares with the redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is the redirect URI, or the caller gave the parameters alone.
    Same,
    /// Its path is the end of the redirect URI's path. Either a router stripped a prefix, or the response came to the
    /// shorter redirect URI of another OP. The path alone cannot show which.
    PathSuffix,
    Different,
}

impl Arrival {
    /// Splits a response into the place and the parameters. It may be a query string with or without `?`, a form body,
    /// an absolute URL (also with the scheme of a native application), or a path with a query as in the request line of
    /// HTTP.
    pub(super) fn of(response: &str) -> (Self, Cow<'_, str>) {
        let (place, query) = response.split_once('?').unwrap_or((response, ""));
        if place.starts_with('/') {
            // Browsers do not send the fragment to a server, but applications paste what the address bar shows.
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

    /// Compares the place with this redirect URI. The OP added parameters to it.
    pub(super) fn compared_with(&self, redirect_uri: &str) -> Place {
        let path = match self {
            Self::Unsaid => return Place::Same,
            Self::Path(path) => path,
            Self::Url(url) => {
                let is_same = Url::parse(redirect_uri)
                    .is_ok_and(|registered| url[..Position::AfterPath] == registered[..Position::AfterPath]);
                return if is_same { Place::Same } else { Place::Different };
            }
        };
        let Some(registered) = Url::parse(redirect_uri).ok().filter(|url| !url.cannot_be_a_base()) else {
            return Place::Different;
        };
        let mut arrived = registered.clone();
        arrived.set_path(path);
        if arrived.path() == registered.path() {
            Place::Same
        } else if is_suffix(arrived.path(), registered.path()) {
            Place::PathSuffix
        } else {
            Place::Different
        }
    }
}

/// Where responses to a redirect URI arrive. Parameters do not distinguish two redirect URIs, because only the paths of
/// responses are compared.
#[derive(Debug, Clone)]
pub(crate) struct ArrivalPlace {
    origin: String,
    path: String,
}

impl ArrivalPlace {
    pub(crate) fn of(redirect_uri: &str) -> Self {
        match Url::parse(redirect_uri) {
            Ok(url) => Self { origin: url[..Position::BeforePath].to_owned(), path: url.path().to_owned() },
            Err(_) => Self { origin: redirect_uri.to_owned(), path: String::new() },
        }
    }

    /// The part before the path.
    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// The paths that can remain when a router strips a prefix: the path itself, each end of it that begins with a
    /// slash, and the root. Each is returned once.
    pub(crate) fn ends(&self) -> impl Iterator<Item = &str> {
        let whole = Some(self.path()).filter(|path| !path.starts_with('/'));
        let root = Some("/").filter(|_| !self.path.ends_with('/'));
        let inner = self.path.match_indices('/').filter_map(|(at, _)| self.path.get(at..));
        whole.into_iter().chain(inner).chain(root)
    }
}

/// Whether a router that strips a prefix can make the path of one of these redirect URIs look like that of the other.
#[cfg(test)]
pub(crate) fn can_be_confused(one: &str, other: &str) -> bool {
    let (Ok(one), Ok(other)) = (Url::parse(one), Url::parse(other)) else { return one == other };
    one[..Position::BeforePath] == other[..Position::BeforePath]
        && (one.path() == other.path() || is_suffix(one.path(), other.path()) || is_suffix(other.path(), one.path()))
}

/// Whether a path consists of the last segments of another one. The root is always such a path: a router that serves a
/// single path leaves nothing else of it.
fn is_suffix(path: &str, whole: &str) -> bool {
    path == "/" || (path.starts_with('/') && whole.ends_with(path))
}

/// Whether the part before the first `?` can be a URL. The first parameter of a query string, which has a name and a
/// `=`, is not one.
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
    fn a_query_is_not_read_as_a_url() {
        for response in ["a:b=c&state=a", "state=a:b?c", "state=a&code=urn:x?y", "http=1&state=a"] {
            let (arrival, query) = Arrival::of(response);
            assert!(matches!(arrival, Arrival::Unsaid), "{response}");
            assert_eq!(query, response);
        }
    }

    #[test]
    fn the_path_of_the_request_is_compared_with_the_redirect_uri() {
        let place = |response: &str, redirect_uri: &str| Arrival::of(response).0.compared_with(redirect_uri);
        let here = "https://rp.example/auth/callback";
        for response in ["a=b", "?a=b", "/auth/callback?a=b", "https://rp.example/auth/callback?a"] {
            assert_eq!(place(response, here), Place::Same, "{response}");
        }
        for response in ["/callback?a=b", "/?a=b"] {
            assert_eq!(place(response, here), Place::PathSuffix, "{response}");
        }
        for response in [
            "/other?a=b",
            "/back?a",
            "/auth/callbacks?a",
            "/more/auth/callback?a",
            "https://rp.example/callback?a",
            "https://other.example/auth/callback?a",
        ] {
            assert_eq!(place(response, here), Place::Different, "{response}");
        }
        assert_eq!(place("com.example.app:/cb?a=b", "com.example.app:/cb"), Place::Same);
        assert_eq!(place("com.example.other:/cb?a=b", "com.example.app:/cb"), Place::Different);
        assert_eq!(place("com.example.app:/cb?a=b", here), Place::Different);
        assert_eq!(place("/cb?a=b", "com.example.app:cb"), Place::Different);
    }

    #[test]
    fn redirect_uris_are_ambiguous_if_one_path_is_the_end_of_the_other() {
        let callback = "https://rp.example/callback";
        for other in ["/callback", "/callback?op=2", "/a/callback", "/a/b/callback", "/"] {
            let other = format!("https://rp.example{other}");
            assert!(can_be_confused(callback, &other) && can_be_confused(&other, callback), "{other}");
        }
        for other in ["https://rp.example/callback/a", "https://rp.example/xcallback", "https://a.example/a/callback"] {
            assert!(!can_be_confused(callback, other) && !can_be_confused(other, callback), "{other}");
        }
    }
}
