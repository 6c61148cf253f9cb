"""The parameters of a batch: what is refused at once, and what is kept (contract §8.1)."""

import pytest
from openai import BadRequestError

from batches import CHAT, chat_row, create, run, upload, wait

PARAMETERS = {"input_file_id": "file-000000000000000000000a", "endpoint": CHAT, "completion_window": "24h"}


@pytest.fixture
def refused(client):
    """Creates a batch with parameters that are refused: the error."""

    def refused(**parameters):
        client.sent.clear()
        with pytest.raises(BadRequestError) as raised:
            client.post("/batches", body={**PARAMETERS, **parameters}, cast_to=object)
        assert raised.value.status_code == 400
        assert raised.value.type == "invalid_request_error"
        assert len(client.sent) == 1, "a refusal is final: the SDK must not try again"
        return raised.value

    return refused


@pytest.mark.parametrize("name", ["input_file_id", "endpoint", "completion_window"])
def test_a_parameter_that_is_absent_is_named(client, name):
    parameters = {key: value for key, value in PARAMETERS.items() if key != name}

    with pytest.raises(BadRequestError) as raised:
        client.post("/batches", body=parameters, cast_to=object)

    assert raised.value.body["message"] == f"Missing required parameter: '{name}'."
    assert (raised.value.param, raised.value.code) == (name, "missing_required_parameter")


@pytest.mark.parametrize("name", ["input_file_id", "endpoint", "completion_window"])
def test_a_parameter_of_another_type_is_named(refused, name):
    error = refused(**{name: ["x"]})

    assert error.body["message"] == f"Invalid type for '{name}': expected a string, but got an array instead."
    assert (error.param, error.code) == (name, "invalid_type")


def test_an_unknown_endpoint_is_refused(refused):
    error = refused(endpoint="/v1/x")

    assert error.body["message"].startswith("Invalid value: '/v1/x'. Supported values are: '/v1/")
    assert (error.param, error.code) == ("endpoint", "invalid_value")


def test_an_endpoint_is_a_path(refused):
    assert refused(endpoint="v1/chat/completions").param == "endpoint"


def test_an_unknown_window_is_refused(refused):
    error = refused(completion_window="48h")

    assert error.body["message"].startswith("Invalid value: '48h'. Supported values are: '24h'")
    assert (error.param, error.code) == ("completion_window", "invalid_value")


def test_an_input_file_id_begins_like_one(refused):
    error = refused(input_file_id="wrong-id")

    expected = "Invalid 'input_file_id': 'wrong-id'. Expected an ID that begins with 'file'."
    assert error.body["message"] == expected
    assert (error.param, error.code) == ("input_file_id", "invalid_value")


def test_an_input_file_of_another_purpose_is_refused(client, refused):
    notes = client.files.create(file=b"Notes", purpose="user_data")

    error = refused(input_file_id=notes.id)

    assert "user_data" in error.body["message"]
    assert error.param == "input_file_id"


def test_a_body_that_is_no_json_is_refused(client):
    options = {"headers": {"Content-Type": "application/json"}}

    with pytest.raises(BadRequestError) as raised:
        client.post("/batches", content=b'{"endpoint":', options=options, cast_to=object)

    assert raised.value.body["message"].startswith("We could not parse the JSON body of your request.")
    assert (raised.value.param, raised.value.code) == (None, None)


def test_metadata_is_echoed(client):
    metadata = {"project": "größe 日本", "empty": "", "k" * 64: "v" * 512}

    batch = create(client, [chat_row("r-1")], metadata=metadata)

    assert batch.metadata == metadata


def test_metadata_stays_with_a_batch(client):
    batch = run(client, [chat_row("r-1")], metadata={"project": "one"})

    assert batch.metadata == {"project": "one"}


def test_metadata_may_be_null(client):
    batch = create(client, [chat_row("r-1")], metadata=None)

    raw = client.batches.with_raw_response.retrieve(batch.id).http_response.json()

    assert raw["metadata"] is None


def test_metadata_may_be_empty(client):
    assert not create(client, [chat_row("r-1")], metadata={}).metadata


