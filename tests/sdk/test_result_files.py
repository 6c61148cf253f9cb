"""The files a batch leaves behind, as files (contract §9.4)."""

import pytest

from batches import FILE_KEYS, chat_row, run

THIRTY_DAYS = 2_592_000


@pytest.fixture
def batch(client):
    """A batch with both result files."""
    return run(client, [chat_row("good"), chat_row("bad", model="simulator-fail-400")])


@pytest.fixture(params=["output_file_id", "error_file_id"])
def file_id(request, batch):
    return getattr(batch, request.param)


def test_a_result_file_is_a_file_of_purpose_batch_output(client, file_id):
    raw = client.files.with_raw_response.retrieve(file_id).http_response.json()

    assert list(raw) == FILE_KEYS
    assert (raw["purpose"], raw["status"]) == ("batch_output", "processed")


def test_a_result_file_is_listed(client, file_id):
    assert file_id in [file.id for file in client.files.list(purpose="batch_output")]


def test_a_result_file_is_kept_for_thirty_days(client, file_id):
    file = client.files.retrieve(file_id)

    assert file.expires_at == file.created_at + THIRTY_DAYS


def test_a_result_file_can_be_deleted(client, file_id):
    assert client.files.delete(file_id).deleted is True


def test_a_batch_goes_on_naming_a_result_file_that_was_deleted(client, batch):
    client.files.delete(batch.output_file_id)

    assert client.batches.retrieve(batch.id).output_file_id == batch.output_file_id


def test_a_result_file_begins_without_a_byte_order_mark(client, file_id):
    assert client.files.content(file_id).content.startswith(b'{"id":')
