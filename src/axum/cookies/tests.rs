//! The cookies alone.

use super::*;
use crate::axum::checked_return_path;

const TAG: &str = "AAECAwQFBgcICQoL";

fn cookies_of(keyring: &Keyring) -> SignInCookies {
    SignInCookies::new(keyring.clone())
}

fn id(byte: u8) -> ProcessId {
    ProcessId::from_bytes([byte; 16])
}

/// The name of a session's cookie.
fn session(last: char) -> String {
    format!("__Host-deferred-{}{last}", &TAG[1..])
}

/// The request header for what was set.
fn sent(set: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for cookie in set {
        let pair = cookie.to_str().unwrap().split(';').next().unwrap();
        headers.append(COOKIE, HeaderValue::from_str(pair).unwrap());
    }
    headers
}

#[test]
fn a_sign_in_is_remembered_in_a_cookie_of_this_host() {
    let cookies = cookies_of(&Keyring::ephemeral().unwrap());
    let set = cookies.remember(&HeaderMap::new(), id(1), &session('a')).unwrap();
    let [cookie] = &set[..] else { panic!("{set:?}") };
    let text = cookie.to_str().unwrap();
    assert!(text.starts_with("__Host-sign-in-AECAwQFBgcICQoLa="), "{text}");
    let attributes: std::collections::BTreeSet<_> = text.split("; ").skip(1).collect();
    let expected = ["HttpOnly", "Max-Age=5184000", "Path=/", "SameSite=Lax", "Secure"];
    assert_eq!(attributes.into_iter().collect::<Vec<_>>(), expected);
    assert!(text.len() < 300, "{text}");
    assert_eq!(cookies.sign_ins(&sent(&set)).ids().collect::<Vec<_>>(), [id(1)]);
    assert_eq!(cookies.sign_in_of(&sent(&set), &session('a')), Some(id(1)));
    assert_eq!(cookies.sign_in_of(&sent(&set), &session('b')), None);
}

#[test]
fn the_longest_path_to_return_to_fits_and_a_cookie_without_one_opens() {
    let cookies = cookies_of(&Keyring::ephemeral().unwrap());
    let longest = format!("/{}", "a".repeat(255));
    assert_eq!(checked_return_path(&longest).as_ref(), Some(&longest));
    let set = cookies.remember_with(&HeaderMap::new(), id(1), &session('a'), Some(longest.clone())).unwrap();
    assert_eq!(cookies.sign_ins(&sent(&set)).return_path(id(1)), Some(longest.as_str()));

    // The content as it was written without such a path.
    let tag = format!("{}a", &TAG[1..]);
    let plain = format!(r#"{{"v":1,"id":"{}","at":{}}}"#, id(2), unix_seconds(SystemClock.now()));
    let named: Named = serde_json::from_str(&plain).unwrap();
    assert_eq!(serde_json::to_string(&named).unwrap(), plain);
    let sealed = sealed::seal(&cookies.keyring, &SystemRandom, tag.as_bytes(), &named).unwrap();
    let cookie = format!("__Host-sign-in-{tag}={}", URL_SAFE_NO_PAD.encode(sealed));
    let known = cookies.sign_ins(&sent(&[HeaderValue::try_from(cookie).unwrap()]));
    assert_eq!((known.contains(id(2)), known.return_path(id(2))), (true, None));
}

#[test]
fn forged_renamed_or_expired_cookies_name_no_sign_in() {
    let keyring = Keyring::ephemeral().unwrap();
    let cookies = cookies_of(&keyring);
    let set = cookies.remember(&HeaderMap::new(), id(1), &session('a')).unwrap();
    let (name, value) = set[0].to_str().unwrap().split(';').next().unwrap().split_once('=').unwrap();
    let named = |text: String| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, HeaderValue::from_str(&text).unwrap());
        headers
    };
    let count = |cookies: &SignInCookies, text: String| cookies.sign_ins(&named(text)).ids().count();
    assert_eq!(count(&cookies, format!("{name}={value}")), 1);
    let other = if value.ends_with('A') { "B" } else { "A" };
    for hostile in [
        format!("{name}={}{other}{}", &value[..40], &value[41..]),
        format!("{name}={}", "A".repeat(value.len())),
        format!("{name}="),
        format!("{name}={}", "A".repeat(4_000)),
        format!("{}={value}", name.replace("La", "Lb")),
        format!("{}={value}", name.replace("__Host-", "")),
        format!("__Host-sign-in-short={value}"),
        format!("__Host-sign-in-AECAwQFBgcICQo<a={value}"),
        value.to_owned(),
    ] {
        assert_eq!(count(&cookies, hostile.clone()), 0, "{hostile}");
    }
    let stranger = cookies_of(&Keyring::ephemeral().unwrap());
    assert_eq!(count(&stranger, format!("{name}={value}")), 0, "it was sealed with another key");
    let now = SystemClock.now();
    let headers = named(format!("{name}={value}"));
    assert_eq!(cookies.sign_ins_at(&headers, now + LIFETIME - Duration::from_secs(5)).ids().count(), 1);
    assert_eq!(cookies.sign_ins_at(&headers, now + LIFETIME + Duration::from_secs(5)).ids().count(), 0);
    assert_eq!(cookies.lifetime(Duration::ZERO).sign_ins_at(&headers, now + Duration::from_secs(5)).ids().count(), 0);
}

