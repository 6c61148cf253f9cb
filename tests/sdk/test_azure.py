"""OpenAI's SDK as a client of Azure OpenAI: its paths, its header, and its names of endpoints."""

import pytest
from openai import AzureOpenAI, NotFoundError, OpenAI

from batches import CHAT, chat_row, counts, jsonl, lines_of, row, run, wait

ALIAS = "/chat/completions"


@pytest.fixture(scope="module")
def azure(client):
    """`AzureOpenAI` in front of the shared server."""
    host = str(client.base_url).removesuffix("/").removesuffix("/v1")
    with AzureOpenAI(azure_endpoint=host, api_key="any", api_version="2024-10-21") as azure:
        yield azure


def azure_row(custom_id):
    return {**chat_row(custom_id), "url": ALIAS}


def test_a_batch_runs_from_its_upload_to_its_results(azure):
    batch = run(azure, [azure_row("a"), azure_row("b")], endpoint=ALIAS)

    assert (batch.status, batch.endpoint, counts(batch)) == ("completed", CHAT, (2, 2, 0))
    assert sorted(line["custom_id"] for line in lines_of(azure, batch.output_file_id)) == ["a", "b"]


def test_rows_may_have_either_name(azure):
    batch = run(azure, [azure_row("a"), chat_row("b")], endpoint=ALIAS)

    assert counts(batch) == (2, 2, 0)


def test_files_and_batches_are_listed_cancelled_and_deleted(azure):
    file = azure.files.create(file=("input.jsonl", jsonl([azure_row("a")])), purpose="batch")
    batch = azure.batches.create(input_file_id=file.id, endpoint=ALIAS, completion_window="24h")

    assert azure.files.retrieve(file.id).status == "processed"
    assert file.id in {listed.id for listed in azure.files.list()}
    assert batch.id in {listed.id for listed in azure.batches.list(limit=5)}
    wait(azure, batch)
    assert azure.files.delete(file.id).deleted
    with pytest.raises(NotFoundError):
        azure.files.retrieve(file.id)


def test_the_v1_api_of_azure_is_there_too(client):
    host = str(client.base_url).removesuffix("/").removesuffix("/v1")
    with OpenAI(base_url=f"{host}/openai/v1", api_key="any", default_query={"api-version": "preview"}) as azure:
        batch = run(azure, [azure_row("a")], endpoint=ALIAS)

        assert (batch.status, counts(batch)) == ("completed", (1, 1, 0))


def test_urls_of_deployments_are_refused(azure):
    url = "/openai/deployments/gpt-4o/chat/completions"
    batch = run(azure, [row("a", url, model="simulator", messages=[])], endpoint=ALIAS)

    assert batch.status == "failed"
    assert batch.errors.data[0].code == "url_not_found"
