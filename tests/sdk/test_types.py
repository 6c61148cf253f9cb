"""Objects against the SDK's own models, strictly: right types, right literals, nothing the SDK does not know."""

import pytest
from openai.types import Batch, BatchUsage, FileDeleted, FileObject
from openai.types.chat import ChatCompletion

from batches import chat_row, create, lines_of, run, upload, wait, wait_until
from strict import strictly


def raw_batch(client, batch):
    return client.batches.with_raw_response.retrieve(batch.id).http_response.json()


@pytest.mark.parametrize("expires_after", [None, {"anchor": "created_at", "seconds": 3600}])
def test_a_file_is_a_file_object(client, expires_after):
    options = {"expires_after": expires_after} if expires_after else {}
    file = client.files.create(file=b"Notes", purpose="user_data", **options)

    strictly(FileObject, client.files.with_raw_response.retrieve(file.id).http_response.json())


def test_result_files_are_file_objects(client):
    batch = run(client, [chat_row("good"), chat_row("bad", model="simulator-fail-400")])

    for file_id in (batch.output_file_id, batch.error_file_id):
        strictly(FileObject, client.files.with_raw_response.retrieve(file_id).http_response.json())


def test_every_file_of_a_list_is_a_file_object(client):
    upload(client, [chat_row("r-1")])

    for raw in client.files.with_raw_response.list().http_response.json()["data"]:
        strictly(FileObject, raw)


def test_a_deletion_is_a_deletion(client):
    file = upload(client, [chat_row("r-1")])

    strictly(FileDeleted, client.files.with_raw_response.delete(file.id).http_response.json())


def test_a_validating_batch_is_a_batch(idle_client):
    strictly(Batch, raw_batch(idle_client, create(idle_client, [chat_row("r-1")], metadata={"a": "b"})))


def test_a_completed_batch_is_a_batch(client):
    strictly(Batch, raw_batch(client, run(client, [chat_row("r-1")])))


def test_a_failed_batch_is_a_batch(client):
    batch = run(client, [chat_row("r-1"), {"custom_id": "r-2"}])

    assert strictly(Batch, raw_batch(client, batch)).errors.data[0].line == 2


def test_a_batch_in_progress_that_is_called_off_is_a_batch_throughout(client):
    batch = create(client, [chat_row("r-1", model="simulator-hang")])
    wait(client, batch, {"in_progress"})

    strictly(Batch, raw_batch(client, batch))
    strictly(Batch, client.batches.with_raw_response.cancel(batch.id).http_response.json())
    strictly(Batch, raw_batch(client, wait(client, batch)))


def test_an_expired_batch_is_a_batch(short_window_client):
    batch = run(short_window_client, [chat_row("r-1", model="simulator-hang")], window="2s")

    strictly(Batch, raw_batch(short_window_client, batch))


def test_every_batch_of_a_list_is_a_batch(client):
    create(client, [chat_row("r-1")])

    for raw in client.batches.with_raw_response.list(limit=100).http_response.json()["data"]:
        strictly(Batch, raw)


def test_usage_is_there_from_the_start(client):
    batch = create(client, [chat_row("r-1")])

    strictly(BatchUsage, raw_batch(client, batch)["usage"])


def test_the_total_of_a_running_batch_is_known(client):
    batch = create(client, [chat_row("r-1", model="simulator-hang"), chat_row("r-2", model="simulator-hang")])

    running = wait_until(client, batch, lambda batch: batch.status == "in_progress", "in_progress")
    client.batches.cancel(batch.id)

    assert running.request_counts.total == 2


def test_the_body_of_an_output_line_is_a_chat_completion(client):
    batch = run(client, [chat_row("r-1")])

    [line] = lines_of(client, batch.output_file_id)
    assert ChatCompletion.model_validate(line["response"]["body"]).choices[0].message.content
