"""A batch from its creation to its result files (contract §6, §7 and §9)."""

import asyncio
import json

import pytest
from openai import AsyncOpenAI

from batches import (
    BATCH_KEYS,
    CHAT,
    DEADLINE_SECONDS,
    TERMINAL,
    chat_row,
    counts,
    create,
    ids,
    is_http_error_line,
    is_output_line,
    jsonl,
    lines_of,
    run,
    upload,
    wait,
)

DAY = 86_400
NO_USAGE = {
    "input_tokens": 0,
    "input_tokens_details": {"cached_tokens": 0},
    "output_tokens": 0,
    "output_tokens_details": {"reasoning_tokens": 0},
    "total_tokens": 0,
}


def raw_create(client, rows):
    input_file = upload(client, rows)
    response = client.batches.with_raw_response.create(
        input_file_id=input_file.id, endpoint=CHAT, completion_window="24h"
    )
    return response.http_response.json()


def test_a_new_batch_has_all_keys(client):
    assert list(raw_create(client, [chat_row("r-1")])) == BATCH_KEYS


def test_a_new_batch_is_validating_with_everything_else_unset(client):
    raw = raw_create(client, [chat_row("r-1")])

    set_members = {key for key, value in raw.items() if value is not None}
    assert raw["status"] == "validating"
    assert raw["object"] == "batch"
    assert set_members == {
        *("id", "object", "endpoint", "input_file_id", "completion_window", "status"),
        *("created_at", "expires_at", "request_counts", "usage"),
    }


