"""What makes a batch fail before it starts, and what does not (contract §8.3)."""

import json

import pytest

from batches import BATCH_KEYS, CHAT, chat_row, counts, ids, jsonl, lines_of, row, run, wait

NOT_JSON = b'{"custom_id": "r-2", "method"\n'


def line(value):
    return json.dumps(value).encode() + b"\n"


def failed(client, content, **options):
    """The errors of a batch that fails validation: code, param and line of each."""
    batch = run(client, content, **options)
    assert batch.status == "failed", batch.to_json()
    return [(error.code, error.param, error.line) for error in batch.errors.data]


def test_every_bad_line_is_reported_with_its_number(client):
    content = line(chat_row("r-1")) + NOT_JSON + line(chat_row("r-3")) + line({"custom_id": "r-4"})

    assert failed(client, content) == [
        ("invalid_json_line", None, 2),
        ("missing_required_parameter", "method", 4),
    ]


def test_errors_say_what_is_wrong(client):
    batch = run(client, line(chat_row("r-1")) + NOT_JSON)

    assert batch.errors.object == "list"
    assert [error.message for error in batch.errors.data] == ["This line is not parseable as valid JSON."]


def test_an_error_has_all_its_keys(client):
    batch = run(client, line(chat_row("r-1")) + NOT_JSON)

    raw = client.batches.with_raw_response.retrieve(batch.id).http_response.json()

    assert list(raw) == BATCH_KEYS
    assert sorted(raw["errors"]["data"][0]) == ["code", "line", "message", "param"]


def test_a_failed_batch_ran_nothing(client):
    batch = run(client, line(chat_row("r-1")) + NOT_JSON)

    assert counts(batch) == (0, 0, 0)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.usage.total_tokens == 0


def test_a_failed_batch_has_the_times_of_its_way(client):
    batch = run(client, line(chat_row("r-1")) + NOT_JSON)

    assert batch.failed_at >= batch.created_at
    assert batch.expires_at == batch.created_at + 86_400
    later = (batch.in_progress_at, batch.finalizing_at, batch.completed_at, batch.expired_at, batch.cancelled_at)
    assert later == (None, None, None, None, None)


def test_a_custom_id_that_comes_twice_is_reported_at_the_later_line(client):
    rows = [chat_row("r-1"), chat_row("r-2"), chat_row("r-1")]

    assert failed(client, rows) == [("duplicate_custom_id", "custom_id", 3)]


def test_a_duplicate_custom_id_is_named(client):
    batch = run(client, [chat_row("mine"), chat_row("mine")])

    assert batch.errors.data[0].message == (
        "The custom_id 'mine' for this request is a duplicate of another request. "
        "The custom_id parameter must be unique for each request in a batch."
    )


def test_a_url_of_another_endpoint_is_reported(client):
    rows = [chat_row("r-1"), row("r-2", "/v1/responses", model="simulator", input="Hi")]

    assert failed(client, rows) == [("invalid_url", "url", 2)]


def test_a_url_that_no_batch_can_have_is_reported(client):
    rows = [chat_row("r-1"), row("r-2", "/v1/nothing", model="simulator")]

    assert failed(client, rows) == [("url_not_found", "url", 2)]


def test_a_method_other_than_post_is_reported(client):
    assert failed(client, [{**chat_row("r-1"), "method": "GET"}]) == [("invalid_method", "method", 1)]


@pytest.mark.parametrize("member", ["custom_id", "method", "url", "body"])
def test_a_missing_member_is_reported(client, member):
    incomplete = {key: value for key, value in chat_row("r-2").items() if key != member}

    errors = failed(client, [chat_row("r-1"), incomplete])

    assert errors == [("missing_required_parameter", member, 2)]


def test_a_row_without_a_model_is_reported(client):
    body = {"messages": [{"role": "user", "content": "Hi"}]}

    assert failed(client, [row("r-1", CHAT, **body)]) == [("invalid_request", "body.model", 1)]


def test_a_chat_row_without_messages_is_reported(client):
    assert failed(client, [row("r-1", CHAT, model="simulator")]) == [("invalid_request", "body.messages", 1)]


