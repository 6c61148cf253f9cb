"""Errors as the SDK raises them (contract §1.6 and §1.7), and the ids of requests."""

import re

import pytest
from openai import APIStatusError, BadRequestError, NotFoundError

from batches import CHAT, chat_row, create

UNKNOWN = "batch_00000000000000000000000000000000"
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")


@pytest.mark.parametrize("action", ["retrieve", "cancel"])
def test_an_unknown_batch_is_not_found(client, action):
    with pytest.raises(NotFoundError) as raised:
        getattr(client.batches, action)(UNKNOWN)

    error = raised.value
    assert error.body["message"] == f"No batch found with id '{UNKNOWN}'."
    assert (error.status_code, error.type, error.param, error.code) == (404, "invalid_request_error", None, None)


def test_an_id_that_begins_like_a_batch_but_is_none_is_not_found(client):
    with pytest.raises(NotFoundError):
        client.batches.retrieve("batch_nonsense")


@pytest.mark.parametrize("action", ["retrieve", "cancel"])
def test_an_id_that_does_not_begin_like_a_batch_is_refused(client, action):
    with pytest.raises(BadRequestError) as raised:
        getattr(client.batches, action)("wrong-id")

    error = raised.value
    assert error.body["message"] == "Invalid 'batch_id': 'wrong-id'. Expected an ID that begins with 'batch'."
    assert (error.param, error.code) == ("batch_id", "invalid_value")


def test_an_unknown_route_is_not_found(client):
    with pytest.raises(NotFoundError) as raised:
        client.get("/x", cast_to=object)

    error = raised.value
    assert error.body["message"] == "Invalid URL (GET /v1/x)"
    assert (error.type, error.param, error.code) == ("invalid_request_error", None, None)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/batches"), ("DELETE", f"/batches/{UNKNOWN}")])
def test_a_method_that_a_route_does_not_have_is_not_allowed(client, method, path):
    with pytest.raises(APIStatusError) as raised:
        getattr(client, method.lower())(path, cast_to=object)

    error = raised.value
    assert (error.status_code, error.type) == (405, "invalid_request_error")
    assert error.body["message"] == f"Not allowed to {method} on /v1{path}."


@pytest.mark.parametrize("path", ["/x", f"/batches/{UNKNOWN}", "/batches/wrong-id", "/files/file-x", "/files?limit=x"])
def test_an_error_has_exactly_four_members(client, path):
    with pytest.raises(APIStatusError) as raised:
        client.get(path, cast_to=object)

    body = raised.value.response.json()
    assert sorted(body["error"]) == ["code", "message", "param", "type"]
    assert raised.value.response.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("path", ["/batches/%FF", "/files/%FF", "/files/%FF/content"])
def test_an_id_that_is_no_text_is_answered_with_the_envelope(client, path):
    # Frameworks answer such a path in plain text on their own, before any handler of the server is asked.
    with pytest.raises(APIStatusError) as raised:
        client.get(path, cast_to=object)

    error = raised.value
    assert error.status_code in {400, 404}
    assert error.response.headers["content-type"].startswith("application/json")
    assert error.type == "invalid_request_error"


def test_a_body_beyond_all_bounds_is_answered_with_the_envelope(client):
    # Likewise: a framework's own bound on bodies must not show through as plain text.
    body = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h", "metadata": {"a": "x" * 1_200_000}}

    with pytest.raises(APIStatusError) as raised:
        client.post("/batches", body=body, cast_to=object)

    error = raised.value
    assert error.status_code in {400, 413}
    assert error.response.headers["content-type"].startswith("application/json")
    assert error.type == "invalid_request_error"


def test_an_error_names_its_request(client):
    with pytest.raises(NotFoundError) as raised:
        client.batches.retrieve(UNKNOWN)

    assert REQUEST_ID.fullmatch(raised.value.request_id)


def test_an_answer_names_its_request(client):
    batch = create(client, [chat_row("r-1")])

    assert REQUEST_ID.fullmatch(batch._request_id)


def test_a_raw_answer_names_its_request(client):
    response = client.batches.with_raw_response.list(limit=1)

    assert REQUEST_ID.fullmatch(response.headers["x-request-id"])
    assert response.headers["content-type"].startswith("application/json")


def test_every_request_has_an_id_of_its_own(client):
    first, second = (client.batches.with_raw_response.list(limit=0).request_id for _ in range(2))

    assert first != second
