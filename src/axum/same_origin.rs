//! The refusal of forms from other sites.

use http::HeaderMap;
use http::header::ORIGIN;

use crate::error::{ProblemDetails, ProblemType};

/// Checks that a browser sent a request from a page of this application, against cross-site request forgery.
///
/// Call it for every request that changes something, before anything else. `origin` is that of the application, such as
/// `https://rp.example`. Browsers say in `Sec-Fetch-Site` where a request comes from, and a page cannot change it. Browsers
/// without it send `Origin`. A request with neither is refused, so this is for routes of browsers only.
///
/// A form of another host of the same site (`same-site`) is refused too. It does not check who the user is. Under
/// `Referrer-Policy: no-referrer` browsers send `Origin: null`, so such requests from browsers without `Sec-Fetch-Site`
/// are refused.
///
/// # Errors
///
/// The [problem](ProblemType::CrossSite) to answer with.
pub fn check_same_origin(headers: &HeaderMap, origin: &str) -> Result<(), ProblemDetails> {
    let one = |name: &str| {
        let mut values = headers.get_all(name).iter();
        let value = values.next()?;
        // Two values contradict each other.
        Some(if values.next().is_none() { value.as_bytes() } else { b"" })
    };
    let is_ours = match one("sec-fetch-site") {
        Some(site) => site == b"same-origin",
        None => one(ORIGIN.as_str()).is_some_and(|stated| stated == origin.as_bytes()),
    };
    if is_ours { Ok(()) } else { Err(ProblemType::CrossSite.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ours(headers: &[(&'static str, &'static str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        check_same_origin(&map, "https://rp.example").is_ok()
    }

    #[test]
    fn only_pages_of_the_same_origin_may_send_forms() {
        assert!(is_ours(&[("sec-fetch-site", "same-origin")]));
        assert!(is_ours(&[("sec-fetch-site", "same-origin"), ("origin", "null")]), "under `no-referrer`");
        assert!(is_ours(&[("origin", "https://rp.example")]));
        for site in ["cross-site", "same-site", "none", "", "same-origin, same-origin"] {
            assert!(!is_ours(&[("sec-fetch-site", site), ("origin", "https://rp.example")]), "{site}");
        }
        for origin in ["null", "https://rp.example.evil", "http://rp.example", "https://rp.example:8443", ""] {
            assert!(!is_ours(&[("origin", origin)]), "{origin}");
        }
        assert!(!is_ours(&[]));
        assert!(!is_ours(&[("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]));
        assert!(!is_ours(&[("origin", "https://rp.example"), ("origin", "https://evil.example")]));
    }
}
