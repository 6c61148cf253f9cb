//! The body of a success: whether it is an answer, an error in the place of one, or nothing that can be read.
//!
//! Every answer of an upstream is read here once, when it comes, and the rest of the program goes by the result. The
//! status line alone says little: gateways put errors into a 200, and proxies answer with pages.

mod repair;
mod shape;

pub use repair::{repaired, without_lone_surrogates};
pub use shape::status_of_error;

use super::endpoint::Endpoint;
use super::outcome::{BodyReading, FailureReason, HttpResponse};
use super::usage::Usage;
use shape::{AnswerShape, Judged};

/// A successful answer: valid JSON, with its token usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The response it came in; its body is valid JSON.
    pub response: HttpResponse,
    /// The token usage that the answer reports; zero if it reports none.
    pub usage: Usage,
}

impl Answer {
    /// The answer in a successful response. If it was not [`read`] before, any JSON is one.
    ///
    /// # Errors
    /// The response as an unreadable one, if its body is not JSON.
    pub fn of(response: HttpResponse) -> Result<Self, FailureReason> {
        let usage = match &response.reading {
            BodyReading::Answer(usage) => Ok(**usage),
            BodyReading::Unread => AnswerShape::read(&response.body).map(|shape| shape.usage()),
            BodyReading::Unreadable(_) => return Err(FailureReason::UnreadableAnswer(response)),
        };
        match usage {
            Ok(usage) => Ok(Self { response, usage }),
            Err(why) => Err(FailureReason::UnreadableAnswer(response.unreadable(&why))),
        }
    }
}

/// Reads the body of a success.
///
/// - An answer has its usage as [`BodyReading::Answer`]. A body that is JSON but for small faults is repaired.
/// - An error in the place of an answer gets the status that the error names, else 502, so that it goes the way of
///   every error. Its body stays as it came.
/// - A body that is not JSON is [`BodyReading::Unreadable`], and the response no success.
///
/// Any other response stays as it is.
#[must_use]
pub fn read(endpoint: Endpoint, response: HttpResponse) -> HttpResponse {
    if !response.is_success() {
        return response;
    }
    match AnswerShape::read(&response.body).map(|shape| shape.judge(endpoint)) {
        Ok(judged) => response.judged(judged),
        Err(why) => {
            let Some(body) = repaired(&response.body) else { return response.unreadable(&why) };
            match AnswerShape::read(&body).map(|shape| shape.judge(endpoint)) {
                Ok(judged) => HttpResponse { body, ..response }.judged(judged),
                Err(_) => response.unreadable(&why),
            }
        }
    }
}

impl HttpResponse {
    fn judged(self, judged: Judged) -> Self {
        match judged {
            Judged::Answer(usage) => Self { reading: BodyReading::Answer(usage.into()), ..self },
            Judged::Error(status) => Self { status, ..self },
        }
    }

