//! Integers from clients, checked against their bounds. Integers beyond 64 bits are refused with the same messages.

use std::ops::RangeInclusive;

use serde_json::Value;

use super::ApiError;
use crate::domain::row::type_name;

/// Decimals of at least this size are integers.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// An integer in a query or in a part of a form.
pub(super) fn in_text(param: &str, text: &str, bounds: RangeInclusive<i64>) -> Result<i64, ApiError> {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ApiError::wrong_type(param, "an integer", "a string"));
    }
    bounded(param, text, bounds)
}

/// An integer in a JSON body.
pub(super) fn in_json(param: &str, value: &Value, bounds: RangeInclusive<i64>) -> Result<i64, ApiError> {
    match value {
        // The parser gives integers beyond 64 bits as decimals. From 2^53 on none has a fraction.
        Value::Number(number) if number.as_f64().is_some_and(|float| !number.is_f64() || float.abs() >= EXACT) => {
            bounded(param, &number.to_string(), bounds)
        }
        other => Err(ApiError::wrong_type(param, "an integer", type_name(other))),
    }
}

/// Checks `text`, which is an integer. If it cannot be parsed, it is beyond 64 bits.
fn bounded(param: &str, text: &str, bounds: RangeInclusive<i64>) -> Result<i64, ApiError> {
    let is_negative = text.starts_with('-');
    match text.parse() {
        Ok(value) if bounds.contains(&value) => Ok(value),
        Ok(value) if value < *bounds.start() => Err(ApiError::below_minimum(param, text, *bounds.start())),
        Err(_) if is_negative => Err(ApiError::below_minimum(param, text, *bounds.start())),
        _ => Err(ApiError::above_maximum(param, text, *bounds.end())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(result: Result<i64, ApiError>) -> Result<i64, Option<&'static str>> {
        result.map_err(|error| error.object().code)
    }

    #[test]
    fn every_integer_is_within_its_bounds_or_refused_with_one() {
        let (above, below, type_) = ("integer_above_max_value", "integer_below_min_value", "invalid_type");
        let cases = [
            ("5", Ok(5)),
            ("+5", Ok(5)),
            ("0", Err(below)),
            ("-1", Err(below)),
            ("11", Err(above)),
            ("9223372036854775808", Err(above)),
            ("18446744073709551615", Err(above)),
            ("99999999999999999999999999999999999999999999", Err(above)),
            ("-9223372036854775809", Err(below)),
            ("-99999999999999999999999999999999999999999999", Err(below)),
            ("1.5", Err(type_)),
            ("", Err(type_)),
            ("-", Err(type_)),
            ("five", Err(type_)),
        ];

        for (text, expected) in cases {
            let expected = expected.map_err(Some);
            assert_eq!(code(in_text("n", text, 1..=10)), expected, "{text}");
            if let Ok(value) = serde_json::from_str(text) {
                assert_eq!(code(in_json("n", &value, 1..=10)), expected, "{text}");
            }
        }
    }
}
