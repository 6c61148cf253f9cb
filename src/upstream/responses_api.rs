//! Whether a server has `/v1/responses`: as the settings say, or as the server's answers show.
//!
//! What an answer shows is believed for a while only, because a server can be replaced while this program runs. One
//! refusal decides nothing but its own call: a gateway may have given it. Two without an answer between are believed
//! for [`BELIEVED_FOR`]. Then one call asks again, and until it is answered the others go to chat
//! completions. An API that has answered is believed to be there until nothing but refusals has come for as long.

use std::sync::atomic::{AtomicI64, AtomicU8, Ordering::Relaxed};
use std::time::Duration;

use super::admission::shows_no_endpoint;
use crate::config::Dialect;
use crate::domain::outcome::HttpResponse;
use crate::domain::time::Clock;

/// How long an answer is believed that shows whether the API is there.
pub const BELIEVED_FOR: Duration = Duration::from_mins(5);

/// No answer has shown anything.
const UNKNOWN: u8 = 0;
/// The API has answered, and has not refused a call since.
const HAS: u8 = 1;
/// The API has answered before, and has refused calls since.
const DOUBTED: u8 = 2;
/// The API is not there.
const LACKS: u8 = 3;
/// One call was refused, and none has been answered.
const SUSPECTED: u8 = 4;

/// The Responses API of one server, as far as it is known.
#[derive(Debug)]
pub struct ResponsesApi {
    dialect: Dialect,
    clock: Clock,
    /// The state, which every call reads and which only changes write.
    state: AtomicU8,
    /// Until when `DOUBTED` or `LACKS` is believed, in milliseconds since the Unix epoch.
    until: AtomicI64,
}

impl ResponsesApi {
    /// The API of a server that is called in `dialect`.
    #[must_use]
    pub fn new(dialect: Dialect, clock: Clock) -> Self {
        Self { dialect, clock, state: AtomicU8::new(UNKNOWN), until: AtomicI64::new(0) }
    }

    /// Whether the next call goes to `/v1/responses`. Once a refusal is no longer believed, one caller is told so,
    /// whose call asks again.
    pub(crate) fn is_next(&self) -> bool {
        self.is_used() || (self.dialect == Dialect::Auto && self.is_to_ask_again())
    }

    /// Whether calls go to `/v1/responses` without asking again whether it is there.
    pub(crate) fn is_used(&self) -> bool {
        match self.dialect {
            Dialect::Native => true,
            Dialect::Chat => false,
            Dialect::Auto => self.state.load(Relaxed) != LACKS,
        }
    }

    /// Whether `/v1/responses` may be called although [`Self::is_next`] says no.
    pub(crate) fn may_be_tried(&self) -> bool {
        self.dialect == Dialect::Auto
    }

    /// Whether the API has answered a call.
    pub(crate) fn has_answered(&self) -> bool {
        matches!(self.state.load(Relaxed), HAS | DOUBTED)
    }

    /// Whether an answer to a call of `/v1/responses` shows that there is no such API, so that the call is to be made
    /// through chat completions. The answer is remembered.
    pub(crate) fn is_lacking(&self, response: &HttpResponse) -> bool {
        if self.dialect != Dialect::Auto {
            return false;
        }
        if response.is_success() {
            if self.state.load(Relaxed) != HAS {
                self.state.store(HAS, Relaxed);
            }
            return false;
        }
        if !shows_no_endpoint(response) {
            return false;
        }
        match self.state.load(Relaxed) {
            HAS => {
                self.believe_from_now();
                self.state.store(DOUBTED, Relaxed);
                return false;
            }
            DOUBTED if self.is_believed() => return false,
            UNKNOWN => {
                self.state.store(SUSPECTED, Relaxed);
                return true;
            }
            _ => {}
        }
        self.believe_from_now();
        if self.state.swap(LACKS, Relaxed) != LACKS {
            tracing::info!("the upstream has no /v1/responses; rows for it are sent to /v1/chat/completions");
        }
        true
    }

    fn is_believed(&self) -> bool {
        self.clock.now().0 < self.until.load(Relaxed)
    }

    fn believe_from_now(&self) {
        self.until.store(self.clock.now().plus(BELIEVED_FOR).0, Relaxed);
    }

