//! Any bytes as the body of an answer make one line of JSON, and lose no row.

use std::collections::HashSet;

use batchwright::domain::answer::{Answer, read, without_lone_surrogates};
use batchwright::domain::endpoint::Endpoint;
use batchwright::domain::ids::{BatchId, RequestId};
use batchwright::domain::line;
use batchwright::domain::outcome::HttpResponse;
use batchwright::domain::response::{ItemIds, StepPath};
use batchwright::upstream::dialect::{chat, native};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use crate::cases::{Case, Sent, Target};
use crate::upstream::WildUpstream;
use crate::{Seen, app, run_among_others};

const SEED: u64 = 7;
const PIECES: [&[u8]; 16] = [
    b"\xef\xbb\xbf",
    b"data: ",
    b"[DONE]",
    b"\n",
    b"\r",
    "\u{2028}".as_bytes(),
    "\u{85}".as_bytes(),
    b"\\ud83d",
    b"NaN",
    b"-Infinity",
    b"\"",
    b"\\",
    b"{",
    b"]",
    b"\0",
    b"\xe2\x80",
];

/// Bodies that are answers but for some bytes, and bodies that are none.
fn body(random: &mut StdRng) -> Vec<u8> {
    const TARGETS: [Target; 4] = [Target::Chat, Target::Embeddings, Target::Native, Target::Checked];
    let mut body = TARGETS[random.random_range(0..TARGETS.len())].good().as_bytes().to_vec();
    for _ in 0..random.random_range(0..4) {
        let at = random.random_range(0..=body.len());
        let piece = PIECES[random.random_range(0..PIECES.len())];
        match random.random_range(0..4) {
            0 => body.truncate(at),
            1 => body.splice(at..at, piece.iter().copied()).for_each(drop),
            2 => body.splice(at..at, [random.random()]).for_each(drop),
            _ => drop(body.drain(at..body.len().min(at + 5))),
        }
    }
    if random.random_range(0..10) == 0 {
        body = (0..random.random_range(0..200)).map(|_| random.random()).collect();
    }
    body
}

fn lines(body: &[u8], random: &mut StdRng) -> Vec<Vec<u8>> {
    let id = RequestId { batch: BatchId::new(), row: 0 };
    let endpoint = Endpoint::ALL[random.random_range(0..Endpoint::ALL.len())];
    let status = [200, 200, 200, 204, 400, 500][random.random_range(0..6)];
    let came = HttpResponse { status, body: body.to_vec().into(), ..HttpResponse::default() };
    let ended =
        [read(endpoint, came.clone()), came].map(|response| response.succeeded(&|_| false).and_then(Answer::of));
    let line = |ended| match ended {
        Ok(answer) => line::completed(id, "a", &answer),
        Err(reason) => line::failed(id, "a", &reason),
    };
    ended.map(line).into()
}

#[test]
fn any_bytes_make_one_line_of_json() {
    let mut random = StdRng::seed_from_u64(SEED);
    let ids = ItemIds::of_step(RequestId { batch: BatchId::new(), row: 0 }, &StepPath::root().child(0));
    for number in 0..20_000 {
        let body = body(&mut random);
        for line in lines(&body, &mut random) {
            let text = str::from_utf8(&line).unwrap_or_else(|error| panic!("{number}: {error} {body:?}"));
            let ends = text.chars().filter(|c| matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')).count();
            assert!(ends == 1 && text.ends_with('\n'), "{number}: {text}");
            let value: Value = serde_json::from_slice(&without_lone_surrogates(&line))
                .unwrap_or_else(|error| panic!("{number}: {error} {text}"));
            assert_eq!(value["custom_id"], "a");
        }
        // They are read as turns only if they are answers, but must hold out in any case.
        let _ = chat::turn(&body, &ids, &HashSet::new());
        let _ = native::turn(&body, &ids, &HashSet::new());
    }
}

#[tokio::test]
async fn any_bytes_as_answers_lose_no_row() {
    let mut random = StdRng::seed_from_u64(SEED);
    let cases: Vec<Case> = (0..200).map(|number| Case::with_body(&number.to_string(), body(&mut random))).collect();
    let upstream = WildUpstream::start(cases.clone(), Sent::ok(Target::Chat.good())).await;
    let app = app(&upstream, Target::Chat).await;

    let asked: Vec<&str> = cases.iter().map(|case| &*case.name).collect();
    let Seen { results, .. } = run_among_others(&app, Target::Chat, &asked).await;

    let names: HashSet<&str> =
        results.output.iter().chain(&results.errors).filter_map(|line| line["custom_id"].as_str()).collect();
    assert_eq!((results.output.len() + results.errors.len(), names.len()), (200, 200));
}
