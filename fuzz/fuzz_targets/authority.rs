//! The headers `Host` and `Origin`. The input is two lines.
//!
//! What is accepted has one form, which is read back as the same; another reader of authorities accepts it too, with
//! the same host and port; two that are equal to the gateway are equal to that reader.
#![no_main]

use sluice::config::{Authority, Host, Origin, is_loopback_address};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let (one, two) = text.split_once('\n').unwrap_or((text, ""));
    authority(one);
    origin(one);
    if let (Ok(a), Ok(b)) = (Authority::parse(one), Authority::parse(two)) {
        assert_eq!(a == b, a.to_string() == b.to_string(), "{one} and {two}");
    }
    if let (Ok(origin), Ok(authority)) = (Origin::parse(one), Authority::parse(two))
        && origin.is_of(&authority)
    {
        assert!(one.get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("http")), "{one} is a page's of {two}");
        assert_eq!(*origin.host(), authority.host);
    }
});

fn authority(text: &str) {
    let Ok(read) = Authority::parse(text) else { return };
    let form = read.to_string();
    assert_eq!(Authority::parse(&form).as_ref(), Ok(&read), "{text:?} has the form {form:?}");
    assert!(!text.contains(['@', '/', '\\', '?', '#', '%', ' ', '\t']), "{text:?} is accepted");
    assert!(form.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()), "{form:?}");
    let other: http::uri::Authority = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
    if let Host::Name(name) = &read.host {
        let host = other.host().to_ascii_lowercase();
        assert_eq!(&**name, host.strip_suffix('.').unwrap_or(&host));
    }
    if let Some(port) = read.port {
        assert_eq!(other.port_u16(), Some(port));
    }
    if let Host::Address(address) = &read.host {
        assert!(!is_loopback_address(&address.to_string()) || address.is_loopback());
    }
    for scheme in ["http", "https"] {
        let own = Origin::parse(&format!("{scheme}://{text}")).unwrap();
        assert!(own.is_of(&read), "{own} is not of {read}");
        assert!(own.is_of(&read.clone().under(scheme)));
    }
}

fn origin(text: &str) {
    if let Ok(read) = Origin::parse(text) {
        assert_eq!(Origin::parse(&read.to_string()).as_ref(), Ok(&read));
        assert_eq!(Origin::of_url(text).as_ref(), Ok(&read));
        assert_eq!(Origin::of_url(&format!("{text}/a?b#c")).as_ref(), Ok(&read));
    }
}
