use proptest::prelude::*;

use super::*;

const PUBLIC: [&str; 20] = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.0",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:200::1",
    "::ffff:8.8.8.8",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
];

const NOT_PUBLIC: [&str; 57] = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.0",
    "10.255.255.255",
    "100.64.0.0",
    "100.100.100.200",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.255",
    "169.254.0.0",
    "169.254.169.254",
    "172.16.0.0",
    "172.31.255.255",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.0.1",
    "192.168.255.255",
    "198.18.0.0",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::8.8.8.8",
    "::ffff:0.0.0.0",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:7f00:1",
    "64:ff9b::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::1",
    "100::1",
    "1fff:ffff::1",
    "2001::1",
    "2001:0:7f00:1::",
    "2001:10::1",
    "2001:1ff::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2002:a9fe:a9fe::",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fec0::1",
    "ff02::1",
];

fn url(url: &str) -> Url {
    Url::parse(url).unwrap()
}

fn literal(address: &str) -> Url {
    url(&if address.contains(':') { format!("https://[{address}]/") } else { format!("https://{address}/") })
}

fn policy(private_addresses: PrivateAddresses) -> UrlPolicy {
    UrlPolicy { allow_insecure_loopback: false, private_addresses }
}

const DEFAULT: PrivateAddresses = PrivateAddresses::RefusedInDocuments;

fn issuer() -> Url {
    url("https://op.example/tenant")
}

#[test]
fn the_addresses_of_the_internet_are_public_and_all_special_ones_are_not() {
    for address in PUBLIC {
        assert!(is_public(address.parse().unwrap()), "{address}");
    }
    for address in NOT_PUBLIC {
        assert!(!is_public(address.parse().unwrap()), "{address}");
    }
}

proptest! {
    #[test]
    fn special_addresses_of_the_standard_library_are_never_public(bits: u128) {
        let (v4, v6) = (Ipv4Addr::from_bits(bits as u32), Ipv6Addr::from_bits(bits));
        let special = v4.is_private() || v4.is_loopback() || v4.is_link_local() || v4.is_broadcast();
        prop_assert!(!(is_public_v4(v4) && (special || v4.is_documentation() || v4.is_multicast())));
        let special = v6.is_loopback() || v6.is_unspecified() || v6.is_multicast();
        prop_assert!(!(is_public_v6(v6) && (special || v6.is_unique_local() || v6.is_unicast_link_local())));
    }

    #[test]
    fn an_embedded_ipv4_address_is_treated_like_the_address_itself(bits: u32) {
        let address = Ipv4Addr::from_bits(bits);
        prop_assert_eq!(is_public_v6(address.to_ipv6_mapped()), is_public_v4(address));
        let translated = Ipv6Addr::from_bits(0x64_ff9b << 96 | u128::from(bits));
        prop_assert_eq!(is_public_v6(translated), is_public_v4(address));
        let six_to_four = Ipv6Addr::from_bits(0x2002 << 112 | u128::from(bits) << 80 | 1);
        prop_assert_eq!(is_public_v6(six_to_four), is_public_v4(address));
        prop_assert!(!is_public_v6(address.to_ipv6_compatible()));
    }
}

#[test]
fn a_document_cannot_name_a_private_address_in_any_spelling() {
    for address in NOT_PUBLIC {
        let checked = policy(DEFAULT).check_named_by(&issuer(), &literal(address));
        assert_eq!(checked, Err(UrlProblem::Private), "{address}");
    }
    for spelling in [
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://017700000001/",
        "https://2130706433/",
        "https://127.1/",
        "https://127.0.0.1./",
        "https://127.0.0.1:8443/",
        "https://%31%32%37.0.0.1/",
        "https://\u{ff11}\u{ff12}\u{ff17}.0.0.1/",
        "https://127\u{3002}0\u{3002}0\u{3002}1/",
        "https:\\\\127.0.0.1\\token",
        "https://0/",
        "https://0xa9fea9fe/",
        "https://[::ffff:127.0.0.1]/",
        "https://[0:0:0:0:0:ffff:7f00:1]/",
        "https://[::1]:8443/",
        "https://localhost/",
        "https://LOCALHOST:8443/",
        "https://localhost./",
        "https://db.localhost/",
        "https://db.localhost./",
        "https://l\u{24de}calhost/",
    ] {
        assert_eq!(policy(DEFAULT).check_named_by(&issuer(), &url(spelling)), Err(UrlProblem::Private), "{spelling}");
    }
}