def test_sixteen_pairs_of_metadata_are_taken(client):
    metadata = {f"key-{number}": "value" for number in range(16)}

    assert create(client, [chat_row("r-1")], metadata=metadata).metadata == metadata


def test_metadata_of_another_type_is_refused(refused):
    error = refused(metadata={"tags": ["a", "b"]})

    assert error.body["message"] == "Invalid type for 'metadata.tags': expected a string, but got an array instead."
    assert (error.param, error.code) == ("metadata.tags", "invalid_type")


def test_too_many_pairs_of_metadata_are_refused(refused):
    error = refused(metadata={f"key-{number}": "value" for number in range(17)})

    assert (error.param, error.code) == ("metadata", "object_above_max_properties")


def test_a_metadata_value_that_is_too_long_is_refused(refused):
    error = refused(metadata={"note": "v" * 513})

    assert (error.param, error.code) == ("metadata.note", "string_above_max_length")


def test_a_metadata_key_that_is_too_long_is_refused(refused):
    error = refused(metadata={"k" * 65: "value"})

    assert error.code == "string_above_max_length"
    assert error.param.startswith("metadata")


def test_lengths_of_metadata_are_counted_in_characters(client):
    metadata = {"日" * 64: "本" * 512}

    assert create(client, [chat_row("r-1")], metadata=metadata).metadata == metadata


@pytest.mark.parametrize("seconds", [3600, 2_592_000])
def test_result_files_are_kept_as_long_as_was_asked(client, seconds):
    rows = [chat_row("good"), chat_row("bad", model="simulator-fail-400")]
    batch = run(client, rows, output_expires_after={"anchor": "created_at", "seconds": seconds})

    for file_id in (batch.output_file_id, batch.error_file_id):
        file = client.files.retrieve(file_id)
        assert file.expires_at == file.created_at + seconds


def test_output_expires_after_may_be_null(client):
    input_file = upload(client, [chat_row("r-1")])

    batch = client.batches.create(
        input_file_id=input_file.id,
        endpoint=CHAT,
        completion_window="24h",
        extra_body={"output_expires_after": None},
    )

    assert wait(client, batch).status == "completed"


@pytest.mark.parametrize(
    ("seconds", "code"), [(3599, "integer_below_min_value"), (2_592_001, "integer_above_max_value")]
)
def test_a_time_to_keep_result_files_that_is_out_of_range_is_refused(refused, seconds, code):
    error = refused(output_expires_after={"anchor": "created_at", "seconds": seconds})

    assert (error.param, error.code) == ("output_expires_after.seconds", code)


def test_a_time_to_keep_result_files_has_one_anchor(refused):
    error = refused(output_expires_after={"anchor": "completed_at", "seconds": 3600})

    assert (error.param, error.code) == ("output_expires_after.anchor", "invalid_value")


@pytest.mark.parametrize("name", ["anchor", "seconds"])
def test_both_members_of_output_expires_after_are_required(refused, name):
    whole = {"anchor": "created_at", "seconds": 3600}

    error = refused(output_expires_after={key: value for key, value in whole.items() if key != name})

    assert (error.param, error.code) == (f"output_expires_after.{name}", "missing_required_parameter")


def test_an_idempotency_key_makes_a_repetition_return_the_first_batch(client):
    input_file = upload(client, [chat_row("r-1")])
    request = {"input_file_id": input_file.id, "endpoint": CHAT, "completion_window": "24h"}
    # Unique, because the server may have run other tests.
    headers = {"Idempotency-Key": f"key-{input_file.id}"}

    first = client.batches.create(**request, extra_headers=headers)
    second = client.batches.create(**request, extra_headers=headers)

    assert second.id == first.id


def test_other_idempotency_keys_make_other_batches(client):
    input_file = upload(client, [chat_row("r-1")])
    request = {"input_file_id": input_file.id, "endpoint": CHAT, "completion_window": "24h"}

    first = client.batches.create(**request, extra_headers={"Idempotency-Key": f"one-{input_file.id}"})
    second = client.batches.create(**request, extra_headers={"Idempotency-Key": f"two-{input_file.id}"})

    assert second.id != first.id
