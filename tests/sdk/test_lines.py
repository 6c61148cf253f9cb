"""Result files through every line reader that a client of the SDK can use: each counts as many lines as rows.

Some readers end a line at U+2028, U+2029 and U+0085 too, which JSON allows inside of strings.
"""

import asyncio
import codecs
import json
from types import SimpleNamespace

import pytest
from openai import AsyncOpenAI

from batches import chat_row, counts, run
from servers import answering, in_front_of

SEPARATORS = "\u2028 and \u2029 and \u0085"
ROWS = 300


def answer(path, body):
    """What the row said, as an answer or in an error. The characters stand in it as they are."""
    asked = json.loads(body)
    said = asked["messages"][0]["content"]
    if asked["model"] == "broken":
        error = {"message": said, "type": "invalid_request_error", "param": None, "code": None}
        return 400, json.dumps({"error": error}, ensure_ascii=False)
    choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    chat = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}
    return 200, json.dumps(chat, ensure_ascii=False)


def said(number):
    return f"{number}: {SEPARATORS}."


def rows(model):
    return [
        chat_row(f"{model}{SEPARATORS}{number}", model=model, messages=[{"role": "user", "content": said(number)}])
        for number in range(ROWS)
    ]


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A client, and both result files of a batch: what each line must say, by custom_id."""
    directory = tmp_path_factory.mktemp("lines")
    with answering(answer) as upstream, in_front_of(f"{upstream}/v1", directory) as client:
        batch = run(client, rows("good") + rows("broken"))
        assert counts(batch) == (2 * ROWS, ROWS, ROWS), batch
        yield SimpleNamespace(client=client, output=batch.output_file_id, errors=batch.error_file_id)


def streamed(client, file_id, path):
    with client.files.with_streaming_response.content(file_id) as response:
        return list(response.iter_lines())


def raw(client, file_id, path):
    return list(client.files.with_raw_response.content(file_id).http_response.iter_lines())


def asynchronous(read):
    """A reader of the asynchronous client."""

    async def with_a_client(base_url, file_id):
        async with AsyncOpenAI(base_url=base_url, api_key="any") as client:
            return await read(client, file_id)

    return lambda client, file_id, path: asyncio.run(with_a_client(client.base_url, file_id))


@asynchronous
async def text_of_the_async_client(client, file_id):
    return (await client.files.content(file_id)).text.splitlines()


@asynchronous
async def lines_of_the_async_client(client, file_id):
    return [line async for line in await (await client.files.content(file_id)).aiter_lines()]


@asynchronous
async def streamed_by_the_async_client(client, file_id):
    async with client.files.with_streaming_response.content(file_id) as response:
        return [line async for line in response.iter_lines()]


def from_disk(read):
    """A reader of the file that the SDK has written."""

    def reader(client, file_id, path):
        client.files.content(file_id).write_to_file(path)
        return read(path)

    return reader


def streamed_to_disk(client, file_id, path):
    with client.files.with_streaming_response.content(file_id) as response:
        response.stream_to_file(path)
    return path.read_text(encoding="utf-8").splitlines()


def opened(path, mode="r", **options):
    with path.open(mode, **options) as file:
        return list(file)


def opened_by_codecs(path):
    with path.open("rb") as file:
        return list(codecs.getreader("utf-8")(file))


READERS = {
    "text.splitlines": lambda client, file_id, path: client.files.content(file_id).text.splitlines(),
    "read.splitlines": lambda client, file_id, path: client.files.content(file_id).read().splitlines(),
    "iter_lines": lambda client, file_id, path: list(client.files.content(file_id).iter_lines()),
    "with_streaming_response": streamed,
    "with_raw_response": raw,
    "async text.splitlines": text_of_the_async_client,
    "async aiter_lines": lines_of_the_async_client,
    "async with_streaming_response": streamed_by_the_async_client,
    "open": from_disk(lambda path: opened(path, encoding="utf-8")),
    "open in binary": from_disk(lambda path: opened(path, "rb")),
    "read_text.splitlines": from_disk(lambda path: path.read_text(encoding="utf-8").splitlines()),
    "codecs": from_disk(opened_by_codecs),
    "stream_to_file": streamed_to_disk,
}


@pytest.mark.parametrize("reader", READERS)
def test_each_row_that_succeeds_is_one_line(results, tmp_path, reader):
    lines = READERS[reader](results.client, results.output, tmp_path / "lines.jsonl")

    read = {line["custom_id"]: line["response"]["body"]["choices"][0] for line in map(json.loads, lines)}
    assert len(lines) == ROWS
    for number, row in enumerate(rows("good")):
        assert read[row["custom_id"]]["message"]["content"] == said(number)


@pytest.mark.parametrize("reader", READERS)
def test_each_row_that_fails_is_one_line(results, tmp_path, reader):
    lines = READERS[reader](results.client, results.errors, tmp_path / "lines.jsonl")

    read = {line["custom_id"]: line["response"]["body"]["error"] for line in map(json.loads, lines)}
    assert len(lines) == ROWS
    for number, row in enumerate(rows("broken")):
        assert read[row["custom_id"]]["message"] == said(number)
