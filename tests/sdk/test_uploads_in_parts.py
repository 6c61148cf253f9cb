"""Uploading a file in parts (contract §5), by the SDK's helper and by hand."""

import hashlib

import pytest
from openai import BadRequestError, NotFoundError

from batches import chat_row, jsonl

CONTENT = jsonl([chat_row(f"r-{number}") for number in range(50)])
MIB = 1024 * 1024


def created(client, content=CONTENT, purpose="batch"):
    return client.uploads.create(
        filename="mine.jsonl", purpose=purpose, bytes=len(content), mime_type="application/jsonl"
    )


def test_the_helper_uploads_a_file_in_parts(client, tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(CONTENT)

    upload = client.uploads.upload_file_chunked(
        file=path,
        mime_type="application/jsonl",
        purpose="batch",
        part_size=999,
        md5=hashlib.md5(CONTENT).hexdigest(),
    )

    assert upload.status == "completed"
    assert upload.expires_at == upload.created_at + 3600
    assert (upload.file.filename, upload.file.bytes) == ("questions.jsonl", len(CONTENT))
    assert upload.file.created_at == upload.created_at
    assert client.files.content(upload.file.id).content == CONTENT


def test_the_helper_uploads_parts_of_64_mebibytes(client):
    content = b"\x00" * (65 * MIB)

    upload = client.uploads.upload_file_chunked(
        file=content, filename="zeros", bytes=len(content), mime_type="application/octet-stream", purpose="user_data"
    )

    assert upload.file.bytes == len(content)
    assert client.files.retrieve(upload.file.id).bytes == len(content)


def test_a_batch_runs_a_file_in_parts(client):
    upload = client.uploads.upload_file_chunked(
        file=CONTENT, filename="a", bytes=len(CONTENT), mime_type="x", purpose="batch", part_size=1000
    )

    batch = client.batches.create(
        input_file_id=upload.file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )

    assert batch.input_file_id == upload.file.id


def test_an_upload_has_no_file_until_it_is_completed(client):
    upload = created(client)
    part = client.uploads.parts.create(upload.id, data=CONTENT)

    assert (upload.object, upload.status, upload.file) == ("upload", "pending", None)
    assert (part.object, part.upload_id) == ("upload.part", upload.id)


def test_a_completion_may_be_repeated(client):
    upload = created(client)
    part = client.uploads.parts.create(upload.id, data=CONTENT)

    completed = [client.uploads.complete(upload.id, part_ids=[part.id]) for _ in range(2)]

    assert completed[0] == completed[1]


def test_a_cancelled_upload_takes_no_parts(client):
    upload = created(client)

    assert client.uploads.cancel(upload.id).status == "cancelled"
    with pytest.raises(BadRequestError, match="the status of the upload is 'cancelled'"):
        client.uploads.parts.create(upload.id, data=CONTENT)


def test_what_does_not_add_up_is_refused(client):
    upload = created(client)
    part = client.uploads.parts.create(upload.id, data=CONTENT)

    with pytest.raises(BadRequestError) as missing:
        client.uploads.complete(upload.id, part_ids=[])
    with pytest.raises(BadRequestError) as damaged:
        client.uploads.complete(upload.id, part_ids=[part.id], md5="md5")
    with pytest.raises(NotFoundError) as unknown:
        client.uploads.cancel("upload_abc123")

    assert [error.value.param for error in (missing, damaged, unknown)] == ["part_ids", "md5", "upload_id"]
