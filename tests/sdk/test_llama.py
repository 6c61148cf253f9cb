"""Batches on a real inference server: llama.cpp's, with a tiny model whose words mean nothing."""

import base64
import json
import time
import urllib.request

import numpy as np
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import ValidationError

import llama_model
from batches import CHAT, counts, create, ids, lines_of, row, wait
from llama import SECONDS
from servers import in_front_of
from strict import strict_response

COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"


@pytest.fixture(scope="module")
def client(llama, tmp_path_factory):
    """A client of a batch server with default settings."""
    with in_front_of(llama.base_url, tmp_path_factory.mktemp("serve")) as client:
        yield client


@pytest.fixture(scope="module")
def translating_client(llama, tmp_path_factory):
    """A client of a batch server that calls chat completions for rows for /v1/responses."""
    directory = tmp_path_factory.mktemp("translating")
    with in_front_of(llama.base_url, directory, "--upstream-responses", "chat") as client:
        yield client


def said(number, **more):
    messages = [{"role": "user", "content": f"hello world {number}"}]
    options = {"max_tokens": 12, "temperature": 0, **more}
    return row(f"row-{number}", CHAT, model="tiny", messages=messages, **options)


def finished(client, rows, endpoint=CHAT):
    """The bodies of the answers to rows that all succeed, in the order of the rows."""
    batch = wait(client, create(client, rows, endpoint))
    assert counts(batch) == (len(rows), len(rows), 0), batch
    lines = lines_of(client, batch.output_file_id)
    assert ids(lines) == ids(rows)
    bodies = {line["custom_id"]: line["response"]["body"] for line in lines}
    return [bodies[row["custom_id"]] for row in rows]


def test_chats_are_chat_completions(client):
    for body in finished(client, [said(number) for number in range(200)]):
        [choice] = ChatCompletion.model_validate(body).choices
        assert choice.message.content, body


def test_logprobs_are_those_of_the_words(client):
    rows = [said(number, logprobs=True, top_logprobs=2) for number in range(20)]

    for body in finished(client, rows):
        [choice] = ChatCompletion.model_validate(body).choices
        tokens = choice.logprobs.content
        # The token that ends an answer has no text.
        assert "".join(entry.token for entry in tokens) == choice.message.content
        assert all(len(entry.top_logprobs) == 2 and entry.logprob <= 0 for entry in tokens)


SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Rome", "Oslo"]}, "warm": {"type": "boolean"}},
    "required": ["city", "warm"],
    "additionalProperties": False,
}


def matches_schema(text):
    answer = json.loads(text)
    return sorted(answer) == ["city", "warm"] and answer["city"] in ("Rome", "Oslo") and answer["warm"] in (True, False)


def test_a_chat_matches_its_schema(client):
    form = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA, "strict": True}}

    for body in finished(client, [said(number, response_format=form, max_tokens=200) for number in range(10)]):
        [choice] = ChatCompletion.model_validate(body).choices
        assert choice.finish_reason == "stop"
        assert matches_schema(choice.message.content)


def test_a_response_matches_its_schema(translating_client):
    text = {"format": {"type": "json_schema", "name": "weather", "schema": SCHEMA, "strict": True}}
    rows = [
        row(f"s-{number}", RESPONSES, model="tiny", input=f"hello {number}", text=text, max_output_tokens=200)
        for number in range(10)
    ]

    for body in finished(translating_client, rows, RESPONSES):
        parsed = strict_response(body)
        assert parsed.status == "completed"
        assert matches_schema(parsed.output_text)


def test_texts_are_completions(client):
    body = {"model": "tiny", "max_tokens": 5}
    rows = [row(f"t-{number}", COMPLETIONS, prompt=f"the {number}", **body) for number in range(100)]

    for body in finished(client, rows, COMPLETIONS):
        [choice] = Completion.model_validate(body).choices
        # Some answers have no words.
        assert choice.text if choice.finish_reason == "length" else choice.finish_reason == "stop"


def vectors(client, **more):
    """Embeddings as they are on the wire: two for each row."""
    texts = [[f"one {number}", f"two {number}"] for number in range(50)]
    rows = [row(f"e-{number}", EMBEDDINGS, model="tiny", input=text, **more) for number, text in enumerate(texts)]
    return finished(client, rows, EMBEDDINGS)


def is_normal(vector):
    """Whether a vector is as long as llama.cpp makes all of them. It has other numbers if other calls run beside it."""
    return len(vector) == llama_model.N_EMBD and np.isclose(np.linalg.norm(vector), 1, atol=1e-3)


