"""The tests of the `anthropic` package about message batches, and those about the same calls as `beta`."""

import time
from functools import cached_property

from anthropic import Anthropic
from openai import OpenAI

from batches import DEADLINE_SECONDS
from suites.front import Call
from suites.suite import Suite


class Placeholders:
    """Real message batches in place of the id that the tests name. A call that changes one gets one of its own."""

    def __init__(self, client: OpenAI):
        host = str(client.base_url).removesuffix("/").removesuffix("/v1")
        self.batches = Anthropic(base_url=host, api_key="any").messages.batches

    def expect(self, path: str, content: bytes) -> None:
        """Result lines cannot be chosen: the tests get those of a real batch, and look at their type alone."""

    def prepare(self, call: Call) -> None:
        match call.route:
            case ("GET", "messages", "batches"):
                # Something to list.
                _ = self.ended_batch
            case ("GET", "messages", "batches", "message_batch_id", *_):
                call.set_in_path("message_batch_id", self.ended_batch)
            case ("DELETE", "messages", "batches", "message_batch_id"):
                call.set_in_path("message_batch_id", self.new_ended_batch())
            case ("POST", "messages", "batches", "message_batch_id", "cancel"):
                call.set_in_path("message_batch_id", self.new_batch("simulator-hang"))

    @cached_property
    def ended_batch(self) -> str:
        """A batch with a line of each kind that the inference server brings about, which no call changes."""
        return self.new_ended_batch()

    def new_batch(self, *models: str) -> str:
        messages = [{"role": "user", "content": "Hello, world"}]
        requests = [
            {"custom_id": model, "params": {"model": model, "max_tokens": 64, "messages": messages}} for model in models
        ]
        return self.batches.create(requests=requests).id

    def new_ended_batch(self) -> str:
        batch_id = self.new_batch("simulator", "simulator-fail-400")
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if self.batches.retrieve(batch_id).processing_status == "ended":
                return batch_id
            time.sleep(0.05)
        raise TimeoutError(f"{batch_id} did not end within {DEADLINE_SECONDS} s")


BATCHES = "tests/api_resources/messages/test_batches.py"
BETA_BATCHES = "tests/api_resources/beta/messages/test_batches.py"
TWO_CURSORS = "It gives both 'after_id' and 'before_id'. What that means is not documented, and batchwright refuses it."
NO_SUCH_LINES = "It wants the lines of its mock, which are no result lines: {'foo': 'bar'} and {'bar': 'baz'}."
MODELS_OF_OPENAI = "GET /v1/models is one path of two APIs. batchwright answers it as OpenAI."

SUITE = Suite(
    name="anthropic",
    files=(BATCHES, BETA_BATCHES),
    files_not_run={
        "tests/api_resources/test_models.py": MODELS_OF_OPENAI,
        "tests/api_resources/beta/test_models.py": MODELS_OF_OPENAI,
    },
    tests_not_run={
        f"{file}::{test}": reason
        for file in (BATCHES, BETA_BATCHES)
        for test, reason in (("test_method_list_with_all_params", TWO_CURSORS), ("test_method_results", NO_SUCH_LINES))
    },
    # Of the SDK's own settings: before anything imports httpx, that name must stand for httpx2.
    arguments=("-p", "tests._alias_httpx"),
    base_path="",
    mock_fixture="respx_mock",
    placeholders=Placeholders,
)
