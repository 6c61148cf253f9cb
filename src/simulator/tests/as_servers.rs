//! The simulator refuses and answers as servers do.

use super::*;

#[tokio::test]
async fn a_request_for_json_is_answered_in_its_shape() {
    let router = Simulator::new(instant()).router();
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" }, "n": { "type": "integer" } },
        "required": ["city", "n"], "additionalProperties": false });
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let named = json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let chat = |format: &Value, stream: bool| {
        json!({ "model": "m", "messages": messages, "response_format": format, "stream": stream }).to_string()
    };
    let matches = |text: &str| jsonschema::is_valid(&schema, &serde_json::from_str(text).expect("it is JSON"));

    let answer = json_body(post(&router, CHAT, None, chat(&named, false)).await).await;
    assert!(matches(answer["choices"][0]["message"]["content"].as_str().unwrap()), "{answer}");

    let events = text(post(&router, CHAT, None, chat(&named, true)).await).await;
    let deltas = events
        .split("data: {")
        .skip(1)
        .map(|event| serde_json::from_str::<Value>(&format!("{{{}", event.split("\n\n").next().unwrap())).unwrap());
    let said: String =
        deltas.filter_map(|event| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect();
    assert!(matches(&said), "{said}");

    let format = json!({ "type": "json_schema", "name": "x", "schema": schema });
    let body = json!({ "model": "m", "input": "hi", "text": { "format": format } }).to_string();
    let answer = json_body(post(&router, "/v1/responses", None, body).await).await;
    assert!(matches(answer["output"][0]["content"][0]["text"].as_str().unwrap()), "{answer}");

    let answer = json_body(post(&router, CHAT, None, chat(&json!({ "type": "json_object" }), false)).await).await;
    let object: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap()).unwrap();
    assert!(object.is_object());
}

#[tokio::test]
async fn only_the_models_that_are_given_are_there() {
    let router = Simulator::new(SimulatorArgs { models: vec!["a".into(), "b".into()], ..instant() }).router();

    let refused = post(&router, CHAT, None, chat("c")).await;
    assert_eq!(refused.status(), StatusCode::NOT_FOUND);
    let error = json_body(refused).await;
    assert_eq!((&error["error"]["code"], &error["error"]["param"]), (&json!("model_not_found"), &json!("model")));
    assert_eq!(post(&router, CHAT, None, chat("b")).await.status(), StatusCode::OK);
    let list = router.oneshot(Request::get("/v1/models").body(Body::empty()).unwrap()).await.unwrap();
    let list = json_body(list).await;
    assert_eq!(list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn messages_that_no_server_takes_are_refused() {
    let router = Simulator::new(instant()).router();
    let body = json!({ "model": "m", "messages": [{ "role": "robot", "content": "hi" }] }).to_string();

    let refused = post(&router, CHAT, None, body).await;

    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let error = json_body(refused).await["error"].clone();
    assert_eq!((&error["type"], &error["param"]), (&json!("invalid_request_error"), &json!("messages[0].role")));
}

#[tokio::test]
async fn a_row_that_failed_may_succeed_when_it_is_sent_again_in_another_batch() {
    let router = Simulator::new(SimulatorArgs { fail_rate: 0.5, seed: 7, ..instant() }).router();

    let mut failures = 0;
    for batch in 0..200 {
        failures += u32::from(!post(&router, CHAT, Some(&batch.to_string()), chat("m")).await.status().is_success());
    }

    assert!((70..=130).contains(&failures), "{failures}");
}
