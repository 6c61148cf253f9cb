//! Whose doing an answer is: the row's, or the state of the server, for which no row pays.

use memchr::memmem;

use crate::config::ExhaustedQuota;
use crate::domain::outcome::{BodyReading, HttpResponse};

/// A row that was refused so often in a row, while the server took others, is refused for what it is.
const MOST_REFUSALS: u32 = 20;

/// What an answer says of the server that gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::upstream) enum Judgement {
    /// The server took the row, and this is its answer to it, good or bad.
    Answered,
    /// The server takes no further call now.
    Busy,
    /// The server is not there, for a reason: what stands before it reaches nothing.
    Gone(&'static str),
    /// The same, unless the server shows its models: then it fails with this row only.
    GoneUnlessItShowsModels(&'static str),
    /// The server takes no row at all, for a reason: it does not let this program in.
    Unavailable(&'static str),
    /// The server takes no row at all unless it shows its models: then it refuses this row only.
    UnavailableUnlessItShowsModels(&'static str),
}

/// What is known of the row that an answer is for.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::upstream) struct RowSigns {
    /// The server has taken another row since this row's call was sent, or since this row was last refused.
    pub(in crate::upstream) has_taken_others: bool,
    /// The server has taken rows lately, and fails with all of them now.
    pub(in crate::upstream) all_fail: bool,
    /// How often in a row this row was refused before.
    pub(in crate::upstream) refusals: u32,
}

/// Judges an answer to a row.
pub(in crate::upstream) fn judge(response: &HttpResponse, row: RowSigns) -> Judgement {
    let is_refused_alone = row.has_taken_others && row.refusals >= MOST_REFUSALS;
    if response.should_retry == Some(false) || is_refused_alone || is_too_large(response) {
        return Judgement::Answered;
    }
    // The last rows of all may be the only ones that a server fails with, which no other row would show.
    let gone = |why| match row.refusals {
        MOST_REFUSALS.. => Judgement::GoneUnlessItShowsModels(why),
        _ => Judgement::Gone(why),
    };
    if matches!(response.reading, BodyReading::Unreadable(_)) && !row.has_taken_others {
        return gone("something else than the server answers");
    }
    match response.status {
        429 | 503 | 529 if is_unpaid(response) => Judgement::Unavailable("the account has no quota left"),
        429 | 503 | 529 => Judgement::Busy,
        300..=399 => Judgement::Unavailable("it redirects: check --upstream, or the URL in its table"),
        401 => Judgement::Unavailable("it refuses the key: check --upstream-key, or the key in its table"),
        402 => Judgement::Unavailable("it asks for a payment"),
        _ if row.has_taken_others => Judgement::Answered,
        502 | 504 | 520..=527 | 530 => gone("its gateway reaches no server"),
        _ if row.all_fail && is_server_error(response) => Judgement::Gone("it answers every row with an error"),
        403 => Judgement::UnavailableUnlessItShowsModels(
            "it refuses every call: check --upstream-key, or the key in its table",
        ),
        404 | 405 if shows_no_endpoint(response) => Judgement::UnavailableUnlessItShowsModels(
            "it has no such path: check the path of --upstream, or the URL in its table",
        ),
        _ => Judgement::Answered,
    }
}

/// An answer to a row, which is final if it says that no quota is left and such rows are to fail.
pub(in crate::upstream) fn with_quota_judged(response: HttpResponse, exhausted: ExhaustedQuota) -> HttpResponse {
    match exhausted {
        ExhaustedQuota::Fail if is_unpaid(&response) => HttpResponse { should_retry: Some(false), ..response },
        _ => response,
    }
}

/// Whether an answer shows that the server takes rows, even if it refuses this one.
pub(in crate::upstream) fn shows_that_rows_are_taken(response: &HttpResponse) -> bool {
    response.is_success() || matches!(response.status, 400 | 413 | 422)
}

/// Whether an answer says that the server failed. One that lacks something (501, 505) did not.
pub(in crate::upstream) fn is_server_error(response: &HttpResponse) -> bool {
    matches!(response.status, 500..=599) && !matches!(response.status, 501 | 505)
}

/// Whether an answer says that there is no such endpoint. An unknown model is answered 404 too, but with the word; and
/// so is an unknown response or item, but with its id.
pub(in crate::upstream) fn shows_no_endpoint(response: &HttpResponse) -> bool {
    if !matches!(response.status, 404 | 405 | 501) {
        return false;
    }
    let body = String::from_utf8_lossy(&response.body).to_ascii_lowercase();
    let is_page = body.trim_start().starts_with('<');
    is_page || !body.contains("model") && !body.contains("with id")
}

/// Whether an answer that is final for a row may be its server's doing, so that another server with the model is to be
/// asked too: the server does not have the model or the path, does not let the row in, wants to be paid, or answers
/// with a page.
pub(in crate::upstream) fn is_doubtful(response: &HttpResponse, has_succeeded: bool) -> bool {
    match response.status {
        200..=299 => !response.is_success(),
        400 | 422 => !has_succeeded || memmem::find(&response.body, b"model_not_found").is_some(),
        403 | 404 | 405 | 501 => true,
        _ => is_unpaid(response),
    }
}

/// Whether a refusal is for the size of the row, which no wait makes smaller. OpenAI answers so, with status 429, if a
/// row has more tokens than a minute's limit.
fn is_too_large(response: &HttpResponse) -> bool {
    response.status == 429 && String::from_utf8_lossy(&response.body).contains("Request too large")
}

/// Whether an answer is a refusal for what was paid rather than for the load. Waiting helps only once somebody pays.
fn is_unpaid(response: &HttpResponse) -> bool {
    if !matches!(response.status, 402 | 429 | 503 | 529) {
        return false;
    }
    let body = String::from_utf8_lossy(&response.body);
    response.status == 402
        || ["insufficient_quota", "billing_hard_limit_reached"].iter().any(|code| body.contains(code))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn answer(status: u16, body: &'static str) -> HttpResponse {
        HttpResponse { status, body: Bytes::from_static(body.as_bytes()), ..HttpResponse::default() }
    }

    #[test]
    fn an_answer_is_the_rows_or_the_state_of_its_server() {
        let quota = r#"{"error":{"message":"You exceeded your current quota","code":"insufficient_quota"}}"#;
        let unknown = r#"{"error":{"message":"The model `m` does not exist","code":"model_not_found"}}"#;
        let too_large = r#"{"error":{"message":"Request too large for gpt-4 on tokens per min (TPM)"}}"#;
        let (answered, busy) = ("answered", "busy");
        let (away, unless) = ("unavailable", "unless it shows models");
        let judged = |response: &HttpResponse, has_taken_others, refusals| match judge(
            response,
            RowSigns { has_taken_others, refusals, ..RowSigns::default() },
        ) {
            Judgement::Answered => answered,
            Judgement::Busy => busy,
            Judgement::Gone(_) | Judgement::Unavailable(_) => away,
            Judgement::GoneUnlessItShowsModels(_) | Judgement::UnavailableUnlessItShowsModels(_) => unless,
        };
        // The judgement if nothing else was answered, and if another row was.
        let cases = [
            (answer(200, "{}"), answered, answered),
            (HttpResponse { reading: BodyReading::Unreadable("".into()), ..answer(200, "") }, away, answered),
            (answer(400, "{}"), answered, answered),
            (answer(408, ""), answered, answered),
            (answer(409, ""), answered, answered),
            (answer(422, ""), answered, answered),
            (answer(429, ""), busy, busy),
            (answer(503, r#"{"error":{"message":"Loading model"}}"#), busy, busy),
            (answer(529, ""), busy, busy),
            (answer(429, quota), away, away),
            (answer(429, too_large), answered, answered),
            (answer(500, ""), answered, answered),
            (answer(501, ""), answered, answered),
            (answer(502, ""), away, answered),
            (answer(504, ""), away, answered),
            (answer(522, ""), away, answered),
            (answer(530, ""), away, answered),
            (answer(404, "<p>See our model catalog"), unless, answered),
            (answer(307, ""), away, away),
            (answer(401, ""), away, away),
            (answer(402, ""), away, away),
            (answer(403, ""), unless, answered),
            (answer(404, r#"{"detail":"Not Found"}"#), unless, answered),
            (answer(404, unknown), answered, answered),
            (HttpResponse { should_retry: Some(false), ..answer(429, "") }, answered, answered),
        ];
        for (response, alone, among_others) in cases {
            let exhausted = if response == answer(429, quota) || response.status == 402 { answered } else { alone };
            let settled = with_quota_judged(response.clone(), ExhaustedQuota::Fail);
            assert_eq!(judged(&settled, false, 0), exhausted, "{response:?}");
            assert_eq!(with_quota_judged(response.clone(), ExhaustedQuota::Wait), response);
            for (has_taken_others, refusals, expected) in [
                (false, 0, alone),
                (true, 0, among_others),
                (false, MOST_REFUSALS - 1, alone),
                (true, MOST_REFUSALS, answered),
            ] {
                let judged = judged(&response, has_taken_others, refusals);
                assert_eq!(judged, expected, "{response:?} {has_taken_others} {refusals}");
            }
        }
    }

    #[test]
    fn an_error_is_the_servers_if_it_fails_with_all_rows() {
        for (status, has_taken_others, expected) in
            [(500, false, false), (599, false, false), (500, true, true), (501, false, true), (400, false, true)]
        {
            let row = RowSigns { has_taken_others, all_fail: true, ..RowSigns::default() };
            assert_eq!(judge(&answer(status, ""), row) == Judgement::Answered, expected, "{status}");
        }
    }

    #[test]
    fn a_row_that_was_refused_often_is_charged_if_the_server_shows_its_models() {
        let page = HttpResponse { reading: BodyReading::Unreadable("".into()), ..answer(200, "") };
        for (refusals, expected) in [(MOST_REFUSALS, true), (MOST_REFUSALS - 1, false)] {
            let row = RowSigns { refusals, ..RowSigns::default() };
            for response in [answer(502, ""), page.clone()] {
                let judged = judge(&response, row);
                assert_eq!(matches!(judged, Judgement::GoneUnlessItShowsModels(_)), expected, "{refusals}");
            }
            assert_eq!(judge(&answer(429, ""), row), Judgement::Busy, "a rate limit says nothing of the row");
        }
    }
}
