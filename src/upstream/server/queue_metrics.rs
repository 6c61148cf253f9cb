//! How many calls wait in a server, as its own metrics say it: those of vLLM, SGLang and llama.cpp.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::{Server, ServerClient};
use crate::domain::outcome::HttpResponse;

/// How often a server's own metrics are read while rows are under way, and how long it may take to answer.
const READ_METRICS: Duration = Duration::from_secs(1);

/// Reads in a row for which a server may be too busy, until what it said last no longer holds.
const LATE_READS: usize = 10;

/// The gauges of waiting calls, in the text format of Prometheus.
const GAUGES: [&str; 3] = ["vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred"];

impl Server {
    /// Has the calls at once follow the calls that wait in the server by its own metrics, if those are to be read. Ends
    /// at once if not, and otherwise never.
    pub async fn follow_metrics(&self) {
        let ServerClient::Http(client) = &self.client else { return };
        if !self.reads_metrics {
            return;
        }
        let (mut is_told, mut late) = (false, 0);
        loop {
            sleep(READ_METRICS).await;
            if self.rows() == 0 {
                continue;
            }
            let read = timeout(READ_METRICS, client.metrics()).await;
            // A server that is too busy to answer is not one in which nothing waits.
            late = if read.is_err() { late + 1 } else { 0 };
            if (1..=LATE_READS).contains(&late) {
                continue;
            }
            let text = read.ok().and_then(Result::ok).filter(HttpResponse::is_success).map(|answer| answer.body);
            let text = text.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
            let mut has_gauge = false;
            for (model, admission) in self.admissions() {
                let waiting = waiting_calls(&text, &model);
                has_gauge |= waiting.is_some();
                admission.note_waiting(waiting.unwrap_or_default());
            }
            if !has_gauge && !is_told {
                let why = "its /metrics cannot be read or do not have it";
                tracing::warn!(upstream = %self.name, why, "how many calls wait in an upstream is unknown");
            }
            is_told = !has_gauge;
        }
    }
}

/// Calls that wait in a server for a model, those of other clients included: the sum of the gauges that are labelled
/// with the model, or else of all. None if the metrics have no such gauge.
fn waiting_calls(metrics: &str, model: &str) -> Option<usize> {
    let samples: Vec<(&str, f64)> = metrics.lines().filter_map(sample).collect();
    let of_model = format!("model_name=\"{model}\"");
    let is_of_model = |labels: &str| labels.contains(&of_model);
    let is_known = samples.iter().any(|(labels, _)| is_of_model(labels));
    let counted = samples.iter().filter(|(labels, _)| !is_known || is_of_model(labels));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    let sum = counted.map(|(_, value)| *value).sum::<f64>() as usize;
    (!samples.is_empty()).then_some(sum)
}

/// The labels and the value of a line, if it is one of the gauges.
fn sample(line: &str) -> Option<(&str, f64)> {
    let behind = GAUGES.iter().find_map(|gauge| line.strip_prefix(gauge))?;
    let (labels, behind) = match behind.strip_prefix('{') {
        Some(labels) => labels.rsplit_once('}')?,
        None => ("", behind.strip_prefix(' ')?),
    };
    let value: f64 = behind.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((labels, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_waiting_calls_of_a_model_are_those_of_the_servers_gauges() {
        let cases = [
            ("vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 7.0", Some(7)),
            ("vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 7.0 1700000000000", Some(7)),
            (
                "vllm:num_requests_waiting{engine=\"0\",model_name=\"m\"} 7\n\
              vllm:num_requests_waiting{engine=\"1\",model_name=\"m\"} 2",
                Some(9),
            ),
            ("vllm:num_requests_waiting{model_name=\"m\"} 7\nvllm:num_requests_waiting{model_name=\"n\"} 2", Some(7)),
            ("vllm:num_requests_waiting{model_name=\"path/of-m\"} 7", Some(7)),
            ("# TYPE sglang:num_queue_reqs gauge\nsglang:num_queue_reqs{model_name=\"m\",tp_rank=\"0\"} 3.0", Some(3)),
            ("llamacpp:requests_processing 4\nllamacpp:requests_deferred 1e1", Some(10)),
            ("vllm:num_requests_waiting_by_reason{model_name=\"m\",reason=\"kv\"} 7", None),
            ("vllm:num_requests_waiting{model_name=\"m\"} NaN", None),
            ("vllm:num_requests_waiting{model_name=\"m\"} -1", Some(0)),
            ("<html>", None),
            ("", None),
        ];
        for (metrics, expected) in cases {
            assert_eq!(waiting_calls(metrics, "m"), expected, "{metrics}");
        }
    }
}
