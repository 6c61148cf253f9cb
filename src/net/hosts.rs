//! The hosts that rows may name, as the operator lists them.

use std::str::FromStr;

use url::{Host, Url};

use super::guard::UrlRefusal;

/// The hosts that rows may name. An empty list allows none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedHosts(Vec<AllowedHost>);

/// One entry: `mcp.example.com`, `*.example.com` (all names below the domain, not the domain), `127.0.0.1` or `[::1]`,
/// each with or without a port. Without a port, every port is allowed. A private address is allowed only by an entry
/// that is the address itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowedHost {
    pattern: Pattern,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exactly(Host),
    /// The domain with a dot in front.
    Below(String),
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// A URL, or a host with a path.
    #[error("a host is wanted, such as `mcp.example.com`, `*.example.com` or `127.0.0.1:3001`, and no URL")]
    Url,
    /// Not a valid port.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// A `*` in a place where it is not allowed.
    #[error("`*.` can only stand before a domain, such as `*.example.com`")]
    Wildcard,
    /// Neither a name nor an address.
    #[error("the host is not valid: {0}")]
    Host(#[from] url::ParseError),
}

impl AllowedHosts {
    /// Whether an entry matches the URL's host and port.
    #[must_use]
    pub fn allows(&self, url: &Url) -> bool {
        self.0.iter().any(|entry| entry.matches(url))
    }

    /// Whether a URL that came with a row may be called.
    pub fn check(&self, url: &Url) -> Result<(), UrlRefusal> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(UrlRefusal::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(UrlRefusal::Credentials);
        }
        if self.allows(url) { Ok(()) } else { Err(UrlRefusal::NotListed) }
    }
}

impl FromIterator<AllowedHost> for AllowedHosts {
    fn from_iter<T: IntoIterator<Item = AllowedHost>>(entries: T) -> Self {
        Self(entries.into_iter().collect())
    }
}

impl AllowedHost {
    fn matches(&self, url: &Url) -> bool {
        let is_host = match (&self.pattern, url.host()) {
            (Pattern::Exactly(allowed), Some(host)) => *allowed == host,
            (Pattern::Below(suffix), Some(Host::Domain(name))) => name.ends_with(suffix) && name.len() > suffix.len(),
            _ => false,
        };
        is_host && (self.port.is_none() || self.port == url.port_or_known_default())
    }
}

impl FromStr for AllowedHost {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(['/', '@', '?', '#']) {
            return Err(HostError::Url);
        }
        let (host, port) = match text.rsplit_once(':') {
            // The last colon of `[::1]` belongs to the address.
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse().ok().filter(|port| *port != 0).ok_or(HostError::Port)?;
                (host, Some(port))
            }
            _ => (text, None),
        };
        let below = host.strip_prefix("*.");
        let pattern = match (below, Host::parse(below.unwrap_or(host))?) {
            (_, Host::Domain(name)) if name.contains('*') => return Err(HostError::Wildcard),
            (Some(_), Host::Domain(name)) => Pattern::Below(format!(".{name}")),
            (Some(_), _) => return Err(HostError::Wildcard),
            (None, host) => Pattern::Exactly(host),
        };
        Ok(Self { pattern, port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(entries: &[&str]) -> AllowedHosts {
        entries.iter().map(|entry| entry.parse::<AllowedHost>().unwrap()).collect()
    }

    #[test]
    fn an_entry_allows_what_it_names() {
        let cases = [
            ("mcp.example.com", "https://mcp.example.com/sse", true),
            ("MCP.Example.com", "http://mcp.EXAMPLE.com:8080/", true),
            ("mcp.example.com", "https://x.mcp.example.com/", false),
            ("mcp.example.com", "https://mcp.example.com.evil.org/", false),
            ("mcp.example.com", "https://mcp.example.com./", false),
            ("mcp.example.com:443", "https://mcp.example.com/", true),
            ("mcp.example.com:8443", "https://mcp.example.com/", false),
            ("mcp.example.com:8443", "https://mcp.example.com:8443/", true),
            ("*.example.com", "https://a.b.example.com/", true),
            ("*.example.com", "https://example.com/", false),
            ("*.example.com", "https://notexample.com/", false),
            ("*.example.com:8443", "https://a.example.com/", false),
            ("127.0.0.1:3001", "http://127.0.0.1:3001/mcp", true),
            ("127.0.0.1:3001", "http://0x7f.1:3001/mcp", true),
            ("127.0.0.1:3001", "http://127.0.0.1:3002/mcp", false),
            ("127.0.0.1", "http://[::ffff:127.0.0.1]/mcp", false),
            ("[::1]", "http://[0:0::1]:3001/mcp", true),
            ("[::1]:80", "http://[::1]/", true),
            ("bücher.example", "https://xn--bcher-kva.example/", true),
        ];

        for (entry, url, is_allowed) in cases {
            assert_eq!(allowed(&[entry]).allows(&url.parse().unwrap()), is_allowed, "{entry} {url}");
        }
    }

    #[test]
    fn an_entry_that_means_nothing_is_refused() {
        let cases = [
            ("https://mcp.example.com", HostError::Url),
            ("mcp.example.com/path", HostError::Url),
            ("user@mcp.example.com", HostError::Url),
            ("mcp.example.com:", HostError::Port),
            ("mcp.example.com:0", HostError::Port),
            ("mcp.example.com:99999", HostError::Port),
            ("*", HostError::Wildcard),
            ("*.*.example.com", HostError::Wildcard),
            ("mcp.*.com", HostError::Wildcard),
            ("*.10.0.0.1", HostError::Wildcard),
            ("", HostError::Host(url::ParseError::EmptyHost)),
            ("a b", HostError::Host(url::ParseError::IdnaError)),
        ];

        for (entry, error) in cases {
            assert_eq!(entry.parse::<AllowedHost>(), Err(error), "{entry}");
        }
    }

    #[test]
    fn a_url_is_refused_for_its_scheme_its_password_and_its_host() {
        let hosts = allowed(&["mcp.example.com"]);
        let cases = [
            ("https://mcp.example.com/", Ok(())),
            ("ftp://mcp.example.com/", Err(UrlRefusal::Scheme)),
            ("https://user:secret@mcp.example.com/", Err(UrlRefusal::Credentials)),
            ("https://user@mcp.example.com/", Err(UrlRefusal::Credentials)),
            ("https://127.0.0.1/", Err(UrlRefusal::NotListed)),
        ];

        for (url, answer) in cases {
            assert_eq!(hosts.check(&url.parse().unwrap()), answer, "{url}");
        }
        assert_eq!(AllowedHosts::default().check(&"https://example.com".parse().unwrap()), Err(UrlRefusal::NotListed));
    }
}
