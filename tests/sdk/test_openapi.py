"""The OpenAPI document: against the SDK's models field by field, and against the server by schemathesis."""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from openai.types import Batch, BatchError, BatchRequestCounts, BatchUsage, FileDeleted, FileObject
from openai.types.batch import Errors

CONFIGURATION = Path(__file__).parent / "schemathesis.toml"

# The schema of the document, the model of the SDK, and the members that one of them lacks on purpose.
MODELS = [
    ("BatchObject", Batch, set()),
    ("BatchErrors", Errors, set()),
    ("BatchErrorObject", BatchError, set()),
    ("BatchUsage", BatchUsage, set()),
    ("RequestCounts", BatchRequestCounts, set()),
    ("FileObject", FileObject, set()),
    ("DeletedFile", FileDeleted, set()),
]


def root(client):
    return str(client.base_url).rstrip("/").removesuffix("/v1")


@pytest.fixture(scope="session")
def document(client):
    with urllib.request.urlopen(f"{root(client)}/openapi.json") as answer:
        return json.load(answer)


@pytest.mark.parametrize(("name", "model", "apart"), MODELS)
def test_an_object_has_the_members_of_the_sdks_model(document, name, model, apart):
    schema = document["components"]["schemas"][name]

    members = set(schema["properties"])
    assert members ^ set(model.model_fields) == apart
    always = {field for field, info in model.model_fields.items() if info.is_required()}
    assert always <= set(schema["required"]), "what the SDK requires is always there"


def test_the_server_keeps_to_its_document(client, tmp_path):
    program = Path(sys.executable).parent / "schemathesis"
    command = [program, "--config-file", CONFIGURATION, "--no-color", "run", f"{root(client)}/openapi.json"]
    command += ["--max-examples", "20", "--seed", "1", "--checks", "all"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)

    assert run.returncode == 0, run.stdout[-20_000:] + run.stderr