    /// Whether the caller is the first since the refusal is no longer believed. If its call has no answer, another
    /// caller is the first after the same time.
    fn is_to_ask_again(&self) -> bool {
        let (now, until) = (self.clock.now(), self.until.load(Relaxed));
        let next = now.plus(BELIEVED_FOR).0;
        now.0 >= until && self.until.compare_exchange(until, next, Relaxed, Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::domain::time::Timestamp;

    fn answer(status: u16, body: &'static str) -> HttpResponse {
        HttpResponse { status, body: Bytes::from_static(body.as_bytes()), ..HttpResponse::default() }
    }

    fn api(dialect: Dialect) -> (ResponsesApi, Clock) {
        let clock = Clock::manual(Timestamp(1_000_000));
        (ResponsesApi::new(dialect, clock.clone()), clock)
    }

    #[test]
    fn a_missing_endpoint_is_told_from_a_missing_model() {
        let cases = [
            (404, r#"{"detail":"Not Found"}"#, true),
            (404, "404 page not found", true),
            (404, r#"{"error":{"code":404,"message":"File Not Found","type":"not_found_error"}}"#, true),
            (405, "", true),
            (501, r#"{"error":{"message":"not implemented"}}"#, true),
            (404, r#"{"object":"error","message":"The model `m` does not exist.","code":404}"#, false),
            (404, r#"{"error":{"message":"Response with id 'resp_1' not found.","code":404}}"#, false),
            (404, r#"{"error":{"message":"Item with id 'rs_1' not found. Items are not persisted"}}"#, false),
            (400, r#"{"detail":"Not Found"}"#, false),
            (200, "{}", false),
            (500, "", false),
        ];
        for (status, body, expected) in cases {
            let response = answer(status, body);

            assert_eq!(shows_no_endpoint(&response), expected, "{status}");
            let (api, _) = api(Dialect::Auto);
            assert!(api.is_next());
            assert_eq!(api.is_lacking(&response), expected);
            assert!(api.is_next(), "one refusal decides nothing");
            assert_eq!(api.is_lacking(&response), expected);
            assert_eq!(api.is_next(), !expected, "it is remembered");
            let (told, _) = self::api(Dialect::Native);
            assert!(!told.is_lacking(&response), "who says so is believed");
        }
    }

    #[test]
    fn an_endpoint_that_has_answered_is_there() {
        let (api, _) = api(Dialect::Auto);

        assert!(!api.is_lacking(&answer(200, "")));
        assert!(!api.is_lacking(&answer(404, "")));
        assert!(api.is_next());
    }

    #[test]
    fn refusals_with_an_answer_between_them_show_nothing() {
        let (api, _) = api(Dialect::Auto);

        assert!(api.is_lacking(&answer(404, "")), "its own call goes to chat completions");
        assert!(!api.is_lacking(&answer(200, "{}")));
        assert!(!api.is_lacking(&answer(404, "")));
        assert!(api.is_next());
    }

    #[test]
    fn a_missing_endpoint_is_asked_for_again_by_one_call_after_a_while() {
        let (api, clock) = api(Dialect::Auto);
        assert!(api.is_lacking(&answer(404, "")) && api.is_lacking(&answer(404, "")));

        clock.advance(BELIEVED_FOR / 2);
        assert!(!api.is_next());
        clock.advance(BELIEVED_FOR / 2);
        assert_eq!([api.is_next(), api.is_next()], [true, false], "one call asks, the others wait for its answer");
        clock.advance(BELIEVED_FOR);
        assert!(api.is_next(), "the call that asked had no answer");

        assert!(!api.is_lacking(&answer(200, "{}")));
        assert!(api.is_next() && api.is_next(), "the server has it by now");
    }

    #[test]
    fn an_endpoint_is_gone_once_nothing_but_refusals_came_for_a_while() {
        let (api, clock) = api(Dialect::Auto);
        let half = BELIEVED_FOR / 2;
        api.is_lacking(&answer(200, "{}"));
        clock.advance(BELIEVED_FOR * 9);

        assert!(!api.is_lacking(&answer(404, "")), "the first refusal is its row's own affair");
        clock.advance(half);
        assert!(!api.is_lacking(&answer(200, "{}")));
        clock.advance(half);
        assert!(!api.is_lacking(&answer(404, "")), "it has answered since");
        clock.advance(half);
        assert!(!api.is_lacking(&answer(404, "")));
        clock.advance(half);
        assert!(api.is_lacking(&answer(404, "")));
        assert!(!api.is_next());
    }
}
