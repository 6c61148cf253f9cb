//! What tokens cost: the table `[prices]` of the settings file.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Deserializer};

use super::{ConfigError, file};
use crate::domain::cost::{ModelPrices, Prices};

/// The table of a settings file that has the prices.
pub(super) const SECTION: &str = "prices";

/// `[prices]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PricesTable {
    /// How the currency is shown.
    #[serde(default = "default_currency")]
    currency: String,
    /// `[prices.models."name"]`; `"*"` is every model without a table of its own.
    models: BTreeMap<String, ModelPricesTable>,
}

/// The prices of a million tokens.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelPricesTable {
    #[serde(deserialize_with = "price")]
    input: f64,
    /// `input`, if absent.
    #[serde(default, deserialize_with = "optional_price")]
    cached_input: Option<f64>,
    #[serde(deserialize_with = "price")]
    output: f64,
}

/// Reads the prices of a settings file; `None` if it has none.
///
/// # Errors
/// What is wrong with them.
pub fn read_prices(path: &Path) -> Result<Option<Prices>, ConfigError> {
    #[derive(Deserialize)]
    struct Tables {
        prices: Option<PricesTable>,
    }
    let tables = file::read_tables::<Tables>(path, &[SECTION])?;
    Ok(tables.prices.map(|prices| Prices {
        currency: prices.currency,
        models: prices.models.into_iter().map(|(model, prices)| (model, prices.into())).collect(),
    }))
}

impl From<ModelPricesTable> for ModelPrices {
    fn from(table: ModelPricesTable) -> Self {
        let ModelPricesTable { input, cached_input, output } = table;
        Self { input, cached_input: cached_input.unwrap_or(input), output }
    }
}

fn default_currency() -> String {
    "USD".to_owned()
}

/// A price that can be paid. TOML has infinity, and numbers that are none.
fn price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let price = f64::deserialize(deserializer)?;
    if price.is_finite() && price >= 0.0 {
        Ok(price)
    } else {
        Err(serde::de::Error::custom("a price is a number from 0 on, for a million tokens"))
    }
}

fn optional_price<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    price(deserializer).map(Some)
}
