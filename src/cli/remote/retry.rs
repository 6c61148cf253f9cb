//! `batchwright retry`: a batch of the rows of another one that did not succeed.

use clap::Args;
use serde_json::{Map, Value};

use super::input::IdempotencyKey;
use super::server::CalledServer;
use crate::cli::exit::Exit;
use crate::cli::output::{OutputArgs, print_text};
use crate::client::{ClientError, RetryRequest, RowPatch};
use crate::config::ServerArgs;

/// The arguments of `retry`.
#[derive(Args, Debug)]
#[command(after_help = "Prints the id of the new batch. The same command again finds the same batch.

Examples:
  batchwright retry batch_0123
  batchwright retry batch_0123 --codes rate_limit_exceeded,timeout
  batchwright retry batch_0123 --set model=larger-model --set max_tokens=4096")]
pub(in crate::cli) struct RetryArgs {
    /// The batch with the rows. It must have ended.
    #[arg(value_name = "BATCH")]
    id: String,
    /// Only rows that failed with one of these codes.
    #[arg(long, value_name = "CODES", value_delimiter = ',')]
    codes: Vec<String>,
    /// A member of every row's body, and its new value: JSON, or else a text. Can be repeated.
    #[arg(long, value_name = "MEMBER=VALUE", value_parser = member)]
    set: Vec<(String, Value)>,
    /// Create another batch, even if the same command has created one.
    #[arg(long)]
    again: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    server: ServerArgs,
}

fn member(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("expected MEMBER=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

pub(super) async fn run(args: RetryArgs) -> anyhow::Result<Exit> {
    let server = CalledServer::new(&args.server)?;
    let retry = RowPatch { codes: args.codes, body: Map::from_iter(args.set) };
    let key = IdempotencyKey::of(&["retry", &args.id, &serde_json::to_string(&retry)?]);
    let idempotency_key = Some(key.unless(args.again));
    let new = RetryRequest { retry_of: args.id, retry, idempotency_key };
    match server.client.retry_batch(&new).await {
        Ok(batch) if args.output.asked().is_none() => print_text(&format!("{}\n", batch.id))?,
        Ok(batch) => args.output.print_one(&batch)?,
        Err(error) if is_unknown(&error) => anyhow::bail!(
            "{} cannot retry batches: this is an extension that it does not have. It says: {error}",
            server.url
        ),
        Err(error) => return Err(server.explain(error)),
    }
    Ok(Exit::Well)
}

/// Whether the server did not see that it was asked for a retry: it misses what only another batch must name.
fn is_unknown(error: &ClientError) -> bool {
    let ClientError::Refused(answer) = error else { return false };
    let says = |text: &str| answer.message.contains(text) || answer.param.as_deref() == Some(text);
    let is_strict = answer.message.to_lowercase().starts_with("un") && says("retry_of");
    matches!(answer.status, 400 | 422) && (says("input_file_id") || is_strict)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_json_or_else_a_text() {
        let cases = [
            ("max_tokens=4096", Ok(("max_tokens", Value::from(4096)))),
            ("model=a=b", Ok(("model", Value::from("a=b")))),
            ("stop=[\"a\"]", Ok(("stop", Value::from(vec!["a"])))),
            ("model", Err(())),
            ("=x", Err(())),
        ];
        for (text, expected) in cases {
            let expected = expected.map(|(name, value)| (name.to_owned(), value));
            assert_eq!(member(text).map_err(drop), expected, "{text}");
        }
    }
}
