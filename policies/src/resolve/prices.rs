//! `[models.x] price`: what the operator says a model costs.

use super::{Priced, Resolver};
use crate::file::Node;
use crate::names::Name;
use crate::price::{Price, table};

impl Resolver<'_> {
    /// The cache's prices are the provider's multiples of input where it is known to have such,
    /// else those of input itself: a discount that is not written is not counted on.
    pub(super) fn price(&mut self, name: &Name, node: &Node, multiples: bool) -> Option<Priced> {
        let price = self.tier(name, node, multiples);
        let above = match node.get("above") {
            Some(tier) => {
                let tokens = tier.get("tokens").and_then(Node::int).and_then(|n| u64::try_from(n).ok());
                if tokens.is_none() {
                    self.error(&tier.place, "above needs tokens: up to how many the ordinary price holds");
                }
                let higher = self.tier(name, tier, multiples);
                Some(table::above(tokens?, higher?))
            }
            None => None,
        };
        let as_of = node.text_at("as_of").map(str::to_owned);
        Some(Priced { price: Price { above, ..price? }, as_of })
    }

    fn tier(&mut self, name: &Name, node: &Node, multiples: bool) -> Option<Price> {
        let mut at = |key: &str| -> Result<Option<u64>, ()> {
            let Some(value) = node.get(key) else { return Ok(None) };
            let price = value.number().and_then(Price::per_million);
            if price.is_none() {
                self.error(&value.place, format!("{key} is in dollars per million tokens, up to a million"));
            }
            price.map(Some).ok_or(())
        };
        let parts = [at("input"), at("output"), at("cache_read"), at("cache_write"), at("cache_write_long")];
        let [Ok(input), Ok(output), Ok(read), Ok(write), Ok(long)] = parts else { return None };
        let (Some(input), Some(output)) = (input, output) else {
            let message = format!("the price of model {name} needs input and output, in dollars per million tokens");
            self.error(&node.place, message);
            return None;
        };
        let usual = match multiples {
            true => table::cached(input, output),
            false => {
                Price { input, output, cache_read: input, cache_write: input, cache_write_long: input, above: None }
            }
        };
        Some(Price {
            cache_read: read.unwrap_or(usual.cache_read),
            cache_write: write.unwrap_or(usual.cache_write),
            cache_write_long: long.unwrap_or(usual.cache_write_long),
            ..usual
        })
    }
}