def test_a_row_that_wants_a_stream_is_reported(client):
    assert failed(client, [chat_row("r-1", stream=True)]) == [("streaming_unsupported", "body.stream", 1)]


@pytest.mark.parametrize("value", ["[1]", '"x"', "null", "7", "true"])
def test_a_line_that_is_no_object_is_reported(client, value):
    errors = failed(client, line(chat_row("r-1")) + value.encode() + b"\n")

    assert [number for _, _, number in errors] == [2]


def test_a_first_line_that_is_json_but_no_object_is_reported(client):
    errors = failed(client, b"[1]\n" + line(chat_row("r-2")))

    assert [number for _, _, number in errors] == [1]


@pytest.mark.parametrize("body", [[], "x", 7])
def test_a_body_that_is_no_object_is_reported(client, body):
    errors = failed(client, [{**chat_row("r-1"), "body": body}])

    assert [(param, number) for _, param, number in errors] == [("body", 1)]


@pytest.mark.parametrize("custom_id", ["", 7, ["r"]])
def test_a_custom_id_that_is_no_text_is_reported(client, custom_id):
    errors = failed(client, [{**chat_row("r-1"), "custom_id": custom_id}])

    assert [(param, number) for _, param, number in errors] == [("custom_id", 1)]


def test_line_numbers_count_blank_lines(client):
    assert failed(client, line(chat_row("r-1")) + b"\n\n" + NOT_JSON) == [("invalid_json_line", None, 4)]


def test_a_file_of_blank_lines_is_empty(client):
    errors = failed(client, b"\n\n")

    assert errors == [("empty_file", None, None)]


def test_an_unknown_input_file_fails_the_batch_and_not_its_creation(client):
    unknown = "file-000000000000000000000a"
    created = client.batches.create(input_file_id=unknown, endpoint=CHAT, completion_window="24h")
    assert created.status == "validating"

    batch = wait(client, created)

    [error] = batch.errors.data
    assert batch.status == "failed"
    assert (error.code, error.param, error.line) == ("invalid_request", "file_id", None)
    assert error.message.startswith(f"Cannot find file {unknown}")


def test_two_models_in_one_batch_are_reported_if_the_server_takes_only_one(single_model_client):
    rows = [chat_row("r-1", model="a"), chat_row("r-2", model="b"), chat_row("r-3", model="a")]

    assert failed(single_model_client, rows) == [("mismatched_model", "body.model", 2)]


def test_one_model_passes_where_only_one_is_taken(single_model_client):
    assert run(single_model_client, [chat_row("r-1"), chat_row("r-2")]).status == "completed"


def completed(client, content):
    batch = run(client, content)
    assert batch.status == "completed", batch.to_json()
    return ids(lines_of(client, batch.output_file_id))


def test_a_byte_order_mark_is_no_part_of_the_first_line(client):
    assert completed(client, b"\xef\xbb\xbf" + jsonl([chat_row("r-1"), chat_row("r-2")])) == ["r-1", "r-2"]


def test_lines_may_end_in_carriage_return_and_line_feed(client):
    content = jsonl([chat_row("r-1"), chat_row("r-2")]).replace(b"\n", b"\r\n")

    assert completed(client, content) == ["r-1", "r-2"]


def test_blank_lines_are_no_rows(client):
    content = b"\n" + line(chat_row("r-1")) + b"\n  \n" + line(chat_row("r-2")) + b"\n\n"

    assert completed(client, content) == ["r-1", "r-2"]


def test_the_last_line_need_not_end(client):
    assert completed(client, jsonl([chat_row("r-1"), chat_row("r-2")]).removesuffix(b"\n")) == ["r-1", "r-2"]


def test_members_beyond_the_four_are_ignored(client):
    assert completed(client, [{**chat_row("r-1"), "note": {"mine": True}}]) == ["r-1"]


def test_a_long_custom_id_is_taken(client):
    assert completed(client, [chat_row("x" * 1000)]) == ["x" * 1000]


def test_parameters_of_a_body_are_left_to_the_inference_server(client):
    assert completed(client, [chat_row("r-1", max_tokens=10**9, unheard_of=["x"])]) == ["r-1"]
