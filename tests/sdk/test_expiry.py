"""Completion windows that close before a batch is through (contract §6.1 and §7)."""

import pytest

from batches import (
    chat_row,
    counts,
    create,
    ids,
    is_output_line,
    is_unexecuted_line,
    lines_of,
    run,
)

GOOD = ["good-0", "good-1"]
HANGING = ["hanging-0", "hanging-1", "hanging-2"]


@pytest.fixture(scope="module")
def expired(short_window_client):
    """A batch of which two rows ran and three never ended, after its window has closed."""
    rows = [chat_row(name) for name in GOOD] + [chat_row(name, model="simulator-hang") for name in HANGING]
    return run(short_window_client, rows, window="2s")


def test_a_window_that_the_server_offers_is_taken(short_window_client):
    batch = create(short_window_client, [chat_row("r-1")], window="2s")

    assert batch.completion_window == "2s"
    assert batch.expires_at == batch.created_at + 2


def test_a_batch_that_is_through_before_its_window_closes_is_completed(short_window_client):
    assert run(short_window_client, [chat_row("r-1")], window="24h").status == "completed"


def test_a_batch_that_is_not_through_when_its_window_closes_is_expired(expired):
    assert expired.status == "expired"


def test_rows_that_ran_in_time_keep_their_answers(expired, short_window_client):
    lines = lines_of(short_window_client, expired.output_file_id)

    assert ids(lines) == GOOD
    for line in lines:
        is_output_line(line)


def test_rows_that_did_not_run_have_a_line_that_says_so(expired, short_window_client):
    lines = lines_of(short_window_client, expired.error_file_id)

    assert ids(lines) == HANGING
    for line in lines:
        is_unexecuted_line(line, "batch_expired")
        expected = "This request could not be executed before the completion window expired."
        assert line["error"]["message"] == expected


def test_rows_that_did_not_run_are_not_counted_as_failed(expired):
    assert counts(expired) == (5, 2, 0)


def test_an_expired_batch_has_the_times_of_its_way(expired):
    ordered = [expired.created_at, expired.in_progress_at, expired.expires_at, expired.finalizing_at]
    ordered.append(expired.expired_at)
    assert ordered == sorted(ordered)
    others = (expired.completed_at, expired.failed_at, expired.cancelling_at, expired.cancelled_at)
    assert others == (None, None, None, None)


def test_an_expired_batch_without_a_finished_row_leaves_only_an_error_file(short_window_client):
    batch = run(short_window_client, [chat_row("r-1", model="simulator-hang")], window="2s")

    assert batch.output_file_id is None
    assert ids(lines_of(short_window_client, batch.error_file_id)) == ["r-1"]
    assert counts(batch) == (1, 0, 0)
