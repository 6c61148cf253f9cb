"""A thousand rows for /v1/responses of every kind, through either API of the upstream: each answer a `Response`."""

import copy
import json
import operator
from types import SimpleNamespace

import pytest
from pydantic import ValidationError

import everything
from batches import counts, create, ids, lines_of, row, wait
from response_kinds import KINDS, NUMBERS
from servers import answering, running
from strict import strict_response

ROWS = 1000


def call(path, body):
    """`/add` and `/mul`; all others fail."""
    arguments = json.loads(body)
    known = {"/add": operator.add, "/mul": operator.mul}.get(path)
    return (200, str(known(arguments["a"], arguments["b"]))) if known else (400, "Broken.")


@pytest.fixture(scope="module")
def tool_server():
    """The base URL of a server of tools."""
    with answering(call) as base_url:
        yield base_url


@pytest.fixture(scope="session")
def mcp_server(tmp_path_factory):
    """The URL of the reference MCP server."""
    with everything.running(tmp_path_factory.mktemp("mcp")) as url:
        yield url


def settings(tool_server, mcp_server):
    numbers = json.dumps(NUMBERS)
    tools = [
        f"[[tools]]\nname = '{name}'\nurl = '{tool_server}/{name}'\nparameters = '{parameters}'\n"
        for name, parameters in [("add", numbers), ("mul", numbers), ("broken", "{}")]
    ]
    agent = "[[agents]]\nname = 'adder'\nmodel = 'simulator'\ninstructions = 'Add.'\ntools = ['add']\n"
    mcp = f"[[mcp_servers]]\nlabel = 'every'\nurl = '{mcp_server}'\n"
    return "".join([*tools, agent, mcp])


@pytest.fixture(scope="module", params=["native", "chat"])
def results(request, tool_server, mcp_server, tmp_path_factory):
    """The rows, the batch they have become, and its output by custom_id."""
    directory = tmp_path_factory.mktemp(request.param)
    config = directory / "settings.toml"
    config.write_text(settings(tool_server, mcp_server))
    kinds = [list(KINDS)[number % len(KINDS)] for number in range(ROWS)]
    # No two bodies are the same, so that the simulator gives no id twice.
    rows = [
        row(custom_id, "/v1/responses", model="simulator", metadata={"row": custom_id}, **KINDS[kind].body)
        for custom_id, kind in ((f"{kind} {number}", kind) for number, kind in enumerate(kinds))
    ]
    with running(directory, "--config", str(config), "--upstream-responses", request.param) as client:
        batch = create(client, rows, endpoint="/v1/responses", metadata={"ensure_schema": "true"})
        batch = wait(client, batch)
        errors = lines_of(client, batch.error_file_id)
        assert errors == [], errors[0]
        yield SimpleNamespace(rows=rows, batch=batch, lines=lines_of(client, batch.output_file_id))


def bodies(results):
    """Each response object with the kind of its row."""
    for line in results.lines:
        yield KINDS[line["custom_id"].rpartition(" ")[0]], line["response"]["body"]


def test_every_row_has_one_line(results):
    assert counts(results.batch) == (ROWS, ROWS, 0)
    assert ids(results.lines) == ids(results.rows)


def test_every_answer_is_a_response(results):
    for kind, body in bodies(results):
        parsed = strict_response(body)

        assert parsed.status == kind.status, body
        assert [item.type for item in parsed.output] == kind.types, body
        assert kind.text in (None, parsed.output_text), body


def test_ids_are_unique(results):
    ids_of_lines = [line["id"] for line in results.lines]
    ids_of_responses = [body["id"] for _, body in bodies(results)]
    ids_of_items = [item["id"] for _, body in bodies(results) for item in body["output"]]

    for ids_of_kind in (ids_of_lines, ids_of_responses, ids_of_items):
        assert len(set(ids_of_kind)) == len(ids_of_kind)


def test_every_output_belongs_to_a_call(results):
    for kind, body in bodies(results):
        calls, outputs = (
            [item["call_id"] for item in body["output"] if item["type"] == wanted]
            for wanted in ("function_call", "function_call_output")
        )

        assert len(set(calls)) == len(calls) == kind.types.count("function_call")
        assert len(set(outputs)) == len(outputs) == kind.types.count("function_call_output")
        assert set(outputs) <= set(calls)


def test_calls_of_mcp_servers_end_in_every_way(results):
    ways = {}
    for kind, body in bodies(results):
        for item in body["output"]:
            if item["type"] == "mcp_call":
                ways.setdefault(item["status"], []).append(item)

    assert sorted(ways) == ["completed", "failed", "incomplete"]
    assert {item["output"] for item in ways["completed"]} == {"Echo: one", "Echo: two"}
    assert all(item["output"] is None and item["error"]["content"] for item in ways["failed"])
    assert all(item["output"] is None and item["error"] is None for item in ways["incomplete"])


def test_usage_adds_up(results):
    names = ("input_tokens", "output_tokens", "total_tokens")
    used = [[body["usage"][name] for name in names] for _, body in bodies(results)]

    assert all(a + b == total and a and b for a, b, total in used)
    assert [getattr(results.batch.usage, name) for name in names] == [sum(column) for column in zip(*used)]


GONE = object()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("object", "completion"),
        ("created_at", "1767225600"),
        ("status", "done"),
        ("parallel_tool_calls", GONE),
        ("tool_choice", "sometimes"),
        ("metadata.row", 1),
        ("output", None),
        ("mood", "good"),
        ("tools.0.type", "functions"),
        ("tools.0.name", GONE),
        ("usage.total_tokens", 1.5),
        ("usage.input_tokens_details.cache_write_tokens", GONE),
        ("output.0.summary", GONE),
        ("output.1.call_id", GONE),
        ("output.1.type", "message"),
        ("output.1.type", "call"),
        ("output.2.status", "done"),
        ("output.2.output", 5),
        ("output.4.role", "tool"),
        ("output.4.mood", "good"),
        ("output.4.content.0.type", "text"),
        ("output.4.content.0.annotations", GONE),
    ],
)
def test_a_response_with_anything_wrong_is_none(results, place, value):
    body = copy.deepcopy(next(body for kind, body in bodies(results) if kind is KINDS["reasoning with a tool"]))
    strict_response(body)

    *above, name = place.split(".")
    parent = body
    for step in above:
        parent = parent[int(step) if isinstance(parent, list) else step]
    if value is GONE:
        del parent[name]
    else:
        parent[name] = value

    with pytest.raises((ValidationError, AssertionError)):
        strict_response(body)
