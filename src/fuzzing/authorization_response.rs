//! Responses from the browser: a query string, a form body, or the whole URL.

use url::Url;

use super::world::{
    ISSUER, REDIRECT_URI, STATE, Site, World, check_debug, check_error, keyring, run, sealed, session_json,
};
use crate::client::AuthorizationSession;
use crate::keyring::Purpose;

/// The first byte selects the request. The rest is the response.
pub fn authorization_response(input: &[u8]) {
    let Some((choice, response)) = input.split_first() else { return };
    let (asked_for, iss_required) = (["d", "dc", "c"][usize::from(choice & 3) % 3], choice & 4 != 0);
    let response = &*String::from_utf8_lossy(response);
    let mut session = session_json();
    session["rt"] = asked_for.into();
    session["ir"] = iss_required.into();
    // Restoring the key takes as long as everything else.
    session.as_object_mut().unwrap().remove("key");
    let bytes = sealed(Purpose::AuthorizationSession, &[], session.to_string().as_bytes());
    let sealed = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, bytes);
    let mut session = AuthorizationSession::open(&keyring(), &sealed).unwrap();
    let cookie = session.cookie_name();

    let world = World::new(Site::default());
    let client = world.with_secret().build().unwrap();
    let checked = run(client.check_authorization_response(response, &mut session));
    assert_eq!(world.site.requests(), 0);
    let expected = expected(response, asked_for, iss_required);
    match checked {
        Ok(grant) => {
            check_debug(&grant);
            assert_eq!(Some(grant.is_deferred()), expected, "{response:?}");
            assert!(!grant.is_spent());
            assert_eq!(AuthorizationSession::cookie_name_for(response), Some(cookie), "{response:?}");
        }
        Err(error) => {
            check_error(&error);
            assert_eq!(expected, None, "{response:?} was refused: {error}");
        }
    }
}

/// A second implementation of the rules: whether the response is valid, and if so, whether its code is a deferred one.
fn expected(response: &str, asked_for: &str, iss_required: bool) -> Option<bool> {
    if response.len() > 16 * 1024 {
        return None;
    }
    let place = response.split('?').next().unwrap_or_default();
    let is_web = ["https://", "http://"].iter().any(|scheme| response.starts_with(scheme));
    let scheme = place.split_once(':').map_or("", |(scheme, _)| scheme);
    let has_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    let is_url = is_web || (has_scheme && !place.contains(['=', '&']));
    let url = is_url.then(|| Url::parse(response));
    let mut is_suffix = false;
    let query = match &url {
        Some(Ok(url)) => {
            let mut bare = url.clone();
            bare.set_query(None);
            bare.set_fragment(None);
            if bare.as_str() != REDIRECT_URI {
                return None;
            }
            url.query().unwrap_or_default()
        }
        _ if place.starts_with('/') => {
            if !matches!(place, "/" | "/callback") {
                return None;
            }
            is_suffix = place == "/";
            response.split_once('?').map_or("", |(_, query)| query).split('#').next().unwrap_or_default()
        }
        _ => response.strip_prefix('?').unwrap_or(response),
    };
    let mut pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    pairs.retain(|(_, value)| !value.is_empty());
    let values = |name: &str| pairs.iter().filter(|pair| pair.0 == name).map(|pair| &*pair.1).collect::<Vec<_>>();
    let none = |name| values(name).is_empty();
    let iss_fits = match *values("iss") {
        [] => !iss_required && !is_suffix,
        [iss] => iss == ISSUER,
        _ => false,
    };
    let alone = ["error", "id_token", "access_token"].into_iter().all(none) && values("error_description").len() <= 1;
    if *values("state") != [STATE] || !iss_fits || !alone {
        return None;
    }
    let (deferred, code) = match (&*values("deferred_code"), &*values("code")) {
        ([code], []) if asked_for != "c" => (true, *code),
        ([], [code]) if asked_for != "d" => (false, *code),
        _ => return None,
    };
    let is_code = (1..=4096).contains(&code.len()) && code.chars().all(|c| (' '..='~').contains(&c));
    is_code.then_some(deferred)
}