def test_embeddings_are_vectors(client):
    for body in vectors(client):
        parsed = CreateEmbeddingResponse.model_validate(body)
        assert [entry.index for entry in parsed.data] == [0, 1]
        assert all(is_normal(entry.embedding) for entry in parsed.data)


def test_embeddings_in_base64_are_vectors_too(client):
    for body in vectors(client, encoding_format="base64"):
        assert len(body["data"]) == 2
        for entry in body["data"]:
            assert is_normal(np.frombuffer(base64.b64decode(entry["embedding"]), dtype=np.float32))
        # As with OpenAI's own: the SDK decodes them when it asks for them itself, and its type has numbers only.
        with pytest.raises(ValidationError):
            CreateEmbeddingResponse.model_validate(body)


def calls(client):
    """How many calls of the upstream a batch server has made."""
    with urllib.request.urlopen(str(client.base_url).removesuffix("/v1/") + "/metrics", timeout=5) as metrics:
        lines = metrics.read().decode().splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("batchwright_attempts_total{"))


def test_a_prompt_that_is_too_long_is_refused_at_once(client):
    before = calls(client)
    too_long = [{"role": "user", "content": "hello world " * 3000}]

    batch = wait(client, create(client, [row("long", CHAT, model="tiny", messages=too_long)]))

    assert counts(batch) == (1, 0, 1)
    assert batch.output_file_id is None
    [line] = lines_of(client, batch.error_file_id)
    assert (line["custom_id"], line["response"]["status_code"], line["error"]) == ("long", 400, None)
    assert line["response"]["body"]["error"]["type"] == "exceed_context_size_error"
    assert calls(client) - before == 1


def asked():
    return [
        row(f"r-{number}", RESPONSES, model="tiny", input=f"hello {number}", max_output_tokens=9, temperature=0)
        for number in range(40)
    ]


def test_responses_are_responses(translating_client):
    for body in finished(translating_client, asked(), RESPONSES):
        parsed = strict_response(body)
        assert parsed.output_text
        assert parsed.status in ("completed", "incomplete")


def test_responses_of_the_server_itself_are_passed_on_as_they_are(llama, tmp_path):
    with in_front_of(llama.base_url, tmp_path, "--upstream-responses", "native") as client:
        bodies = finished(client, asked(), RESPONSES)

    for body in bodies:
        assert body["object"] == "response" and body["output"]
        # They lack members that OpenAI's have, such as `parallel_tool_calls`.
        with pytest.raises(ValidationError):
            Response.model_validate(body)


def test_a_streamed_answer_is_the_same_as_a_plain_one(llama, tmp_path):
    rows = [said(number) for number in range(8)] + [said(8, n=2), said(9, logprobs=True, top_logprobs=2)]
    answers = []
    for mode in ("never", "always"):
        directory = tmp_path / mode
        directory.mkdir()
        with in_front_of(llama.base_url, directory, "--stream", mode) as client:
            answers.append(finished(client, rows))
    plain, streamed = answers

    for body, other in zip(plain, streamed):
        assert other["object"] == body["object"] == "chat.completion"
        assert set(body) - {"timings"} <= set(other), "every member is there"
        assert [choice["message"] for choice in other["choices"]] == [choice["message"] for choice in body["choices"]]
        assert [c["finish_reason"] for c in other["choices"]] == [c["finish_reason"] for c in body["choices"]]
        assert other["usage"]["completion_tokens"] == body["usage"]["completion_tokens"]
    assert len(plain[8]["choices"]) == 2
    tokens = [[entry["token"] for entry in answer[9]["choices"][0]["logprobs"]["content"]] for answer in answers]
    # llama.cpp does not stream the empty token at the end.
    assert [token for token in tokens[0] if token] == tokens[1]


def test_a_server_that_is_killed_and_comes_back_costs_no_row(llama, tmp_path):
    rows = [said(number) for number in range(600)]
    with in_front_of(llama.base_url, tmp_path) as client:
        batch = create(client, rows)
        deadline = time.monotonic() + SECONDS
        while client.batches.retrieve(batch.id).request_counts.completed < 20:
            assert time.monotonic() < deadline, "no row is answered"
        llama.kill()
        assert client.batches.retrieve(batch.id).request_counts.completed < len(rows), "it was killed too late"
        time.sleep(1)
        llama.start()
        batch = wait(client, batch)

        assert counts(batch) == (len(rows), len(rows), 0), batch
        assert ids(lines_of(client, batch.output_file_id)) == ids(rows)
