"""One file: retrieving, downloading, deleting (contract §4)."""

from email.message import Message

import pytest
from openai import NotFoundError

from batches import FILE_KEYS, chat_row, jsonl, upload

CONTENT = jsonl([chat_row("r-1"), chat_row("r-2")])
UNKNOWN = "file-000000000000000000000a"


def test_a_file_is_retrieved_as_it_was_created(client):
    created = upload(client, CONTENT)

    assert client.files.retrieve(created.id).to_dict() == created.to_dict()


def test_a_retrieved_file_has_every_key(client):
    created = upload(client, CONTENT)

    raw = client.files.with_raw_response.retrieve(created.id).http_response.json()

    assert list(raw) == FILE_KEYS


def test_content_comes_back_as_text(client):
    assert client.files.content(upload(client, CONTENT).id).text == CONTENT.decode()


def test_content_can_be_read_line_by_line(client):
    lines = list(client.files.content(upload(client, CONTENT).id).iter_lines())

    assert lines == CONTENT.decode().splitlines()


def test_content_can_be_streamed_to_a_file(client, tmp_path):
    created = upload(client, CONTENT)
    target = tmp_path / "downloaded.jsonl"

    with client.files.with_streaming_response.content(created.id) as response:
        response.stream_to_file(target)

    assert target.read_bytes() == CONTENT


def test_content_is_declared_as_bytes_to_be_saved(client):
    created = upload(client, CONTENT, name="mine.jsonl")

    headers = client.files.content(created.id).response.headers

    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-disposition"] == 'attachment; filename="mine.jsonl"'
    assert headers["content-length"] == str(len(CONTENT))


def test_a_name_cannot_break_out_of_the_download_header(client):
    created = upload(client, CONTENT, name='a"; filename="b.exe')

    header = Message()
    header["content-disposition"] = client.files.content(created.id).response.headers["content-disposition"]
    parameters = header.get_params(header="content-disposition")

    assert [name for name, _ in parameters if name == "filename"] == ["filename"]


def test_deleting_says_so_and_nothing_else(client):
    created = upload(client, CONTENT)

    raw = client.files.with_raw_response.delete(created.id).http_response.json()

    assert raw == {"object": "file", "deleted": True, "id": created.id}


@pytest.mark.parametrize("action", ["retrieve", "content", "delete"])
def test_a_deleted_file_is_gone(client, action):
    created = upload(client, CONTENT)
    client.files.delete(created.id)

    with pytest.raises(NotFoundError) as raised:
        getattr(client.files, action)(created.id)

    assert raised.value.body["message"] == f"No such File object: {created.id}"
    assert raised.value.param == "id"


def test_a_deleted_file_is_listed_no_more(client):
    created = upload(client, CONTENT)
    client.files.delete(created.id)

    assert created.id not in [file.id for file in client.files.list()]


@pytest.mark.parametrize("action", ["retrieve", "content", "delete"])
def test_an_unknown_file_is_not_found(client, action):
    with pytest.raises(NotFoundError) as raised:
        getattr(client.files, action)(UNKNOWN)

    error = raised.value
    assert error.body["message"] == f"No such File object: {UNKNOWN}"
    assert (error.status_code, error.type, error.param, error.code) == (404, "invalid_request_error", "id", None)


def test_an_id_that_no_file_can_have_is_not_found(client):
    with pytest.raises(NotFoundError) as raised:
        client.files.retrieve("nonsense/é")

    assert raised.value.param == "id"


def test_errors_of_a_download_are_json(client):
    with pytest.raises(NotFoundError) as raised:
        client.files.content(UNKNOWN)

    assert raised.value.response.headers["content-type"].startswith("application/json")
