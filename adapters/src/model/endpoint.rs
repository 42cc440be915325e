//! HTTP to one provider: the registered origin and no other, through the dialler. The key goes
//! into one header and into nothing else.

use super::format::{Format, secret};
use crate::net;
use http::HeaderMap;
use policies::decide;
use policies::resolve::{RemoteModel, Secret};
use serde_json::Value;
use std::time::Duration;
use url::Url;

/// Of an error's document, so much is read, and for so long.
const MAX_ERROR: usize = 64 << 10;
const ERROR_TIME: Duration = Duration::from_secs(10);
/// A shorter key would be found in every text.
const MIN_KEY: usize = 4;

/// Where a provider answers.
pub(super) struct Endpoint {
    client: reqwest::Client,
    base: Url,
    key: Option<Secret>,
}

impl Endpoint {
    /// The origin is authorised by being registered.
    ///
    /// # Errors
    /// When it cannot be dialled at all.
    pub(super) fn new(remote: &RemoteModel) -> Result<Self, String> {
        let (host, port) = net::origin(&remote.base_url)?;
        let client = net::client(decide::registered(host, port)).map_err(|e| e.to_string())?;
        Ok(Self { client, base: remote.base_url.clone(), key: remote.api_key.clone() })
    }
    /// `api.example.com`, for messages.
    pub(super) fn host(&self) -> String {
        let port = self.base.port().map(|p| format!(":{p}")).unwrap_or_default();
        format!("{}{port}", self.base.host_str().unwrap_or_default())
    }
    /// The base address with a path; a version that both have counts once.
    fn url(&self, path: &str) -> Url {
        let mut url = self.base.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let base = match path.strip_prefix("/v1/") {
            Some(_) => base.strip_suffix("/v1").unwrap_or(&base),
            None => &base,
        };
        url.set_path(&format!("{base}{path}"));
        url
    }
    /// Sends a document; the answer is not read yet.
    ///
    /// # Errors
    /// Why nothing came back.
    pub(super) async fn post(
        &self,
        format: &dyn Format,
        path: &str,
        body: &Value,
    ) -> Result<reqwest::Response, String> {
        let mut headers: HeaderMap = format.headers();
        if let Some(key) = &self.key {
            let (name, value) = format.key(key.expose());
            headers.insert(name, secret(&value).ok_or("the key holds characters that no header can")?);
        }
        headers.insert("content-type", http::HeaderValue::from_static("application/json"));
        headers.insert("user-agent", http::HeaderValue::from_static(concat!("pleach/", env!("CARGO_PKG_VERSION"))));
        let request = self.client.post(self.url(path)).headers(headers).body(body.to_string());
        request.send().await.map_err(|e| self.clean(&net::reasons(&e.without_url())))
    }
    /// What an error says.
    pub(super) async fn error_of(&self, response: reqwest::Response) -> Vec<u8> {
        let read = tokio::time::timeout(ERROR_TIME, net::bounded(response, MAX_ERROR)).await;
        read.ok().and_then(Result::ok).unwrap_or_default()
    }
    /// A text without the key, whoever wrote it there.
    pub(super) fn clean(&self, text: &str) -> String {
        match &self.key {
            Some(key) if key.expose().len() >= MIN_KEY => text.replace(key.expose(), "[key]"),
            _ => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use policies::resolve::Wire;

    #[test]
    fn paths_are_joined_and_the_version_counts_once() {
        let url = |base: &str, path: &str| {
            let base_url = Url::parse(base).unwrap();
            let remote = RemoteModel { wire: Wire::OpenAi, model: "m".into(), base_url, api_key: None, effort: None };
            Endpoint::new(&remote).unwrap().url(path).to_string()
        };
        assert_eq!(url("https://a.com", "/v1/messages"), "https://a.com/v1/messages");
        assert_eq!(url("https://a.com/v1/", "/v1/messages"), "https://a.com/v1/messages");
        assert_eq!(url("https://a.com/x/", "/v1/messages"), "https://a.com/x/v1/messages");
        assert_eq!(url("https://a.com/v1?api=2", "/chat/completions"), "https://a.com/v1/chat/completions?api=2");
    }
}
