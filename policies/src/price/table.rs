//! The models that are known by name, what they cost and how large they are. A model that is not
//! here has no price: its cost is unknown, which is said, and never taken for nothing.
//!
//! The prices are list prices of the day [`AS_OF`]; `[models.x] price` overrules them.

use super::{Above, Price};

/// The day the prices were read.
pub const AS_OF: &str = "2026-11-20";

/// What is known about a model by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it costs.
    pub price: Price,
    /// Tokens of its window.
    pub context: u64,
    /// Tokens it can write at most.
    pub max_output: u64,
}

/// What a cache costs, in hundredths of the price of input, where a provider sells one.
const READ: u64 = 10;
const WRITE: u64 = 125;
const WRITE_LONG: u64 = 200;

/// A price from what reading and writing cost, with the cache at Anthropic's multiples.
pub const fn cached(input: u64, output: u64) -> Price {
    Price {
        input,
        output,
        cache_read: (input * READ).div_ceil(100),
        cache_write: (input * WRITE).div_ceil(100),
        cache_write_long: (input * WRITE_LONG).div_ceil(100),
        above: None,
    }
}

/// The same as a tier.
pub const fn above(tokens: u64, price: Price) -> Above {
    Above {
        tokens,
        input: price.input,
        output: price.output,
        cache_read: price.cache_read,
        cache_write: price.cache_write,
        cache_write_long: price.cache_write_long,
    }
}

const fn row(price: Price) -> Known {
    Known { price, context: 1_000_000, max_output: 128_000 }
}
/// Of older models only the least that was seen is promised.
const fn older(price: Price) -> Known {
    Known { price, context: 200_000, max_output: 64_000 }
}

/// In billionths of a dollar a token: $2 a million are 2,000.
const TABLE: &[(&str, Known)] = &[
    ("claude-fable-5-1", row(cached(10_000, 50_000))),
    ("claude-opus-5-5", row(cached(4_000, 20_000))),
    ("claude-sonnet-5-5", row(cached(2_000, 10_000))),
    ("claude-haiku-5-5", row(Price { above: Some(above(100_000, cached(500, 2_500))), ..cached(100, 500) })),
    ("claude-opus-5", older(cached(5_000, 25_000))),
    ("claude-sonnet-5", older(cached(2_000, 10_000))),
    ("claude-fable-5", older(cached(10_000, 50_000))),
    ("claude-haiku-4-5", older(cached(1_000, 5_000))),
];

/// What is known about a model, by its provider's name for it, with or without a date behind.
pub fn known(model: &str) -> Option<Known> {
    TABLE.iter().find(|(name, _)| same(name, model)).map(|(_, known)| *known)
}

/// Whether two names are of one model: the same, but for a date at the end of one of them.
///
/// ```
/// use policies::price::table::same;
/// assert!(same("claude-opus-5-5", "claude-opus-5-5-20260901"));
/// assert!(!same("claude-opus-5", "claude-opus-5-5"));
/// ```
pub fn same(a: &str, b: &str) -> bool {
    let dated = |longer: &str, shorter: &str| {
        let date = longer.strip_prefix(shorter).and_then(|rest| rest.strip_prefix('-'));
        date.is_some_and(|d| d.len() == 8 && d.bytes().all(|b| b.is_ascii_digit()))
    };
    a == b || dated(a, b) || dated(b, a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::price::{Tokens, Usd};

    #[test]
    fn a_request_costs_what_the_list_says() {
        let cost = |model: &str, tokens: Tokens| known(model).unwrap().price.cost(&tokens);
        let million = 1_000_000;
        let all = Tokens {
            input: million,
            output: million,
            cache_read: million,
            cache_write: million,
            cache_write_long: million,
        };
        // 2 + 10 + 0.2 + 2.5 + 4
        assert_eq!(cost("claude-sonnet-5-5", all), Usd(18_700_000_000));
        let read = |input| Tokens { input, output: 1_000, ..Tokens::default() };
        assert_eq!(cost("claude-haiku-5-5-20261001", read(100_000)), Usd(10_500_000));
        assert_eq!(cost("claude-haiku-5-5", read(100_001)), Usd(100_001 * 500 + 2_500_000), "the higher tier, for all");
        assert_eq!(known("claude-haiku-4-5").unwrap().context, 200_000);
        for unknown in ["claude-fable-5-2", "claude-opus-5-5-fast", "claude-opus-5-5-2026090", "gpt-6", ""] {
            assert_eq!(known(unknown), None, "{unknown}");
        }
    }
}