def test_a_new_batch_counts_nothing(client):
    raw = raw_create(client, [chat_row("r-1")])

    assert raw["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert raw["usage"] == NO_USAGE


def test_a_new_batch_echoes_what_was_asked_for(client):
    input_file = upload(client, [chat_row("r-1")])

    batch = client.batches.create(input_file_id=input_file.id, endpoint=CHAT, completion_window="24h")

    assert (batch.input_file_id, batch.endpoint, batch.completion_window) == (input_file.id, CHAT, "24h")


def test_a_batch_expires_a_day_after_its_creation(client):
    batch = create(client, [chat_row("r-1")])

    assert batch.expires_at == batch.created_at + DAY


def test_a_batch_that_waits_for_validation_has_no_model(idle_client):
    assert create(idle_client, [chat_row("r-1")]).model is None


def test_a_batch_names_the_model_of_its_rows(client):
    assert run(client, [chat_row("r-1"), chat_row("r-2")]).model == "simulator"


def test_every_row_that_succeeds_has_an_output_line(client):
    rows = [chat_row(f"r-{number}") for number in range(50)]

    batch = run(client, rows)

    lines = lines_of(client, batch.output_file_id)
    assert batch.status == "completed"
    assert ids(lines) == ids(rows)
    for line in lines:
        is_output_line(line)


def test_the_ids_of_output_lines_are_unique(client):
    batch = run(client, [chat_row(f"r-{number}") for number in range(20)])

    assert len({line["id"] for line in lines_of(client, batch.output_file_id)}) == 20


def test_a_batch_whose_rows_all_succeed_has_no_error_file(client):
    batch = run(client, [chat_row("r-1"), chat_row("r-2")])

    assert batch.error_file_id is None
    assert counts(batch) == (2, 2, 0)


def test_a_completed_batch_has_the_times_of_its_way(client):
    batch = run(client, [chat_row("r-1")])

    ordered = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert ordered == sorted(ordered)
    assert (batch.failed_at, batch.expired_at, batch.cancelling_at, batch.cancelled_at) == (None, None, None, None)


def test_a_completed_batch_has_all_keys(client):
    batch = run(client, [chat_row("r-1")])

    raw = client.batches.with_raw_response.retrieve(batch.id).http_response.json()

    assert list(raw) == BATCH_KEYS
    assert raw["errors"] is None


def test_rows_that_fail_have_an_error_line_and_the_others_an_output_line(client):
    good = [chat_row(f"good-{number}") for number in range(5)]
    bad = [chat_row(f"bad-{number}", model="simulator-fail-400") for number in range(3)]

    batch = run(client, [*good[:3], *bad, *good[3:]])

    assert batch.status == "completed"
    assert counts(batch) == (8, 5, 3)
    assert ids(lines_of(client, batch.output_file_id)) == ids(good)
    assert ids(lines_of(client, batch.error_file_id)) == ids(bad)


def test_an_error_line_has_the_response_and_no_error(client):
    batch = run(client, [chat_row("good"), chat_row("bad", model="simulator-fail-400")])

    [line] = lines_of(client, batch.error_file_id)
    is_http_error_line(line, 400)
    assert line["response"]["body"]["error"]["param"] == "model"


def test_a_batch_whose_rows_all_fail_is_completed_without_an_output_file(client):
    rows = [chat_row(f"r-{number}", model="simulator-fail-400") for number in range(4)]

    batch = run(client, rows)

    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert counts(batch) == (4, 0, 4)
    assert ids(lines_of(client, batch.error_file_id)) == ids(rows)


def test_a_batch_completes_even_if_the_inference_server_fails_throughout(broken_upstream_client):
    client = broken_upstream_client

    batch = run(client, [chat_row("r-1"), chat_row("r-2")])

    assert batch.status == "completed"
    assert batch.output_file_id is None
    assert counts(batch) == (2, 0, 2)
    for line in lines_of(client, batch.error_file_id):
        is_http_error_line(line, 500)


def test_an_answer_over_many_lines_becomes_one_line(client):
    batch = run(client, [chat_row("r-1", model="simulator-pretty"), chat_row("r-2", model="simulator-pretty")])

    lines = lines_of(client, batch.output_file_id)
    assert ids(lines) == ["r-1", "r-2"]
    for line in lines:
        is_output_line(line)


def test_a_web_page_instead_of_an_answer_is_no_output_line(short_window_client):
    # A model whose every answer is a page takes no calls: its rows wait until the window closes.
    client = short_window_client
    batch = run(client, [chat_row("good"), chat_row("page", model="simulator-html")], window="2s")

    assert batch.status == "expired"
    assert ids(lines_of(client, batch.output_file_id)) == ["good"]
    assert ids(lines_of(client, batch.error_file_id)) == ["page"]
    assert counts(batch) == (2, 1, 0)


def test_custom_ids_come_back_as_they_were(client):
    custom_ids = ['"quoted"', "back\\slash", "größe 日本 🙂", "line\nbreak", "\u2028", " spaces ", "x" * 200]

    batch = run(client, [chat_row(custom_id) for custom_id in custom_ids])

    assert ids(lines_of(client, batch.output_file_id)) == sorted(custom_ids)


def test_result_files_are_as_final_as_the_status_says(client):
    # Clients download on the very next call; nothing may come later.
    batch = create(client, [chat_row("good"), chat_row("bad", model="simulator-fail-400")])

    batch = wait(client, batch)

    assert client.files.retrieve(batch.output_file_id).bytes == len(client.files.content(batch.output_file_id).content)
    assert client.files.retrieve(batch.error_file_id).bytes == len(client.files.content(batch.error_file_id).content)


def test_one_input_file_serves_many_batches(client):
    input_file = upload(client, [chat_row("r-1")])
    request = {"input_file_id": input_file.id, "endpoint": CHAT, "completion_window": "24h"}

    first, second = client.batches.create(**request), client.batches.create(**request)

    assert first.id != second.id
    assert [wait(client, first).status, wait(client, second).status] == ["completed", "completed"]


def test_a_running_batch_outlives_its_input_file(client):
    # Whether rows are left when the file goes depends on timing; all of them must have run either way.
    rows = [chat_row(f"r-{number}") for number in range(200)]
    batch = create(client, rows)
    batch = wait(client, batch, TERMINAL | {"in_progress", "finalizing"})
    client.files.delete(batch.input_file_id)

    batch = wait(client, batch)

    assert batch.status == "completed"
    assert ids(lines_of(client, batch.output_file_id)) == ids(rows)


def test_the_asynchronous_client_runs_a_batch(client):
    base_url = client.base_url
    content = jsonl([chat_row("r-1"), chat_row("r-2")])

    async def run_batch():
        async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
            input_file = await client.files.create(file=content, purpose="batch")
            batch = await client.batches.create(input_file_id=input_file.id, endpoint=CHAT, completion_window="24h")
            while batch.status not in TERMINAL:
                await asyncio.sleep(0.05)
                batch = await client.batches.retrieve(batch.id)
            return (await client.files.content(batch.output_file_id)).text

    async def run_batch_in_time():
        return await asyncio.wait_for(run_batch(), DEADLINE_SECONDS)

    text = asyncio.run(run_batch_in_time())

    assert ids(json.loads(line) for line in text.splitlines()) == ["r-1", "r-2"]


def chat_usage(body):
    usage = body["usage"]
    return usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]


