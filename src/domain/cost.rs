//! What the tokens of a batch cost, by the prices that the operator gives. There is no list of prices here.

use std::collections::BTreeMap;

use super::batch::Counts;
use super::usage::Usage;

/// Stands for every model that has no price of its own.
const ANY_MODEL: &str = "*";
/// Prices are for so many tokens.
const TOKENS: f64 = 1_000_000.0;

/// The prices of models.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Prices {
    /// The currency, as it is shown.
    pub currency: String,
    /// The prices of each model, and of all others as `*`.
    pub models: BTreeMap<String, ModelPrices>,
}

/// The prices of a million tokens of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct ModelPrices {
    /// Of prompts.
    pub input: f64,
    /// Of prompts that came from a cache.
    pub cached_input: f64,
    /// Of answers, reasoning included.
    pub output: f64,
}

/// What a batch costs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchCost {
    /// What the rows cost that have ended.
    pub so_far: f64,
    /// What all rows cost, if the others cost what those did; `None` until a row has ended.
    pub estimated_total: Option<f64>,
}

impl Prices {
    /// What a batch costs that has used these tokens; `None` if one of its models has no price.
    #[must_use]
    pub fn of_batch(&self, usage: &BTreeMap<String, Usage>, counts: Counts) -> Option<BatchCost> {
        let so_far = self.cost(usage)?;
        let ended = counts.completed + counts.failed;
        let estimated_total = (ended > 0).then(|| so_far * count(counts.total) / count(ended));
        Some(BatchCost { so_far, estimated_total })
    }

    /// What the tokens of each model cost together; `None` if any of them has no price.
    #[must_use]
    pub fn cost(&self, usage: &BTreeMap<String, Usage>) -> Option<f64> {
        usage.iter().try_fold(0.0, |sum, (model, usage)| Some(sum + self.of(model)?.cost(usage)))
    }

    fn of(&self, model: &str) -> Option<&ModelPrices> {
        self.models.get(model).or_else(|| self.models.get(ANY_MODEL))
    }
}

impl ModelPrices {
    fn cost(&self, usage: &Usage) -> f64 {
        let cached = usage.cached_tokens.min(usage.input_tokens);
        let part = |tokens: u64, price: f64| count(tokens) * price / TOKENS;
        part(usage.input_tokens - cached, self.input)
            + part(cached, self.cached_input)
            + part(usage.output_tokens, self.output)
    }
}

/// A sum of money as a decimal number: at least two places, and at most six.
#[must_use]
pub fn amount(money: f64) -> String {
    let text = format!("{money:.6}");
    let places = text.len() - text.trim_end_matches('0').len();
    text[..text.len() - places.min(4)].to_owned()
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens and rows are far below 2^52")]
fn count(items: u64) -> f64 {
    items as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tokens of models, and what they cost.
    type Case<'a> = (&'a [(&'a str, Usage)], Option<&'a str>);

    #[test]
    fn tokens_cost_what_their_model_and_kind_do() {
        let prices = Prices {
            currency: "EUR".to_owned(),
            models: BTreeMap::from([
                ("m".to_owned(), ModelPrices { input: 1.0, cached_input: 0.1, output: 4.0 }),
                ("n".to_owned(), ModelPrices { input: 2.0, cached_input: 2.0, output: 0.0 }),
            ]),
        };
        let usage = |input_tokens, cached_tokens, output_tokens| Usage {
            input_tokens,
            cached_tokens,
            output_tokens,
            ..Usage::default()
        };
        let cases: [Case<'_>; 6] = [
            (&[], Some("0.00")),
            (&[("m", usage(1_000_000, 0, 1_000_000))], Some("5.00")),
            (&[("m", usage(1_000_000, 400_000, 0))], Some("0.64")),
            (&[("m", usage(10, 20, 1))], Some("0.000005")),
            (&[("m", usage(1_000_000, 0, 0)), ("n", usage(500_000, 0, 7))], Some("2.00")),
            (&[("m", usage(1, 0, 0)), ("other", usage(1, 0, 0))], None),
        ];
        for (usage, expected) in cases {
            let usage = usage.iter().map(|(model, usage)| ((*model).to_owned(), *usage)).collect();
            assert_eq!(prices.cost(&usage).map(amount).as_deref(), expected, "{usage:?}");
        }
        let any = Prices { models: BTreeMap::from([("*".to_owned(), ModelPrices::default())]), ..Prices::default() };
        assert!(any.cost(&BTreeMap::from([("other".to_owned(), usage(1, 0, 0))])).is_some());
    }
}
