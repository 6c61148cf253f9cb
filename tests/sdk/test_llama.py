"""Batches on a real inference server: llama.cpp's, with a tiny model whose words mean nothing."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from openai import OpenAI

import llama_model
from batches import counts, create, lines_of, wait
from servers import serve

CHAT = "/v1/chat/completions"
SECONDS = 60


class Llama:
    """A llama.cpp server on a port that stays its own."""

    def __init__(self, directory):
        self.model = directory / "tiny.gguf"
        llama_model.write(self.model)
        self.log = (directory / "llama.log").open("ab")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self.start()

    def start(self):
        command = [sys.executable, "llama_server.py", self.model, str(self.port)]
        self.child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5):
                return
            assert self.child.poll() is None, "llama.cpp has ended"
            time.sleep(0.02)
        raise TimeoutError("llama.cpp does not answer")

    def kill(self):
        self.child.kill()
        self.child.wait()

    def close(self):
        self.kill()
        self.log.close()


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    llama = Llama(tmp_path_factory.mktemp("llama"))
    yield llama
    llama.close()


@contextlib.contextmanager
def in_front_of(llama, directory, *arguments):
    """A client of a batch server with default settings, but for these."""
    server = serve(directory, llama.base_url, *arguments)
    try:
        with OpenAI(base_url=server.base_url, api_key="any") as client:
            yield client
    finally:
        server.stop()


def row(custom_id, url, **body):
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": {"model": "tiny", **body}}


def said(number, **more):
    messages = [{"role": "user", "content": f"hello world {number}"}]
    return row(f"row-{number}", CHAT, messages=messages, max_tokens=12, temperature=0, **more)


def bodies(client, batch):
    lines = lines_of(client, batch.output_file_id)
    return {line["custom_id"]: line["response"]["body"] for line in lines}


def finished(client, rows, endpoint):
    batch = wait(client, create(client, rows, endpoint))
    assert counts(batch) == (len(rows), len(rows), 0), batch
    return bodies(client, batch)


def test_each_endpoint_is_answered(llama, tmp_path):
    with in_front_of(llama, tmp_path) as client:
        chat = finished(client, [said(number) for number in range(20)], CHAT)
        texts = finished(client, [row("t", "/v1/completions", prompt="the", max_tokens=5)], "/v1/completions")
        vectors = finished(client, [row("e", "/v1/embeddings", input=["one", "two"])], "/v1/embeddings")
        responses = finished(client, [row("r", "/v1/responses", input="hello", max_output_tokens=9)], "/v1/responses")

    assert all(body["choices"][0]["message"]["content"] for body in chat.values())
    assert texts["t"]["choices"][0]["text"]
    assert [len(entry["embedding"]) for entry in vectors["e"]["data"]] == [llama_model.N_EMBD] * 2
    assert responses["r"]["output"], responses


def test_a_streamed_answer_is_the_same_as_a_plain_one(llama, tmp_path):
    rows = [said(number) for number in range(8)] + [said(8, n=2), said(9, logprobs=True, top_logprobs=2)]
    answers = []
    for mode in ("never", "always"):
        directory = tmp_path / mode
        directory.mkdir()
        with in_front_of(llama, directory, "--stream", mode) as client:
            answers.append(finished(client, rows, CHAT))
    plain, streamed = answers

    for custom_id, body in plain.items():
        other = streamed[custom_id]
        assert other["object"] == body["object"] == "chat.completion"
        assert set(body) - {"timings"} <= set(other), "every member is there"
        assert [choice["message"] for choice in other["choices"]] == [choice["message"] for choice in body["choices"]]
        assert [c["finish_reason"] for c in other["choices"]] == [c["finish_reason"] for c in body["choices"]]
        assert other["usage"]["completion_tokens"] == body["usage"]["completion_tokens"]
    assert len(plain["row-8"]["choices"]) == 2
    tokens = [[entry["token"] for entry in answer["row-9"]["choices"][0]["logprobs"]["content"]] for answer in answers]
    # llama.cpp does not stream the empty token at the end.
    assert [token for token in tokens[0] if token] == tokens[1]


def test_a_server_that_is_killed_and_comes_back_costs_no_row(llama, tmp_path):
    rows = [said(number) for number in range(600)]
    with in_front_of(llama, tmp_path) as client:
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
        assert sorted(bodies(client, batch)) == sorted(row["custom_id"] for row in rows)
