"""Uploading files (contract §2): every way in which the SDK takes one, and what is refused."""

import io
import json

import pytest
from openai import BadRequestError

from batches import FILE_KEYS, chat_row, jsonl

CONTENT = jsonl([chat_row("r-1"), chat_row("r-2")])
THIRTY_DAYS = 2_592_000


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "questions.jsonl"
    path.write_bytes(CONTENT)
    return path


def stored(client, file):
    return client.files.content(file.id).content


def raw_upload(client, **arguments):
    return client.files.with_raw_response.create(**arguments).http_response.json()


def test_a_file_is_uploaded_by_its_path(client, path):
    file = client.files.create(file=path, purpose="batch")

    assert file.filename == "questions.jsonl"
    assert stored(client, file) == CONTENT


def test_an_open_file_is_uploaded_under_its_name(client, path):
    with path.open("rb") as opened:
        file = client.files.create(file=opened, purpose="batch")

    assert file.filename == "questions.jsonl"
    assert stored(client, file) == CONTENT


def test_bytes_are_uploaded_under_the_name_upload(client):
    file = client.files.create(file=CONTENT, purpose="batch")

    assert file.filename == "upload"
    assert stored(client, file) == CONTENT


def test_a_bytes_stream_is_uploaded_under_the_name_upload(client):
    file = client.files.create(file=io.BytesIO(CONTENT), purpose="batch")

    assert file.filename == "upload"
    assert stored(client, file) == CONTENT


def test_a_tuple_names_the_file(client):
    file = client.files.create(file=("mine.jsonl", CONTENT), purpose="batch")

    assert file.filename == "mine.jsonl"
    assert stored(client, file) == CONTENT


def test_the_content_type_of_a_tuple_is_not_judged(client):
    file = client.files.create(file=("mine.jsonl", CONTENT, "text/csv"), purpose="batch")

    assert stored(client, file) == CONTENT


def test_a_name_without_a_suffix_is_taken(client):
    file = client.files.create(file=("test-batch-file", CONTENT), purpose="batch")

    assert file.filename == "test-batch-file"


def test_a_name_that_is_not_ascii_comes_back_as_it_was(client):
    file = client.files.create(file=("größe-日本.jsonl", CONTENT), purpose="batch")

    assert file.filename == "größe-日本.jsonl"
    assert stored(client, file) == CONTENT


def test_directories_in_a_name_are_left_out(client):
    file = client.files.create(file=("../../etc/mine.jsonl", CONTENT), purpose="batch")

    assert file.filename == "mine.jsonl"


def test_the_reply_has_every_key_of_a_file_object(client):
    raw = raw_upload(client, file=("mine.jsonl", CONTENT), purpose="batch")

    assert list(raw) == FILE_KEYS
    assert raw["object"] == "file"
    assert raw["id"].startswith("file-")
    assert raw["purpose"] == "batch"
    assert raw["status_details"] is None


def test_the_size_is_that_of_the_content_alone(client):
    file = client.files.create(file=CONTENT, purpose="batch")

    assert file.bytes == len(CONTENT)


def test_a_file_is_processed_in_the_reply_itself(client):
    file = client.files.create(file=CONTENT, purpose="batch")

    assert file.status == "processed"


def test_waiting_for_processing_asks_once(client):
    file = client.files.create(file=CONTENT, purpose="batch")
    client.sent.clear()

    waited = client.files.wait_for_processing(file.id)

    assert waited.status == "processed"
    assert len(client.sent) == 1


def test_several_megabytes_come_back_byte_for_byte(client):
    messages = [{"role": "user", "content": "é" * 1000}]
    content = jsonl(chat_row(f"r-{number}", messages=messages) for number in range(3000))
    assert len(content) > 5_000_000

    file = client.files.create(file=content, purpose="batch")

    assert file.bytes == len(content)
    assert stored(client, file) == content


def test_a_file_for_a_batch_is_kept_for_thirty_days(client):
    file = client.files.create(file=CONTENT, purpose="batch")

    assert file.expires_at == file.created_at + THIRTY_DAYS


def test_a_file_for_another_purpose_does_not_expire(client):
    raw = raw_upload(client, file=("notes.txt", b"Notes"), purpose="user_data")

    assert raw["expires_at"] is None


@pytest.mark.parametrize("seconds", [3600, THIRTY_DAYS])
def test_expires_after_says_how_long_a_file_is_kept(client, seconds):
    file = client.files.create(
        file=CONTENT, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
    )

    assert file.expires_at == file.created_at + seconds


def test_expires_after_holds_for_every_purpose(client):
    file = client.files.create(
        file=b"Notes", purpose="user_data", expires_after={"anchor": "created_at", "seconds": 7200}
    )

    assert file.expires_at == file.created_at + 7200


