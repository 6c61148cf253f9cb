"""Batches whose requests come with them, in place of a file (an extension)."""

import pytest
from openai import BadRequestError, omit

from batches import chat_row


def created(client, requests, **more):
    return client.batches.create(
        input_file_id=omit,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        extra_body={"requests": requests, **more},
    )


def test_requests_make_a_batch_without_a_file(client):
    batch = created(client, [chat_row("r-1"), {"body": {"messages": [{"role": "user", "content": "Hi"}]}}], model="m")

    assert batch.input_file_id.startswith("file-")
    content = client.files.content(batch.input_file_id).text
    assert content.count("\n") == 2
    assert '"custom_id":"request-2"' in content


def test_a_wrong_request_is_named(client):
    with pytest.raises(BadRequestError) as refused:
        created(client, [chat_row("r-1"), {"custom_id": "r-2"}])

    assert refused.value.param == "requests[1].body"
