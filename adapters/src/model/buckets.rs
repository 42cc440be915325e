//! What a provider's headers say is left of its limits: buckets that fill again over time.

use http::HeaderMap;
use std::time::Duration;
use tokio::time::Instant;

/// Of a bucket of tokens, this part is waited for: less would be asked for in vain.
const PART: f64 = 0.02;
/// Their names: `anthropic-ratelimit-NAME-remaining`, `x-ratelimit-remaining-NAME`.
const NAMES: [&str; 4] = ["requests", "tokens", "input-tokens", "output-tokens"];

/// One limit.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    limit: f64,
    left: f64,
    seen: Instant,
    full: Instant,
}

impl Bucket {
    /// How long until it holds `need`.
    fn wait(&self, need: f64, now: Instant) -> Duration {
        let span = self.full.saturating_duration_since(self.seen).as_secs_f64();
        let rate = (self.limit - self.left) / span.max(0.001);
        let left = self.left + rate * now.saturating_duration_since(self.seen).as_secs_f64();
        if left >= need || rate <= 0.0 || now >= self.full {
            return Duration::ZERO;
        }
        Duration::try_from_secs_f64((need - left) / rate).unwrap_or_default()
    }
}

/// All limits of a credential.
#[derive(Debug, Default)]
pub(super) struct Buckets([Option<Bucket>; NAMES.len()]);

impl Buckets {
    /// How long until a request may go.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let wait = |(i, bucket): (usize, &Option<Bucket>)| {
            let bucket = bucket.as_ref()?;
            Some(bucket.wait(if i == 0 { 1.0 } else { (bucket.limit * PART).max(1.0) }, now))
        };
        self.0.iter().enumerate().filter_map(wait).max().unwrap_or_default()
    }
    /// A request goes.
    pub(super) fn take(&mut self) {
        if let Some(requests) = &mut self.0[0] {
            requests.left -= 1.0;
        }
    }
    /// Forgets them: the provider said when to come again, which counts more.
    pub(super) fn clear(&mut self) {
        self.0 = Default::default();
    }
    /// Learns from an answer's headers.
    pub(super) fn learn(&mut self, headers: &HeaderMap, now: Instant) {
        for (slot, name) in self.0.iter_mut().zip(NAMES) {
            if let Some(bucket) = read(headers, name, now) {
                *slot = Some(bucket);
            }
        }
    }
}

fn read(headers: &HeaderMap, name: &str, now: Instant) -> Option<Bucket> {
    let text = |key: String| headers.get(key)?.to_str().ok().map(str::trim);
    let number = |key: String| text(key)?.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0);
    let own = |part: &str| format!("anthropic-ratelimit-{name}-{part}");
    let other = |part: &str| format!("x-ratelimit-{part}-{name}");
    let limit = number(own("limit")).or_else(|| number(other("limit")))?;
    let left = number(own("remaining")).or_else(|| number(other("remaining")))?;
    let reset = match text(own("reset")) {
        Some(at) => {
            let at: jiff::Timestamp = at.parse().ok()?;
            Duration::try_from(at - jiff::Timestamp::now()).unwrap_or_default()
        }
        None => span(text(other("reset"))?)?,
    };
    // A day is more than any of these limits spans; what says more is not believed.
    let reset = reset.min(Duration::from_secs(86_400));
    Some(Bucket { limit, left: left.min(limit), seen: now, full: now + reset })
}

/// `1s`, `6m0s`, `120ms`.
fn span(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.checked_add(Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn buckets_fill_over_time() {
        let headers = |list: &[(&'static str, String)]| -> HeaderMap {
            list.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
        };
        let mut buckets = Buckets::default();
        let now = Instant::now();
        assert_eq!(buckets.wait(now), Duration::ZERO);
        let reset = (jiff::Timestamp::now() + Duration::from_secs(60)).to_string();
        buckets.learn(
            &headers(&[
                ("anthropic-ratelimit-requests-limit", "60".into()),
                ("anthropic-ratelimit-requests-remaining", "1".into()),
                ("anthropic-ratelimit-requests-reset", reset),
            ]),
            now,
        );
        assert_eq!(buckets.wait(now), Duration::ZERO);
        buckets.take();
        let wait = buckets.wait(now).as_millis();
        assert!((900..1_100).contains(&wait), "{wait}: one of sixty a minute");
        buckets.learn(
            &headers(&[
                ("x-ratelimit-limit-tokens", "1000".into()),
                ("x-ratelimit-remaining-tokens", "0".into()),
                ("x-ratelimit-reset-tokens", "1m40s".into()),
            ]),
            now,
        );
        assert_eq!(buckets.wait(now), Duration::from_secs(2), "a fiftieth of it");
        assert_eq!(buckets.wait(now + Duration::from_secs(100)), Duration::ZERO);
        for bad in ["", "x", "5", "5y", "1e9s9"] {
            assert_eq!(span(bad), None, "{bad}");
        }
        assert_eq!(span("120ms"), Some(Duration::from_millis(120)));
    }
}