@pytest.mark.parametrize("seconds", [3599, THIRTY_DAYS + 1])
def test_a_time_out_of_range_is_refused(client, seconds):
    with pytest.raises(BadRequestError):
        client.files.create(file=CONTENT, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds})


def test_an_unknown_anchor_is_refused(client):
    with pytest.raises(BadRequestError):
        client.files.create(file=CONTENT, purpose="batch", expires_after={"anchor": "last_used", "seconds": 3600})


def test_a_flat_expires_after_is_refused(client):
    # OpenAI takes the bracket form only; a server that ignored this one would keep the file for too long.
    flat = {"purpose": "batch", "expires_after": json.dumps({"anchor": "created_at", "seconds": 3600})}

    with pytest.raises(BadRequestError):
        post_form(client, fields=flat, files=[("file", ("mine.jsonl", CONTENT))])


def test_an_unknown_purpose_is_refused(client):
    with pytest.raises(BadRequestError) as raised:
        client.files.create(file=CONTENT, purpose="leisure")

    purposes = "['fine-tune', 'assistants', 'batch', 'user_data', 'vision', 'evals']"
    expected = f"'leisure' is not one of {purposes} - 'purpose'"
    assert raised.value.body["message"] == expected
    assert raised.value.param == "purpose"
    assert raised.value.code is None


def test_a_form_without_a_purpose_is_refused(client):
    with pytest.raises(BadRequestError) as raised:
        post_form(client, fields={}, files=[("file", ("mine.jsonl", CONTENT))])

    assert raised.value.body["type"] == "invalid_request_error"
    assert "purpose" in raised.value.body["message"]


def test_a_form_without_a_file_is_refused(client):
    # The part has another name; a form without any part is not something the SDK can send.
    with pytest.raises(BadRequestError) as raised:
        post_form(client, fields={"purpose": "batch"}, files=[("document", ("mine.jsonl", CONTENT))])

    assert "file" in raised.value.body["message"]


def test_the_purpose_may_stand_after_the_file(client):
    # As a form from a web page or another SDK has it; this SDK sends the purpose first.
    body = post_form(client, fields={}, files=[("file", ("mine.jsonl", CONTENT)), ("purpose", (None, b"batch"))])

    assert body["purpose"] == "batch"
    assert body["bytes"] == len(CONTENT)


def test_an_empty_file_is_no_batch_input_file(client):
    with pytest.raises(BadRequestError) as raised:
        client.files.create(file=("mine.jsonl", b""), purpose="batch")

    assert raised.value.body["type"] == "invalid_request_error"


def test_a_first_line_that_is_no_json_is_refused(client):
    with pytest.raises(BadRequestError) as raised:
        client.files.create(file=("mine.jsonl", b"custom_id,method,url\n" + CONTENT), purpose="batch")

    assert raised.value.body["message"] == "Invalid file format for Batch API. Must be .jsonl"


def test_bytes_that_are_not_utf8_are_refused(client):
    latin1 = CONTENT + '{"custom_id":"é"}\n'.encode("latin-1")

    with pytest.raises(BadRequestError) as raised:
        client.files.create(file=("mine.jsonl", latin1), purpose="batch")

    assert raised.value.body["message"] == "Invalid file for Batch API. Must be utf-8 encoded"


def test_a_txt_file_is_no_batch_input_file(client):
    with pytest.raises(BadRequestError) as raised:
        client.files.create(file=("mine.txt", CONTENT), purpose="batch")

    assert raised.value.body["message"] == "Invalid file format for Batch API. Must be .jsonl"


def test_an_upload_that_is_refused_leaves_no_file(client):
    name = "refused-and-gone.txt"

    with pytest.raises(BadRequestError):
        client.files.create(file=(name, CONTENT), purpose="batch")

    assert name not in [file.filename for file in client.files.list()]


def test_rows_are_not_judged_at_upload(client):
    # Only the first line must be JSON; everything else is found by the batch, so that all bad lines are reported.
    content = b'{"custom_id":"r-1"}\nthis is no JSON\n'

    file = client.files.create(file=content, purpose="batch")

    assert file.status == "processed"


def test_other_purposes_take_any_bytes(client):
    file = client.files.create(file=("image.bin", b"\x00\xff\xfe"), purpose="vision")

    assert stored(client, file) == b"\x00\xff\xfe"


def post_form(client, fields, files):
    """Sends a form that `files.create` would not."""
    options = {"headers": {"Content-Type": "multipart/form-data"}}
    return client.post("/files", body=fields, files=files, options=options, cast_to=object)
