//! What tokens cost. Money is counted in billionths of a dollar, so that a sum of many small
//! prices is exact; the cheapest token of today, read from a cache, is ten of them.

pub mod table;

use std::fmt;

/// An amount of money, in billionths of a US dollar.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Usd(pub u64);

impl Usd {
    /// Without limit.
    pub const MAX: Usd = Usd(u64::MAX);
    /// An amount in dollars, as a policy file writes it; rounded up to a billionth.
    ///
    /// ```
    /// assert_eq!(policies::price::Usd::dollars(2.5), Some(policies::price::Usd(2_500_000_000)));
    /// assert_eq!(policies::price::Usd::dollars(-1.0), None);
    /// ```
    pub fn dollars(amount: f64) -> Option<Usd> {
        // Above this, a double no longer tells neighbouring billionths apart.
        const LIMIT: f64 = 9_000_000.0;
        let fits = amount.is_finite() && (0.0..=LIMIT).contains(&amount);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        fits.then(|| Usd((amount * 1e9).ceil() as u64))
    }
    /// The same in dollars, for `--json`.
    #[expect(clippy::cast_precision_loss, reason = "shown, not counted with")]
    pub fn as_dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
    /// The sum; stays at the largest amount.
    pub fn plus(self, other: Usd) -> Usd {
        Usd(self.0.saturating_add(other.0))
    }
}

/// `$0.0123`: as many digits as say something.
impl fmt::Display for Usd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        let part = format!("{part:09}");
        let shown = part.trim_end_matches('0');
        match shown.len() {
            0..=2 => write!(f, "${whole}.{}", &part[..2]),
            _ => write!(f, "${whole}.{shown}"),
        }
    }
}

/// What one token of each kind costs, in billionths of a dollar: a million tokens at $2 are 2,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Price {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the provider's cache.
    pub cache_read: u64,
    /// Read and kept for minutes.
    pub cache_write: u64,
    /// Read and kept for an hour.
    pub cache_write_long: u64,
    /// Another price for requests that read more tokens than this.
    pub above: Option<Above>,
}

/// The price of long requests: it holds for all of their tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Above {
    /// Tokens read, from whatever source, up to which the ordinary price holds.
    pub tokens: u64,
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the cache.
    pub cache_read: u64,
    /// Read and kept for minutes.
    pub cache_write: u64,
    /// Read and kept for an hour.
    pub cache_write_long: u64,
}

/// Tokens of one request by what they cost; the parts are disjoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tokens {
    /// Read.
    pub input: u64,
    /// Written.
    pub output: u64,
    /// Read from the cache.
    pub cache_read: u64,
    /// Read and kept for minutes.
    pub cache_write: u64,
    /// Read and kept for an hour.
    pub cache_write_long: u64,
}

impl Price {
    /// Costs nothing.
    pub const FREE: Price =
        Price { input: 0, output: 0, cache_read: 0, cache_write: 0, cache_write_long: 0, above: None };

    /// What one token costs when a million cost this many dollars; rounded up to a billionth.
    ///
    /// ```
    /// use policies::price::Price;
    /// assert_eq!(Price::per_million(2.0), Some(2_000));
    /// assert_eq!(Price::per_million(0.07), Some(70));
    /// assert_eq!(Price::per_million(0.000_01), Some(1));
    /// ```
    pub fn per_million(dollars: f64) -> Option<u64> {
        const LIMIT: f64 = 1e6;
        let fits = dollars.is_finite() && (0.0..=LIMIT).contains(&dollars);
        // Rounded to a thousandth first: 0.07 as a double is a little more than it says.
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the range was checked")]
        fits.then(|| ((dollars * 1e6).round() as u64).div_ceil(1_000)).map(|n| n.max(u64::from(dollars > 0.0)))
    }

    /// What one request costs.
    pub fn cost(&self, tokens: &Tokens) -> Usd {
        let read = [tokens.input, tokens.cache_read, tokens.cache_write, tokens.cache_write_long];
        let read = read.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
        let long = self.above.filter(|above| read > above.tokens);
        let [input, output, cache_read, write, write_long] = match long {
            Some(a) => [a.input, a.output, a.cache_read, a.cache_write, a.cache_write_long],
            None => [self.input, self.output, self.cache_read, self.cache_write, self.cache_write_long],
        };
        let parts = [
            (tokens.input, input),
            (tokens.output, output),
            (tokens.cache_read, cache_read),
            (tokens.cache_write, write),
            (tokens.cache_write_long, write_long),
        ];
        Usd(parts.iter().fold(0u64, |sum, (n, price)| sum.saturating_add(n.saturating_mul(*price))))
    }
}