    /// The same as an answer that cannot be read: why, in words that follow "is".
    pub(crate) fn unreadable(self, why: &str) -> Self {
        let why: String = match self.body.trim_ascii() {
            b"" => format!("The upstream answered with status {} and no body.", self.status),
            _ => format!("The upstream's answer is {why}."),
        };
        Self { reading: BodyReading::Unreadable(why.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::NearlyGood;

    const CHAT: Endpoint = Endpoint::ChatCompletions;

    fn answer(endpoint: Endpoint, body: &[u8]) -> HttpResponse {
        read(endpoint, HttpResponse { status: 200, body: body.to_vec().into(), ..HttpResponse::default() })
    }

    #[test]
    fn a_success_is_an_answer_or_has_the_status_of_its_error() {
        use Endpoint::{Embeddings, ImagesGenerations, Moderations, Responses};
        let cases = [
            (CHAT, r#"{"choices":[{"message":{"content":"an \"error\""}}]}"#, 200),
            (CHAT, r#"{"choices":[{"finish_reason":"stop"}],"error":null}"#, 200),
            (CHAT, r#"{"choices":[{"finish_reason":"stop"}],"choices":[{"finish_reason":"stop"}]}"#, 200),
            (CHAT, r#"{"choices":[{"finish_reason":"stop"}],"error":{"code":500}}"#, 200),
            (CHAT, r#"{"error":{"message":"Provider returned error","code":429}}"#, 429),
            (CHAT, r#"{"error":{"code":"503"}}"#, 503),
            (CHAT, r#"{"error":{"code":200}}"#, 502),
            (CHAT, r#"{"error":{"code":"server_error"}}"#, 502),
            (CHAT, r#"{"error":"it broke"}"#, 502),
            (CHAT, r#"{"choices":[],"error":{"code":400}}"#, 400),
            (CHAT, r#"{"object":"error","message":"m","code":404}"#, 404),
            (CHAT, r#"{"object":"error"}"#, 502),
            (CHAT, r#"{"choices":[{"finish_reason":"error"}]}"#, 502),
            (CHAT, r#"{"choices":[{"finish_reason":"stop"},{"error":{"code":529},"finish_reason":"error"}]}"#, 529),
            (CHAT, r#"{"choices":[]}"#, 502),
            (CHAT, r#"{"choices":{}}"#, 502),
            (CHAT, r#"{"choices":null}"#, 502),
            (CHAT, "{}", 502),
            (CHAT, "null", 502),
            (CHAT, "[]", 502),
            (CHAT, "7", 502),
            (CHAT, "\"an answer\"", 502),
            (Embeddings, r#"{"data":[{"embedding":[0.5]}]}"#, 200),
            (Embeddings, "[[0.5]]", 200),
            (Embeddings, "[]", 502),
            (Embeddings, r#"{"choices":[{}]}"#, 502),
            (ImagesGenerations, r#"{"data":[]}"#, 502),
            (Moderations, r#"{"results":[]}"#, 200),
            (Moderations, "{}", 502),
            (Responses, r#"{"object":"response","output":[],"error":null}"#, 200),
            (Responses, r#"{"status":"failed","error":{"code":"server_error"},"output":[]}"#, 200),
            (Responses, r#"{"status":"failed","error":{"code":429}}"#, 200),
            (Responses, r#"{"error":{"code":429}}"#, 429),
            (Responses, "{}", 502),
            (Responses, r#"{"status":404,"error":"Not Found","path":"/v1/responses"}"#, 502),
            (Responses, r#"{"status":"error","message":"quota"}"#, 502),
            (Responses, r#"{"status":"cancelled","output":[]}"#, 502),
            (Responses, r#"{"status":"queued","output":[]}"#, 502),
            (Responses, r#"{"error":"Unexpected endpoint or method. (POST /v1/responses)"}"#, 404),
            (CHAT, r#"{"error":{"message":"no money","code":"insufficient_quota"}}"#, 429),
            (CHAT, r#"{"error":{"code":429.0}}"#, 429),
            (CHAT, r#"{"choices":[null]}"#, 502),
            (CHAT, r#"{"choices":[{"index":0,"error":{"code":503}}]}"#, 503),
            (Embeddings, r#"{"data":[{"object":"error","message":"m"}]}"#, 502),
            (Embeddings, r#"{"data":[{"embedding":[0.5]},{"embedding":null}]}"#, 502),
        ];
        assert_read_as(&cases);
    }

    #[test]
    fn so_is_one_of_another_api() {
        use Endpoint::{AudioTranscriptions, Classify, Extra, Messages, Pooling, Rerank, Score};
        let cases = [
            (Messages, r#"{"type":"message","content":[{"type":"text","text":"x"}]}"#, 200),
            (Messages, r#"{"type":"message","content":[],"stop_reason":"end_turn"}"#, 200),
            (Messages, r#"{"type":"message","content":null}"#, 502),
            (Messages, r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#, 529),
            (Messages, r#"{"type":"error","error":{"type":"rate_limit_error"},"content":[]}"#, 429),
            (Messages, r#"{"type":"error","error":{"type":"api_error"}}"#, 502),
            (Messages, r#"{"error":{"type":"not_found_error"}}"#, 404),
            (Messages, r#"{"choices":[{}]}"#, 502),
            (Score, r#"{"object":"list","data":[{"index":0,"object":"score","score":0.5}]}"#, 200),
            (Score, r#"{"scores":[[0.5]],"object":"scoring"}"#, 200),
            (Score, r#"{"data":[]}"#, 502),
            (Rerank, r#"{"results":[{"index":0,"relevance_score":0.5}]}"#, 200),
            (Rerank, r#"[{"score":0.5,"index":0}]"#, 200),
            (Rerank, r#"{"results":[]}"#, 502),
            (Rerank, r#"{"object":"error","message":"m","code":400}"#, 400),
            (Pooling, r#"{"object":"list","data":[{"object":"pooling","data":[[0.5]]}]}"#, 200),
            (Pooling, r#"{"data":[null]}"#, 502),
            (Classify, r#"{"data":[{"label":"a","probs":[1.0],"num_classes":1}]}"#, 200),
            (Classify, r#"{"error":"no such model"}"#, 502),
            (AudioTranscriptions, r#"{"text":""}"#, 200),
            (AudioTranscriptions, r#"{"error":{"code":400}}"#, 400),
            (Extra("/v1/foo"), r#"{"foo":1}"#, 200),
            (Extra("/v1/foo"), r#"{"foo":1,"error":{"code":503}}"#, 503),
            (Extra("/v1/foo"), "[1]", 502),
            (Extra("/v1/foo"), "{}", 502),
        ];
        assert_read_as(&cases);
    }

    /// Endpoints, bodies of a success, and the statuses that they are read as.
    fn assert_read_as(cases: &[(Endpoint, &str, u16)]) {
        for (endpoint, body, status) in cases {
            let read = answer(*endpoint, body.as_bytes());
            assert_eq!((read.status, &read.body[..]), (*status, body.as_bytes()), "{endpoint:?} {body}");
            assert_eq!(read.is_success(), *status == 200);
        }
    }

    #[test]
    fn what_is_no_json_is_unreadable_and_stays_as_it_came() {
        let cases: [(&[u8], &str); 6] = [
            (b"", "The upstream answered with status 200 and no body."),
            (b" \n", "The upstream answered with status 200 and no body."),
            (b"<html>", "The upstream's answer is not valid JSON: expected value at line 1 column 1."),
            (
                br#"{"choices":[{"#,
                "The upstream's answer is not valid JSON: EOF while parsing an object at line 1 column 13.",
            ),
            (b"{} {}", "The upstream's answer is not valid JSON: trailing characters at line 1 column 4."),
            (b"\xff\xfe", "The upstream's answer is not UTF-8: invalid utf-8 sequence of 1 bytes from index 0."),
        ];
        for (body, expected) in cases {
            let read = answer(CHAT, body);
            assert_eq!(read.reading, BodyReading::Unreadable(expected.into()));
            assert!(!read.is_success() && read.status == 200 && read.body == body);
        }
    }

    #[test]
    fn small_faults_are_repaired() {
        let whole = r#"{"choices":[{"message":{"content":"x"}}],"usage":{"total_tokens":3}}"#;
        let cases: [(Vec<u8>, &str); 6] = [
            ([b"\xef\xbb\xbf", whole.as_bytes()].concat(), whole),
            ([whole.as_bytes(), b"\n\ndata: [DONE]\n\n"].concat(), whole),
            (
                br#"{"choices":[{"logprob":-Infinity,"a":[NaN,Infinity]}]}"#.to_vec(),
                r#"{"choices":[{"logprob":null,"a":[null,null]}]}"#,
            ),
            (
                br#"{"choices":[{"content":"NaN \" -Infinity","b":NaN}]}"#.to_vec(),
                r#"{"choices":[{"content":"NaN \" -Infinity","b":null}]}"#,
            ),
            (b"{\"choices\":[\"caf\xe9\"]}".to_vec(), "{\"choices\":[\"caf\u{fffd}\"]}"),
            (
                b"\xef\xbb\xbf{\"choices\":[{},NaN,\"\xe9\"]}data: [DONE]".to_vec(),
                "{\"choices\":[{},null,\"\u{fffd}\"]}",
            ),
        ];
        for (body, expected) in cases {
            let read = answer(CHAT, &body);
            assert_eq!(str::from_utf8(&read.body), Ok(expected));
            assert!(matches!(read.reading, BodyReading::Answer(_)), "{expected}");
        }
    }

    #[test]
    fn any_json_is_an_answer_of_a_processor_without_an_upstream() {
        let of = |body: &str| {
            Answer::of(HttpResponse { body: body.to_owned().into(), status: 200, ..HttpResponse::default() })
        };

        for body in ["{}", "7", "[[0.5]]", r#"{"usage":"none"}"#, r#"{"usage":{"prompt_tokens":-1}}"#] {
            assert_eq!(of(body).expect("JSON").usage, Usage::default(), "{body}");
        }
        for body in ["", "<html>", "{\"a\":}", "{} {}"] {
            assert!(matches!(of(body), Err(FailureReason::UnreadableAnswer(_))), "{body}");
        }
    }

    #[test]
    fn the_usage_of_an_answer_is_read_with_it() {
        let body = r#"{"choices":[{}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}"#;

        let expected = Usage { input_tokens: 3, output_tokens: 2, total_tokens: 5, ..Usage::default() };
        assert_eq!(answer(CHAT, body.as_bytes()).reading, BodyReading::Answer(expected.into()));
    }

    #[test]
    fn fuzz_an_answer_is_json_and_stays_as_it_came_if_it_was() {
        let seeds: [&[u8]; 4] = [
            br#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2}}"#,
            br#"{"object":"list","data":[{"embedding":[0.1,1e-9]}],"usage":{"prompt_tokens":1,"total_tokens":1}}"#,
            br#"{"error":{"message":"x","code":503,"type":"overloaded"}}"#,
            br#"{"object":"response","status":"completed","output":[],"usage":null}"#,
        ];
        bolero::check!().with_type::<NearlyGood>().with_iterations(5_000).for_each(|made| {
            let body = made.bytes(&seeds);
            let is_json = |body: &[u8]| serde_json::from_slice::<&serde_json::value::RawValue>(body).is_ok();
            let was_json = is_json(&body);
            for endpoint in [CHAT, Endpoint::Embeddings, Endpoint::Responses, Endpoint::Moderations] {
                let read = answer(endpoint, &body);
                assert!(!was_json || read.body == body, "it is JSON as it came");
                let is_answer = matches!(read.reading, BodyReading::Answer(_));
                assert!(!is_answer || is_json(&read.body), "an answer is JSON");
            }
        });
    }
}
