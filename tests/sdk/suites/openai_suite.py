"""The tests of the `openai` package about batches, files, uploads, their parts, and models."""

import hashlib
from functools import cached_property

from openai import OpenAI

from batches import chat_row, create, row, run, upload, wait
from suites.front import Call
from suites.suite import Suite

PART = b"Example data"
MODEL = "simulator"


class Placeholders:
    """Real objects in place of the ids that the tests name. A call that changes its object gets one of its own."""

    def __init__(self, client: OpenAI):
        self.client = client
        self.content = None

    def expect(self, path: str, content: bytes) -> None:
        """The content that the next file has whose content is read. None: that of the result file of a batch."""
        self.content = content

    def prepare(self, call: Call) -> None:
        match call.route:
            case ("POST", "batches"):
                call.set_in_body("input_file_id", "input_file_id", self.input_file(call.json["endpoint"]))
            case ("GET", "batches", "batch_id"):
                call.set_in_path("batch_id", self.completed_batch.id)
            case ("POST", "batches", "batch_id", "cancel"):
                call.set_in_path("batch_id", self.batch_in_progress())
            case ("GET", "batches"):
                call.set_in_query("after", "after", self.completed_batch.id)
            case ("GET", "files"):
                call.set_in_query("after", "after", self.completed_batch.input_file_id)
                call.set_in_query("purpose", "purpose", "batch")
            case ("GET", "files", "file_id", "content"):
                call.set_in_path("file_id", self.file_with_content())
            case ("GET" | "DELETE", "files", "file_id"):
                call.set_in_path("file_id", self.input_file("/v1/responses"))
            case ("GET", "models", _):
                call.set_in_path(call.route[-1], MODEL)
            case ("POST", "uploads", "upload_abc123", "complete"):
                self.prepare_completion(call)
            case ("POST", "uploads", "upload_abc123", *_):
                call.set_in_path("upload_abc123", self.upload())

    @cached_property
    def completed_batch(self):
        """A batch with a line in each of its result files, which no call changes."""
        return run(self.client, [chat_row("good"), chat_row("bad", model="simulator-fail-400")])

    def batch_in_progress(self) -> str:
        """A batch whose row is not answered, until it is cancelled."""
        batch = create(self.client, [chat_row("r-1", model="simulator-hang")])
        return wait(self.client, batch, {"in_progress"}).id

    def input_file(self, endpoint: str) -> str:
        return upload(self.client, [row("r-1", endpoint, model=MODEL, input="What is r-1?")]).id

    def file_with_content(self) -> str:
        if self.content is None:
            return self.completed_batch.output_file_id
        return self.client.files.create(file=self.content, purpose="user_data").id

    def upload(self) -> str:
        """An upload that takes one part."""
        return self.client.uploads.create(
            bytes=len(PART), filename="notes.txt", mime_type="text/plain", purpose="assistants"
        ).id

    def prepare_completion(self, call: Call) -> None:
        """An upload with all its bytes, which are in one part."""
        upload_id = self.upload()
        part = self.client.uploads.parts.create(upload_id, data=PART)
        call.set_in_path("upload_abc123", upload_id)
        call.set_in_body("part_ids", ["string"], [part.id])
        call.set_in_body("md5", "md5", hashlib.md5(PART).hexdigest())


MODELS_FILE = "tests/api_resources/test_models.py"
NO_DELETION = "The models are those of the inference server; none is fine-tuned here, and none can be deleted."

SUITE = Suite(
    name="openai",
    files=(
        "tests/api_resources/test_batches.py",
        "tests/api_resources/test_files.py",
        "tests/api_resources/test_uploads.py",
        "tests/api_resources/uploads/test_parts.py",
        MODELS_FILE,
    ),
    files_not_run={},
    tests_not_run={
        f"{MODELS_FILE}::{test}": NO_DELETION
        for test in ("test_method_delete", "test_raw_response_delete", "test_streaming_response_delete")
    },
    arguments=(),
    base_path="/v1",
    mock_fixture="respx2_mock",
    placeholders=Placeholders,
)
