"""Calling batches off in each status (contract §8.5)."""

import time

import pytest
from openai import ConflictError

from batches import (
    chat_row,
    counts,
    create,
    ids,
    is_output_line,
    is_unexecuted_line,
    lines_of,
    run,
    wait,
    wait_until,
)
from servers import running


def half_done(client, good=3, hanging=2):
    """A batch in progress: its good rows have run, the others never end."""
    rows = [chat_row(f"good-{number}") for number in range(good)]
    rows += [chat_row(f"hanging-{number}", model="simulator-hang") for number in range(hanging)]
    batch = create(client, rows)
    return wait_until(
        client, batch, lambda batch: batch.request_counts.completed == good, f"{good} rows to be completed"
    )


def test_a_batch_is_called_off_while_it_is_validated(idle_client):
    batch = create(idle_client, [chat_row("r-1")])

    cancelled = idle_client.batches.cancel(batch.id)

    assert batch.status == "validating"
    assert cancelled.status == "cancelling"
    assert cancelled.cancelling_at >= cancelled.created_at
    assert cancelled.in_progress_at is None


def test_calling_off_again_while_cancelling_changes_nothing(idle_client):
    batch = create(idle_client, [chat_row("r-1")])
    first = idle_client.batches.cancel(batch.id)

    second = idle_client.batches.cancel(batch.id)

    assert second.status == "cancelling"
    assert second.to_dict() == first.to_dict()


def called_off_before_it_was_validated(tmp_path, rows):
    """What becomes of such a batch, and the lines of its error file."""
    # A server without a worker holds the batch in `validating`; one with a worker, on the same data, ends it.
    with running(tmp_path, "--role", "api", name="serve-api") as client:
        batch = create(client, rows)
        client.batches.cancel(batch.id)
    with running(tmp_path) as client:
        batch = wait(client, batch)
        assert batch.status == "cancelled"
        assert batch.output_file_id is None
        assert (batch.in_progress_at, batch.finalizing_at) == (None, None)
        return batch, lines_of(client, batch.error_file_id)


def test_every_row_of_a_batch_called_off_before_it_was_validated_has_a_line(tmp_path):
    batch, errors = called_off_before_it_was_validated(tmp_path, [chat_row("r-1"), chat_row("r-2")])

    assert counts(batch) == (2, 0, 0)
    assert ids(errors) == ["r-1", "r-2"]
    for line in errors:
        is_unexecuted_line(line, "batch_cancelled")


def test_a_batch_called_off_that_would_have_failed_ends_with_nothing(tmp_path):
    batch, errors = called_off_before_it_was_validated(tmp_path, [{"custom_id": "r-1"}])

    assert counts(batch) == (0, 0, 0)
    assert (batch.error_file_id, errors) == (None, [])


def test_a_batch_is_called_off_while_it_runs(client):
    batch = half_done(client)

    cancelled = client.batches.cancel(batch.id)

    assert batch.status == "in_progress"
    assert cancelled.status == "cancelling"
    assert (cancelled.output_file_id, cancelled.error_file_id) == (None, None)


def test_calls_that_hang_do_not_hold_up_the_end(client):
    batch = half_done(client)
    started = time.monotonic()

    client.batches.cancel(batch.id)
    batch = wait(client, batch)

    # The hanging calls would go on for ten minutes.
    assert batch.status == "cancelled"
    assert time.monotonic() - started < 30


def test_every_row_of_a_batch_called_off_has_a_line(client):
    batch = half_done(client, good=3, hanging=2)

    client.batches.cancel(batch.id)
    batch = wait(client, batch)

    output, errors = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert ids(output) == ["good-0", "good-1", "good-2"]
    assert ids(errors) == ["hanging-0", "hanging-1"]
    for line in output:
        is_output_line(line)
    for line in errors:
        is_unexecuted_line(line, "batch_cancelled")


def test_rows_that_were_not_executed_are_not_counted_as_failed(client):
    batch = half_done(client, good=3, hanging=2)

    client.batches.cancel(batch.id)

    assert counts(wait(client, batch)) == (5, 3, 0)


def test_a_batch_called_off_has_the_times_of_its_way(client):
    batch = half_done(client)

    client.batches.cancel(batch.id)
    batch = wait(client, batch)

    ordered = [batch.created_at, batch.in_progress_at, batch.cancelling_at, batch.cancelled_at]
    assert ordered == sorted(ordered)
    assert (batch.finalizing_at, batch.completed_at, batch.failed_at, batch.expired_at) == (None, None, None, None)


def test_a_batch_without_a_finished_row_leaves_only_an_error_file(client):
    batch = create(client, [chat_row("r-1", model="simulator-hang"), chat_row("r-2", model="simulator-hang")])
    wait(client, batch, {"in_progress"})

    client.batches.cancel(batch.id)
    batch = wait(client, batch)

    assert batch.output_file_id is None
    assert ids(lines_of(client, batch.error_file_id)) == ["r-1", "r-2"]


def test_calling_off_twice_while_a_batch_runs_is_no_error(client):
    batch = half_done(client)
    first = client.batches.cancel(batch.id)

    second = client.batches.cancel(batch.id)

    assert second.status in {"cancelling", "cancelled"}
    assert second.cancelling_at == first.cancelling_at


def test_calling_off_a_cancelled_batch_returns_it_unchanged(client):
    batch = half_done(client)
    client.batches.cancel(batch.id)
    cancelled = wait(client, batch)

    again = client.batches.cancel(batch.id)

    assert again.to_dict() == cancelled.to_dict()


@pytest.fixture(params=["completed", "failed", "expired"])
def ended(request):
    """A client and a batch that ended otherwise than by being called off."""
    if request.param == "expired":
        client = request.getfixturevalue("short_window_client")
        batch = run(client, [chat_row("r-1", model="simulator-hang")], window="2s")
    else:
        client = request.getfixturevalue("client")
        batch = run(client, [chat_row("r-1")] if request.param == "completed" else [{"custom_id": "r-1"}])
    assert batch.status == request.param
    return client, batch


def test_a_batch_that_has_ended_cannot_be_called_off(ended):
    client, batch = ended

    with pytest.raises(ConflictError) as raised:
        client.batches.cancel(batch.id)

    error = raised.value
    assert error.body["message"] == f"Cannot cancel a batch with status '{batch.status}'."
    assert (error.status_code, error.type, error.param, error.code) == (409, "invalid_request_error", None, None)


def test_a_refused_cancellation_changes_nothing(ended):
    client, batch = ended

    with pytest.raises(ConflictError):
        client.batches.cancel(batch.id)

    assert client.batches.retrieve(batch.id).to_dict() == batch.to_dict()


def test_a_refused_cancellation_is_not_tried_again(ended):
    # The SDK would try a 409 three times, and wait in between.
    client, batch = ended
    assert client.max_retries == 2
    client.sent.clear()

    with pytest.raises(ConflictError):
        client.batches.cancel(batch.id)

    assert len(client.sent) == 1


def test_a_cancellation_is_a_request_with_an_empty_body(client):
    # What the SDK sends is a JSON content type with no JSON; the server must not try to read it.
    batch = half_done(client)
    client.sent.clear()

    client.batches.cancel(batch.id)

    [request] = client.sent
    assert request.headers["content-type"] == "application/json"
    assert request.headers["content-length"] == "0"