#[test]
fn a_document_may_name_public_addresses_and_other_names() {
    for address in PUBLIC {
        assert_eq!(policy(DEFAULT).check_named_by(&issuer(), &literal(address)), Ok(()), "{address}");
    }
    for named in [
        "https://op.example/token",
        "https://op.example./token",
        "https://op.example:8443/token",
        "https://keycloak/token",
        "https://op.corp.internal/token",
        "https://localhost.example/token",
        "https://notlocalhost/token",
        "https://127.0.0.1.example/token",
    ] {
        assert_eq!(policy(DEFAULT).check_named_by(&issuer(), &url(named)), Ok(()), "{named}");
    }
}

#[test]
fn a_user_name_or_password_is_refused_before_the_address_is_checked() {
    for text in ["https://127.0.0.1@op.example/", "https://op.example@127.0.0.1/", "https://:secret@op.example/"] {
        for rule in [DEFAULT, PrivateAddresses::Allowed, PrivateAddresses::Refused] {
            assert_eq!(policy(rule).check_named_by(&issuer(), &url(text)), Err(UrlProblem::Insecure), "{text}");
            assert_eq!(policy(rule).check_own(&url(text)), Err(UrlProblem::Insecure), "{text}");
        }
    }
}

#[test]
fn the_host_that_the_application_named_may_be_private_and_only_that_one() {
    let policy = policy(DEFAULT);
    let issuer = url("https://10.0.0.5/realms/a");
    assert_eq!(policy.check_own(&issuer), Ok(()));
    for own in ["https://10.0.0.5/token", "https://10.0.0.5:8443/token", "https://0x0a.5/token"] {
        assert_eq!(policy.check_named_by(&issuer, &url(own)), Ok(()), "{own}");
    }
    for other in ["https://10.0.0.6/", "https://127.0.0.1/", "https://localhost/", "https://[::ffff:10.0.0.5]/"] {
        assert_eq!(policy.check_named_by(&issuer, &url(other)), Err(UrlProblem::Private), "{other}");
    }
    assert_eq!(policy.check_named_by(&issuer, &url("http://10.0.0.5/token")), Err(UrlProblem::Insecure));
}

#[test]
fn the_application_can_allow_all_addresses_or_refuse_even_its_own() {
    for address in NOT_PUBLIC {
        let url = literal(address);
        assert_eq!(policy(PrivateAddresses::Allowed).check_named_by(&issuer(), &url), Ok(()), "{address}");
        assert_eq!(policy(PrivateAddresses::Refused).check_named_by(&url, &url), Err(UrlProblem::Private), "{address}");
        assert_eq!(policy(PrivateAddresses::Refused).check_own(&url), Err(UrlProblem::Private), "{address}");
        assert_eq!(policy(DEFAULT).check_own(&url), Ok(()), "{address}");
    }
}

#[test]
fn plain_http_is_only_for_this_machine_and_only_if_allowed() {
    for rule in [DEFAULT, PrivateAddresses::Allowed, PrivateAddresses::Refused] {
        let refuses = policy(rule);
        let allows = UrlPolicy { allow_insecure_loopback: true, ..refuses };
        for here in
            ["http://127.0.0.1:8080/", "http://127.9.9.9/", "http://[::1]/", "http://localhost/", "http://LOCALHOST/"]
        {
            assert_eq!(allows.check_own(&url(here)), Ok(()), "{here}");
            assert_eq!(allows.check_named_by(&issuer(), &url(here)), Ok(()), "{here}");
            assert_eq!(refuses.check_own(&url(here)), Err(UrlProblem::Insecure), "{here}");
            assert_eq!(refuses.check_named_by(&issuer(), &url(here)), Err(UrlProblem::Insecure), "{here}");
        }
        for elsewhere in
            ["http://op.example/", "http://localhost.example/", "http://10.0.0.1/", "http://[::ffff:7f00:1]/"]
        {
            assert_eq!(allows.check_own(&url(elsewhere)), Err(UrlProblem::Insecure), "{elsewhere}");
        }
        for scheme in ["ftp://op.example/", "data:,x", "file:///etc/passwd", "gopher://127.0.0.1/", "unix:/run/x"] {
            assert_eq!(allows.check_own(&url(scheme)), Err(UrlProblem::Insecure), "{scheme}");
        }
    }
}

#[test]
fn allowing_this_machine_allows_no_other_private_address() {
    for private_addresses in [DEFAULT, PrivateAddresses::Refused] {
        let policy = UrlPolicy { allow_insecure_loopback: true, private_addresses };
        assert_eq!(policy.check_named_by(&issuer(), &url("https://127.0.0.1/")), Ok(()));
        for other in ["https://10.0.0.1/", "https://169.254.169.254/", "https://db.localhost/", "https://0.0.0.0/"] {
            assert_eq!(policy.check_named_by(&issuer(), &url(other)), Err(UrlProblem::Private), "{other}");
        }
    }
}
