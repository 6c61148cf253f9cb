"""Anthropic's SDK as a client of the Message Batches API."""

import json
import time
from datetime import datetime, timedelta

import anthropic
import httpx2
import pytest
from anthropic import Anthropic
from anthropic.types.messages import DeletedMessageBatch, MessageBatch, MessageBatchIndividualResponse

from batches import DEADLINE_SECONDS
from strict import strictly


def connected(client, **options):
    host = str(client.base_url).removesuffix("/").removesuffix("/v1")
    return Anthropic(base_url=host, api_key="any", **options)


@pytest.fixture(scope="module")
def messages(client):
    """`Anthropic` in front of the shared server."""
    with connected(client) as messages:
        yield messages


def request(custom_id, model="simulator", **params):
    content = [{"role": "user", "content": f"What is {custom_id}?"}]
    return {"custom_id": custom_id, "params": {"model": model, "max_tokens": 64, "messages": content, **params}}


def wait(messages, batch):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        batch = messages.messages.batches.retrieve(batch.id)
        if batch.processing_status == "ended":
            return batch
        time.sleep(0.05)
    raise AssertionError(f"waited for the end, but the batch is {batch.to_json()}")


def run(messages, requests):
    return wait(messages, messages.messages.batches.create(requests=requests))


def with_times(raw):
    """A batch with its times read, which strict parsing does not do."""
    times = ("archived_at", "cancel_initiated_at", "created_at", "ended_at", "expires_at")
    read = {name: raw[name] and datetime.fromisoformat(raw[name].replace("Z", "+00:00")) for name in times}
    return {**raw, **read}


def test_a_new_batch_has_all_members_of_its_type(messages):
    raw = messages.messages.batches.with_raw_response.create(requests=[request("a"), request("b")])
    batch = raw.parse()

    strictly(MessageBatch, with_times(raw.http_response.json()))
    assert raw.headers["request-id"].startswith("req_")
    assert (batch.type, batch.processing_status, batch.results_url) == ("message_batch", "in_progress", None)
    assert batch.request_counts.processing == 2
    assert batch.expires_at - batch.created_at == timedelta(days=1)
    assert batch.id.startswith("msgbatch_")


def test_results_say_what_became_of_each_request(messages):
    batch = run(messages, [request("good"), request("bad", "simulator-fail-400"), request("short", max_tokens=None)])

    results = {line.custom_id: line.result for line in messages.messages.batches.results(batch.id)}

    assert sorted(results) == ["bad", "good", "short"]
    message = results["good"].message
    assert (message.type, message.role, message.stop_reason) == ("message", "assistant", "end_turn")
    assert message.content[0].text and message.usage.output_tokens > 0
    for failed in (results["bad"], results["short"]):
        assert (failed.type, failed.error.error.type) == ("errored", "invalid_request_error")
    counts = batch.request_counts
    assert (counts.processing, counts.succeeded, counts.errored) == (0, 1, 2)
    assert batch.ended_at >= batch.created_at


def test_every_line_of_results_is_in_order(messages):
    batch = run(messages, [request("good"), request("bad", "simulator-fail-400")])

    lines = httpx2.get(batch.results_url, trust_env=False).text.splitlines()

    assert len(lines) == 2
    for line in lines:
        strictly(MessageBatchIndividualResponse, json.loads(line))


def test_batches_are_listed_newest_first_over_pages(messages):
    made = [messages.messages.batches.create(requests=[request("a")]).id for _ in range(5)]

    listed = []
    for batch in messages.messages.batches.list(limit=2):
        listed.append(batch.id)
        if len(listed) == 5:
            break

    assert listed == made[::-1]
    before = messages.messages.batches.list(limit=2, before_id=made[1])
    assert [batch.id for batch in before.data] == [made[3], made[2]]
    assert before.has_more and before.first_id == made[3]


def test_a_batch_is_canceled(messages):
    batch = messages.messages.batches.create(requests=[request("a", "simulator-hang"), request("b", "simulator-hang")])

    canceled = messages.messages.batches.cancel(batch.id)
    ended = wait(messages, batch)

    assert canceled.processing_status in ("canceling", "ended")
    assert canceled.cancel_initiated_at is not None
    assert ended.request_counts.canceled == 2
    results = list(messages.messages.batches.results(batch.id))
    assert {(line.custom_id, line.result.type) for line in results} == {("a", "canceled"), ("b", "canceled")}


def test_a_batch_is_deleted_once_it_has_ended(messages):
    batch = messages.messages.batches.create(requests=[request("a", "simulator-hang")])
    with pytest.raises(anthropic.BadRequestError):
        messages.messages.batches.delete(batch.id)
    messages.messages.batches.cancel(batch.id)
    wait(messages, batch)

    deleted = messages.messages.batches.delete(batch.id)

    strictly(DeletedMessageBatch, deleted.to_dict())
    assert deleted.id == batch.id
    with pytest.raises(anthropic.NotFoundError):
        messages.messages.batches.retrieve(batch.id)


def test_errors_are_those_of_the_sdk(messages):
    batches = messages.messages.batches
    cases = [
        (lambda: batches.retrieve("msgbatch_unknown"), anthropic.NotFoundError, "not_found_error"),
        (lambda: batches.create(requests=[]), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: batches.create(requests=[request("a"), request("a")]), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: batches.create(requests=[request("a b")]), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: batches.create(requests=[request("a", stream=True)]), anthropic.BadRequestError, "invalid_request_error"),
        (lambda: batches.list(limit=0), anthropic.BadRequestError, "invalid_request_error"),
    ]
    for call, kind, name in cases:
        with pytest.raises(kind) as raised:
            call()
        assert raised.value.body["error"]["type"] == name
        assert raised.value.request_id == raised.value.body["request_id"]


def test_results_that_are_not_there_yet_are_an_error_of_the_sdk(idle_client):
    with connected(idle_client) as messages:
        batch = messages.messages.batches.create(requests=[request("a")])

        assert batch.request_counts.processing == 1
        assert messages.messages.batches.retrieve(batch.id).request_counts.processing == 1
        with pytest.raises(anthropic.AnthropicError, match="Has it finished processing"):
            messages.messages.batches.results(batch.id)