#[test]
fn a_browser_keeps_eight_sign_ins_and_drops_the_oldest() {
    let cookies = cookies_of(&Keyring::ephemeral().unwrap());
    let seal = |number: u8, at: u64| {
        let tag = format!("{}{}", &TAG[1..], char::from(b'a' + number));
        let named = Named { version: 1, id: id(number), at, return_path: None };
        let sealed = sealed::seal(&cookies.keyring, &SystemRandom, tag.as_bytes(), &named).unwrap();
        HeaderValue::try_from(format!("__Host-sign-in-{tag}={}", URL_SAFE_NO_PAD.encode(sealed))).unwrap()
    };
    let now = unix_seconds(SystemClock.now());
    let known: Vec<_> = (0..8).map(|number| seal(number, now - 100 + u64::from(number))).collect();
    let headers = sent(&known);
    assert_eq!(cookies.sign_ins(&headers).ids().collect::<Vec<_>>(), (0..8).rev().map(id).collect::<Vec<_>>());

    let set = cookies.remember(&headers, id(9), &session('z')).unwrap();
    assert_eq!(set.len(), 2);
    let deleted = set[1].to_str().unwrap();
    assert!(deleted.starts_with("__Host-sign-in-AECAwQFBgcICQoLa=;") && deleted.contains("Max-Age=0"), "{deleted}");
    // The same sign-in again needs no more room.
    assert_eq!(cookies.remember(&headers, id(7), &session('h')).unwrap().len(), 1);
    // A request with very many cookies costs a bounded number of attempts to open them.
    let many: Vec<_> = (0..200).map(|number| seal(number % 26, now)).collect();
    assert_eq!(cookies.sign_ins(&sent(&many)).entries().len(), MOST_OPENED);
}

#[test]
fn a_sign_in_is_forgotten_by_the_cookie_that_names_it() {
    let cookies = cookies_of(&Keyring::ephemeral().unwrap());
    let set = cookies.remember(&HeaderMap::new(), id(1), &session('a')).unwrap();
    let forgotten = cookies.forget(&sent(&set), id(1)).unwrap().unwrap();
    assert!(forgotten.to_str().unwrap().starts_with("__Host-sign-in-AECAwQFBgcICQoLa=; "), "{forgotten:?}");
    assert_eq!(cookies.forget(&sent(&set), id(2)).unwrap(), None);
}

#[test]
fn names_of_other_cookies_set_no_cookie() {
    let cookies = cookies_of(&Keyring::ephemeral().unwrap());
    for name in ["", "__Host-deferred-", "a=b; Domain=evil.example", "__Host-deferred-AAEC\r\nSet-Cookie:", "session"] {
        assert!(cookies.end(name).is_err(), "{name}");
        assert!(cookies.remember(&HeaderMap::new(), id(1), name).is_err(), "{name}");
    }
}

#[test]
fn without_https_cookies_have_neither_prefix_nor_secure_and_those_with_the_prefix_are_not_read() {
    let keyring = Keyring::ephemeral().unwrap();
    let insecure = cookies_of(&keyring).insecure_loopback();
    let set = insecure.remember(&HeaderMap::new(), id(1), &session('a')).unwrap();
    let text = set[0].to_str().unwrap();
    assert!(text.starts_with("sign-in-AECAwQFBgcICQoLa=") && !text.contains("Secure"), "{text}");
    assert!(insecure.sign_ins(&sent(&set)).contains(id(1)));
    assert!(!cookies_of(&keyring).sign_ins(&sent(&set)).contains(id(1)));
}
