//! Hosts in every spelling, patterns, and the screen.

use policies::domain::{Domains, Host, Networks, screen};

fn domains(patterns: &[&str]) -> Domains {
    Domains::parse(patterns.iter().copied()).unwrap()
}
fn allows(patterns: &[&str], host: &str, port: u16) -> bool {
    Host::parse(host).is_ok_and(|h| domains(patterns).allows(&h, port))
}

#[test]
fn patterns_mean_what_they_say() {
    let exact = ["allowed.com"];
    assert!(allows(&exact, "allowed.com", 443));
    assert!(allows(&exact, "ALLOWED.com.", 443));
    for other in ["evilallowed.com", "allowed.com.evil", "sub.allowed.com", "allowed.co", "xallowed.com"] {
        assert!(!allows(&exact, other, 443), "{other}");
    }
    assert!(
        allows(&["*.d.com"], "a.b.d.com", 1) && !allows(&["*.d.com"], "d.com", 1) && !allows(&["*.d.com"], "xd.com", 1)
    );
    assert!(allows(&["**.d.com"], "a.d.com", 1) && allows(&["**.d.com"], "d.com", 1));
    assert!(allows(&["d.com:443"], "d.com", 443) && !allows(&["d.com:443"], "d.com", 80));
}

#[test]
fn an_address_in_any_notation_is_an_address() {
    for text in [
        "127.0.0.1",
        "0x7f.1",
        "017700000001",
        "2130706433",
        "127.1",
        "[::ffff:127.0.0.1]",
        "::ffff:7f00:1",
        "１２７.0.0.1",
    ] {
        assert_eq!(Host::parse(text), Ok(Host::Address([127, 0, 0, 1].into())), "{text}");
        assert!(!allows(&["*.1.com", "allowed.com"], text, 80));
    }
}

#[test]
fn hosts_two_parsers_could_read_differently_are_refused() {
    for text in [
        "attacker\0.allowed.com",
        "a@allowed.com",
        "allowed.com@evil",
        "allowed.com%2eevil.com",
        "%40",
        "a b.com",
        "a\tb.com",
        "allowed.com\n",
        "a..b.com",
        "",
        ".",
        "..",
        "fe80::1%eth0",
        "http://a.com",
        "a.com/b",
        "a\\b.com",
        "[::1",
        "x:80:90",
    ] {
        assert!(Host::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn unicode_hosts_become_their_ascii_form() {
    assert_eq!(Host::parse("bücher.example").unwrap().to_string(), "xn--bcher-kva.example");
    assert!(allows(&["bücher.example"], "xn--bcher-kva.example", 1));
    assert!(allows(&["allowed.com"], "allowed。com", 1), "U+3002 is a dot to every resolver");
    assert!(!allows(&["allowed.com"], "аllowed.com", 1), "Cyrillic a");
}

#[test]
fn the_screen_refuses_what_no_public_name_should_point_at() {
    for bad in [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.200",
        "168.63.129.16",
        "0.0.0.0",
        "0.1.2.3",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.0.192",
        "198.18.0.1",
        "192.0.2.1",
        "::1",
        "::",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::a00:1",
        "2002:a00:1::",
        "2001:0:1::",
        "2001:db8::1",
        "100::1",
        "4000::1",
    ] {
        assert!(screen(bad.parse().unwrap()).is_err(), "{bad}");
    }
    for good in [
        "1.1.1.1",
        "93.184.216.34",
        "100.63.255.255",
        "100.128.0.0",
        "172.32.0.1",
        "2606:4700::1111",
        "64:ff9b::101:101",
    ] {
        assert!(screen(good.parse().unwrap()).is_ok(), "{good}");
    }
}

#[test]
fn networks_aggregate_and_judge_mapped_addresses_as_v4() {
    let nets = |list: &[&str]| Networks::new(list.iter().map(|n| n.parse().unwrap()));
    assert_eq!(nets(&["10.0.0.0/25", "10.0.0.128/25"]), nets(&["10.0.0.0/24"]));
    assert!(nets(&["10.0.0.0/8"]).allows("::ffff:10.1.1.1".parse().unwrap()));
    assert!(!nets(&["10.0.0.0/8"]).allows("11.0.0.1".parse().unwrap()));
    assert_eq!(nets(&["10.0.0.0/8"]).meet(&nets(&["10.1.0.0/16", "11.0.0.0/8"])), nets(&["10.1.0.0/16"]));
}

#[test]
fn display_joins_apex_and_subdomains_again() {
    assert_eq!(domains(&["**.d.com", "x.org:80"]).patterns(), ["**.d.com", "x.org:80"]);
    assert_eq!(domains(&["d.com", "*.d.com"]), domains(&["**.d.com"]));
}
