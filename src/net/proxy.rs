//! The proxy of the environment: `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::Url;

/// The proxy that calls of a URL go through, without user name and password, if the environment names one for it.
///
/// # Errors
/// The proxy is one that no client here can use.
pub fn proxy_of(url: &Url) -> Result<Option<String>, String> {
    in_use(&Matcher::from_system(), url)
}

fn in_use(environment: &Matcher, url: &Url) -> Result<Option<String>, String> {
    let Some(proxy) = url.as_str().parse().ok().and_then(|url| environment.intercept(&url)) else { return Ok(None) };
    let shown = proxy.uri().to_string().trim_end_matches('/').to_owned();
    if matches!(proxy.uri().scheme_str(), Some("http" | "https")) {
        return Ok(Some(shown));
    }
    Err(format!(
        "the environment sends its calls through the proxy {shown}, and only proxies with http:// or https:// can be \
         used: change HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, or name the host in NO_PROXY"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_a_url_is_named_without_its_password_or_refused() {
        let environment = |https: &str| Matcher::builder().http("http://h:1").https(https).no("direct").build();
        let through = |proxy: &str| Ok(Some(proxy.to_owned()));
        let cases = [
            ("https://user:hunter2@proxy:3128/", "https://up/v1", through("https://proxy:3128")),
            ("proxy:3128", "https://up/v1", through("http://proxy:3128")),
            ("proxy:3128", "http://up/v1", through("http://h:1")),
            ("socks5://user:hunter2@proxy", "http://up/v1", through("http://h:1")),
            ("socks5://user:hunter2@proxy", "https://direct/v1", Ok(None)),
            ("", "https://up/v1", Ok(None)),
        ];
        for (https, url, expected) in cases {
            assert_eq!(in_use(&environment(https), &url.parse().expect("a URL")), expected, "{https} {url}");
        }
        let refused = in_use(&environment("socks5h://user:hunter2@proxy"), &"https://up".parse().expect("a URL"));
        let refused = refused.expect_err("no client can use it");
        assert!(refused.contains("socks5h://proxy,") && !refused.contains("hunter2"), "{refused}");
    }
}