def test_usage_is_the_sum_over_the_output_lines(client):
    batch = run(client, [chat_row(f"r-{number}") for number in range(10)])

    used = [chat_usage(line["response"]["body"]) for line in lines_of(client, batch.output_file_id)]
    usage = batch.usage
    assert [usage.input_tokens, usage.output_tokens, usage.total_tokens] == [sum(column) for column in zip(*used)]
    assert usage.total_tokens > 0


def test_usage_keeps_its_details(client):
    batch = run(client, [chat_row("r-1")])

    assert batch.usage.input_tokens_details.cached_tokens == 0
    assert batch.usage.output_tokens_details.reasoning_tokens == 0


def test_rows_that_fail_use_nothing(client):
    batch = run(client, [chat_row("r-1", model="simulator-fail-400")])

    assert batch.usage.to_dict() == NO_USAGE


def test_usage_of_responses_is_summed_under_its_own_names(client):
    rows = [
        {"custom_id": f"r-{n}", "method": "POST", "url": "/v1/responses", "body": {"model": "simulator", "input": "Hi"}}
        for n in range(3)
    ]

    batch = run(client, rows, endpoint="/v1/responses")

    used = [line["response"]["body"]["usage"] for line in lines_of(client, batch.output_file_id)]
    assert batch.usage.input_tokens == sum(usage["input_tokens"] for usage in used)
    assert batch.usage.output_tokens == sum(usage["output_tokens"] for usage in used)


@pytest.mark.parametrize(
    ("endpoint", "body", "expected_object"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "Hi"}]}, "chat.completion"),
        ("/v1/responses", {"input": "Hi"}, "response"),
        ("/v1/embeddings", {"input": ["Hi", "Ho"]}, "list"),
        ("/v1/completions", {"prompt": "Hi"}, "text_completion"),
        # The reply of a moderation has no `object`.
        ("/v1/moderations", {"input": ["Hi", "Ho"]}, None),
    ],
)
def test_a_batch_for_each_endpoint_has_that_endpoints_answers(client, endpoint, body, expected_object):
    rows = [
        {"custom_id": f"r-{n}", "method": "POST", "url": endpoint, "body": {"model": "simulator", **body}}
        for n in range(3)
    ]

    batch = run(client, rows, endpoint=endpoint)

    lines = lines_of(client, batch.output_file_id)
    assert ids(lines) == ["r-0", "r-1", "r-2"]
    assert {line["response"]["body"].get("object") for line in lines} == {expected_object}


def test_the_inputs_of_an_embeddings_row_stay_together(client):
    row = {"custom_id": "r", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": ["a", "b", "c"]}}

    batch = run(client, [row], endpoint="/v1/embeddings")

    [line] = lines_of(client, batch.output_file_id)
    assert [item["index"] for item in line["response"]["body"]["data"]] == [0, 1, 2]
    assert batch.usage.input_tokens == line["response"]["body"]["usage"]["prompt_tokens"]
    assert batch.usage.output_tokens == 0
