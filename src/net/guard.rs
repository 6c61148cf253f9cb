//! The addresses that the URL of a row or of a webhook may lead to.
//!
//! A client must not reach servers that only this machine can reach. The name is resolved once, and this program
//! connects to the addresses that were checked: a second look-up could find others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

use super::Reach;

/// Why a URL that came from a client is not called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UrlRefusal {
    /// Some other scheme than `http` and `https`.
    #[error("its URL is neither http nor https")]
    Scheme,
    /// A user name or a password in the URL.
    #[error("its URL has a user name or a password in it")]
    Credentials,
    /// The operator does not allow the host.
    #[error("its host is not among those that are allowed")]
    NotListed,
    /// Some other scheme than `https`.
    #[error("its URL does not begin with https://")]
    NotHttps,
    /// The host has only addresses of private networks.
    #[error("its host has no public address")]
    NotPublic,
}

/// Whether a receiver of events may have this URL, as far as the URL shows it: to what a name resolves is checked when
/// the client connects.
///
/// # Errors
/// Why not.
pub fn check_receiver(url: &Url, reach: Reach) -> Result<(), UrlRefusal> {
    if !matches!(url.scheme(), "http" | "https") {
        return Err(UrlRefusal::Scheme);
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(UrlRefusal::Credentials);
    }
    if reach == Reach::Everywhere {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err(UrlRefusal::NotHttps);
    }
    let is_private = match url.host() {
        Some(Host::Ipv4(ip)) => !is_public_v4(ip),
        Some(Host::Ipv6(ip)) => !is_public_v6(ip),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            name == "localhost" || name.ends_with(".localhost")
        }
        None => true,
    };
    if is_private { Err(UrlRefusal::NotPublic) } else { Ok(()) }
}

/// Resolves names to their public addresses.
pub(super) struct PublicOnly;

impl Resolve for PublicOnly {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<SocketAddr> = found.filter(|address| is_public(address.ip())).collect();
            if public.is_empty() {
                return Err(UrlRefusal::NotPublic.into());
            }
            Ok(Box::new(public.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let is_special = match (a, b, c) {
        // This host, multicast and reserved, shared by carriers, protocol assignments, 6to4 relays, benchmarks.
        (0 | 224.., ..) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _) => true,
        _ => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_documentation(),
    };
    !is_special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    match ip.segments() {
        // IPv4 addresses in another form: mapped, and by a translator to IPv4.
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            let [.., a, b, c, d] = ip.octets();
            is_public_v4(Ipv4Addr::new(a, b, c, d))
        }
        // Protocol assignments (Teredo among them), documentation, and 6to4, whose IPv4 address may be any.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2002, ..] => false,
        // Global unicast. Everything else is local, multicast or not given out.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{ClientSettings, causes};

    const PUBLIC: [&str; 16] = [
        "1.1.1.1",
        "8.8.8.8",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2001:4860:4860::8888",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
        "3fff:1000::1",
    ];
    const OTHERS: [&str; 40] = [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.1",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::8.8.8.8",
        "100::1",
        "2001::1",
        "2001:20::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ];

    #[test]
    fn public_addresses_are_told_from_all_others() {
        let taken = |texts: &[&'static str]| -> Vec<&'static str> {
            texts.iter().copied().filter(|text| is_public(text.parse().unwrap())).collect()
        };
        assert_eq!(taken(&PUBLIC), PUBLIC);
        assert_eq!(taken(&OTHERS), Vec::<&str>::new());
    }

    #[test]
    fn the_url_of_a_receiver_is_public_https_unless_private_ones_are_allowed() {
        use UrlRefusal::{Credentials, NotHttps, NotPublic, Scheme};
        type Case = (&'static str, Result<(), UrlRefusal>, Result<(), UrlRefusal>);
        // Without and with the operator's leave. WHATWG's parser, which also the client uses, knows the other forms of
        // an IPv4 address.
        let cases: [Case; 23] = [
            ("https://hooks.example.com/x?key=1", Ok(()), Ok(())),
            ("https://hooks.example.com:8443/", Ok(()), Ok(())),
            ("https://8.8.8.8/", Ok(()), Ok(())),
            ("https://[2606:4700::1111]/", Ok(()), Ok(())),
            ("http://hooks.example.com/", Err(NotHttps), Ok(())),
            ("ftp://hooks.example.com/", Err(Scheme), Err(Scheme)),
            ("file:///etc/passwd", Err(Scheme), Err(Scheme)),
            ("https://user:secret@hooks.example.com/", Err(Credentials), Err(Credentials)),
            ("https://hooks.example.com@127.0.0.1/", Err(Credentials), Err(Credentials)),
            ("https://127.0.0.1/", Err(NotPublic), Ok(())),
            ("https://127.1/", Err(NotPublic), Ok(())),
            ("https://2130706433/", Err(NotPublic), Ok(())),
            ("https://0177.0.0.1/", Err(NotPublic), Ok(())),
            ("https://0x7f.0x0.0x0.0x1/", Err(NotPublic), Ok(())),
            ("https://10.1.2.3/", Err(NotPublic), Ok(())),
            ("https://192.168.0.1./", Err(NotPublic), Ok(())),
            ("https://169.254.169.254/latest/meta-data", Err(NotPublic), Ok(())),
            ("https://[::1]/", Err(NotPublic), Ok(())),
            ("https://[::ffff:10.0.0.1]/", Err(NotPublic), Ok(())),
            ("https://[fd00:ec2::254]/", Err(NotPublic), Ok(())),
            ("https://localhost/", Err(NotPublic), Ok(())),
            ("https://LOCALHOST./", Err(NotPublic), Ok(())),
            ("https://a.localhost/", Err(NotPublic), Ok(())),
        ];
        for (url, public_only, everywhere) in cases {
            let checked =
                [Reach::PublicOnly, Reach::Everywhere].map(|reach| check_receiver(&url.parse().unwrap(), reach));
            assert_eq!(checked, [public_only, everywhere], "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_without_a_public_address_is_not_connected_to() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://localhost:{}/", listener.local_addr().unwrap().port());

        let settings = ClientSettings { reach: Reach::PublicOnly, ..ClientSettings::default() };
        let error = settings.build().unwrap().get(url).send().await.unwrap_err();

        let refusal = causes(&error).find_map(|cause| cause.downcast_ref::<UrlRefusal>());
        assert_eq!(refusal, Some(&UrlRefusal::NotPublic));
    }
}
