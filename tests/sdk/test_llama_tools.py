"""Tools on a real inference server: llama.cpp's, with a tiny model that calls whatever tool it is offered.

The arguments of its calls match the tool's schema, because llama.cpp lets the model say nothing else.
"""

import json
from types import SimpleNamespace

import pytest
from openai.types.chat import ChatCompletion

from batches import CHAT, counts, create, ids, lines_of, row, wait
from servers import answering, in_front_of
from strict import strict_response

RESPONSES = "/v1/responses"
ROWS = 10
CITIES = ["Rome", "Oslo"]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"enum": CITIES}},
    "required": ["city"],
    "additionalProperties": False,
}
# llama.cpp takes a named function for `auto`.
CHOICES = ["auto", "required", "named"]


@pytest.fixture
def server(started):
    """The batch server with the tool `weather`, which has not been called."""
    started.received.clear()
    return started


@pytest.fixture(scope="module")
def started(llama, tmp_path_factory):
    """A batch server with the tool `weather`, and what that tool was called with."""
    directory = tmp_path_factory.mktemp("tools")
    received = []

    def weather(path, body):
        arguments = json.loads(body)
        received.append(arguments)
        return 200, f"sunny in {arguments['city']}"

    with answering(weather) as tools:
        config = directory / "settings.toml"
        config.write_text(f"[[tools]]\nname = 'weather'\nurl = '{tools}'\nparameters = '{json.dumps(PARAMETERS)}'\n")
        arguments = ("--upstream-responses", "chat", "--config", str(config))
        with in_front_of(llama.base_url, directory, *arguments) as client:
            yield SimpleNamespace(client=client, received=received)


def finished(client, rows, endpoint=RESPONSES):
    """The bodies of the answers to rows that all succeed."""
    batch = wait(client, create(client, rows, endpoint))
    assert counts(batch) == (len(rows), len(rows), 0), batch
    lines = lines_of(client, batch.output_file_id)
    assert ids(lines) == ids(rows)
    return [line["response"]["body"] for line in lines]


def asked(choice, name):
    """Rows that offer a function."""
    tool = {"type": "function", "name": name, "description": "The weather.", "parameters": PARAMETERS}
    body = {
        **{"model": "tiny", "tools": [tool], "max_output_tokens": 600},
        "tool_choice": {"type": "function", "name": name} if choice == "named" else choice,
    }
    return [row(f"r-{number}", RESPONSES, input=f"hello world {number}", **body) for number in range(ROWS)]


def is_valid(arguments):
    return json.loads(arguments) in [{"city": city} for city in CITIES]


@pytest.mark.parametrize("choice", CHOICES)
def test_a_chat_is_answered_with_a_call(server, choice):
    function = {"name": "weather", "parameters": PARAMETERS}
    body = {
        **{"model": "tiny", "tools": [{"type": "function", "function": function}], "max_tokens": 200},
        "tool_choice": {"type": "function", "function": {"name": "weather"}} if choice == "named" else choice,
    }
    messages = [[{"role": "user", "content": f"hello world {number}"}] for number in range(ROWS)]
    rows = [row(f"c-{number}", CHAT, messages=messages, **body) for number, messages in enumerate(messages)]

    for body in finished(server.client, rows, CHAT):
        [answer] = ChatCompletion.model_validate(body).choices
        [call] = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls"
        assert call.function.name == "weather" and is_valid(call.function.arguments)
    assert server.received == []


@pytest.mark.parametrize("choice", CHOICES)
def test_a_response_ends_with_the_call_of_a_function_of_the_client(server, choice):
    for body in finished(server.client, asked(choice, "weather_of_the_client")):
        response = strict_response(body)
        [call] = response.output
        assert (call.type, call.name, call.status) == ("function_call", "weather_of_the_client", "completed")
        assert is_valid(call.arguments)
        assert response.status == "completed"
    assert server.received == []


@pytest.mark.parametrize("choice", CHOICES)
def test_the_model_goes_on_with_the_output_of_a_tool(server, choice):
    responses = [strict_response(body) for body in finished(server.client, asked(choice, "weather"))]

    for response in responses:
        call, output, *messages = response.output
        assert (call.type, call.name, call.status) == ("function_call", "weather", "completed")
        assert is_valid(call.arguments)
        assert (output.type, output.call_id) == ("function_call_output", call.call_id)
        assert output.output == f"sunny in {json.loads(call.arguments)['city']}"
        # The model says words until it comes upon the end, which may be at once.
        assert [message.type for message in messages] in (["message"], [])
        cut_off = response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"
        assert response.status == "completed" or cut_off
    assert any(response.status == "completed" and response.output_text for response in responses)
    called = sorted(json.loads(response.output[0].arguments)["city"] for response in responses)
    assert sorted(arguments["city"] for arguments in server.received) == called
