"""Lists and their pages (contract §1.8, §3 and §8.6)."""

import pytest
from openai import BadRequestError

from batches import CHAT, chat_row, upload
from servers import running

# More than two pages of batches, and created so fast that many have the same `created_at`.
OBJECTS = 45


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """A client of a server that holds nothing but 45 files and 45 batches, and their ids from old to new."""
    with running(tmp_path_factory.mktemp("lists"), "--role", "api") as client:
        files = [upload(client, [chat_row("r-1")]) for _ in range(OBJECTS)]
        request = {"input_file_id": files[0].id, "endpoint": CHAT, "completion_window": "24h"}
        batches = [client.batches.create(**request) for _ in range(OBJECTS)]
        client.ids = {"files": [file.id for file in files], "batches": [batch.id for batch in batches]}
        yield client


@pytest.fixture(params=["files", "batches"])
def kind(request):
    return request.param


def newest_first(client, kind):
    return client.ids[kind][::-1]


def raw_list(client, kind, **query):
    return getattr(client, kind).with_raw_response.list(**query).http_response.json()


@pytest.mark.parametrize("limit", [1, 7, 45, 100])
def test_paging_visits_each_object_once_newest_first(listed, kind, limit):
    visited = [item.id for item in getattr(listed, kind).list(limit=limit)]

    assert visited == newest_first(listed, kind)


def test_paging_asks_no_more_often_than_there_are_pages(listed, kind):
    listed.sent.clear()

    assert len(list(getattr(listed, kind).list(limit=15))) == OBJECTS
    assert len(listed.sent) == 3


def test_a_list_of_batches_has_twenty_unless_asked_otherwise(listed):
    page = listed.batches.list()

    assert [batch.id for batch in page.data] == newest_first(listed, "batches")[:20]
    assert page.has_more is True


def test_a_list_of_files_has_all_unless_asked_otherwise(listed):
    page = listed.files.list()

    assert len(page.data) == OBJECTS
    assert page.has_more is False


def test_each_object_can_be_the_cursor(listed, kind):
    expected = newest_first(listed, kind)

    after = {id: [item.id for item in getattr(listed, kind).list(after=id, limit=1).data] for id in expected}

    assert after == {id: expected[place + 1 : place + 2] for place, id in enumerate(expected)}


def test_a_page_names_its_ends(listed, kind):
    raw = raw_list(listed, kind, limit=3)

    assert raw["object"] == "list"
    assert raw["first_id"] == raw["data"][0]["id"]
    assert raw["last_id"] == raw["data"][-1]["id"]
    assert raw["has_more"] is True


def test_the_last_page_says_that_it_is_the_last(listed, kind):
    oldest = newest_first(listed, kind)[-1]

    assert raw_list(listed, kind, limit=OBJECTS)["has_more"] is False
    assert raw_list(listed, kind, after=oldest)["has_more"] is False


def test_a_page_after_the_last_object_is_empty(listed, kind):
    raw = raw_list(listed, kind, after=newest_first(listed, kind)[-1])

    assert (raw["data"], raw["first_id"], raw["last_id"], raw["has_more"]) == ([], None, None, False)


def test_a_limit_of_zero_gives_an_empty_page_that_does_not_go_on(listed, kind):
    # More would be honest, but an empty page that goes on makes both SDKs stop without a word.
    raw = raw_list(listed, kind, limit=0)

    assert (raw["data"], raw["first_id"], raw["last_id"], raw["has_more"]) == ([], None, None, False)


def test_a_limit_of_one_gives_one(listed, kind):
    assert len(raw_list(listed, kind, limit=1)["data"]) == 1


@pytest.mark.parametrize(("kind", "most"), [("batches", 100), ("files", 10_000)])
def test_a_limit_above_the_maximum_is_refused(listed, kind, most):
    with pytest.raises(BadRequestError) as raised:
        getattr(listed, kind).list(limit=most + 1)

    assert raised.value.body["message"] == (
        f"Invalid 'limit': integer above maximum value. Expected a value <= {most}, but got {most + 1} instead."
    )
    assert (raised.value.param, raised.value.code) == ("limit", "integer_above_max_value")


@pytest.mark.parametrize(("kind", "most"), [("batches", 100), ("files", 10_000)])
def test_the_maximum_itself_is_taken(listed, kind, most):
    assert len(getattr(listed, kind).list(limit=most).data) == OBJECTS


def test_a_negative_limit_is_refused(listed, kind):
    with pytest.raises(BadRequestError) as raised:
        getattr(listed, kind).list(limit=-1)

    assert raised.value.body["message"] == (
        "Invalid 'limit': integer below minimum value. Expected a value >= 0, but got -1 instead."
    )
    assert (raised.value.param, raised.value.code) == ("limit", "integer_below_min_value")


def test_a_limit_that_is_no_number_is_refused(listed, kind):
    with pytest.raises(BadRequestError) as raised:
        getattr(listed, kind).list(limit="x")

    assert (raised.value.param, raised.value.code) == ("limit", "invalid_type")


def test_a_cursor_that_is_no_object_is_no_error(listed, kind):
    # The SDK's own tests send this.
    assert raw_list(listed, kind, after="after", limit=0)["data"] == []


def test_unknown_parameters_of_a_list_are_ignored(listed):
    page = listed.batches.list(limit=1, extra_query={"status": "completed", "order": "sideways"})

    assert [batch.id for batch in page.data] == newest_first(listed, "batches")[:1]


@pytest.mark.parametrize("order", ["asc", "desc"])
def test_files_are_listed_in_the_order_asked_for(listed, order):
    expected = listed.ids["files"] if order == "asc" else newest_first(listed, "files")

    assert [file.id for file in listed.files.list(order=order, limit=7)] == expected


def test_an_unknown_order_is_refused(listed):
    with pytest.raises(BadRequestError) as raised:
        listed.files.list(order="sideways")

    assert (raised.value.param, raised.value.code) == ("order", "invalid_value")


@pytest.fixture
def mixed(tmp_path):
    """A client of a server with three files for a batch and two for other things."""
    with running(tmp_path, "--role", "api") as client:
        for purpose in ["batch", "user_data", "batch", "vision", "batch"]:
            content = b'{"custom_id":"r-1"}\n'
            client.files.create(file=content, purpose=purpose)
        yield client


def test_files_are_filtered_by_purpose_across_pages(mixed):
    assert [file.purpose for file in mixed.files.list(purpose="batch", limit=2)] == ["batch"] * 3
    assert [file.purpose for file in mixed.files.list(purpose="vision")] == ["vision"]


def test_a_purpose_that_no_file_has_gives_an_empty_list(mixed):
    assert list(mixed.files.list(purpose="batch_output")) == []
    assert list(mixed.files.list(purpose="purpose")) == []


def test_files_can_be_deleted_while_they_are_paged_over(mixed):
    # The page after the first one has a cursor that is gone by then.
    for file in mixed.files.list(limit=2):
        mixed.files.delete(file.id)

    assert list(mixed.files.list()) == []
