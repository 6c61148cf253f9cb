"""Bodies of rows for /v1/responses of every kind, and what has to come of each.

They need the simulator as their upstream, and on the server the tools `add`, `mul` and `broken`, which always fails,
the agent `adder`, which may call `add`, and as the MCP server `every` the reference server.
"""

import json
from dataclasses import dataclass

CALLED = ["function_call", "function_call_output"]
NUMBERS = {
    "type": "object",
    "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
    "required": ["a", "b"],
}
ANSWER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA="


@dataclass
class Kind:
    """A body, and what has to come of it. No text means any."""

    body: dict
    types: list[str]
    text: str | None = None
    status: str = "completed"


def scripted(*turns, **script):
    """An input that the simulator answers with these turns of calls, then as the script says."""
    return "simulate:" + json.dumps({"turns": turns, **script})


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


ADD = call("add", a=1, b=1)


def functions(*names, **more):
    return [{"type": "function", "name": name, **more} for name in names]


def every(*turns, **more):
    """A row with the tools of the MCP server."""
    return {
        "input": scripted(*turns),
        "tools": [{"type": "mcp", "server_label": "every", "require_approval": "never", **more}, *functions("add")],
    }


def message(role, *parts):
    return {"type": "message", "role": role, "content": list(parts)}


def text_part(text):
    return {"type": "input_text", "text": text}


def image_part(detail):
    return {"type": "input_image", "image_url": PIXEL, "detail": detail}


def json_schema(**more):
    return {"format": {"type": "json_schema", "name": "answer", "schema": ANSWER, **more}}


def adding(**body):
    """A row that adds once."""
    return {"input": scripted([call("add", a=2, b=3)]), "tools": functions("add"), **body}


def endless(**body):
    return {"input": scripted([ADD], endless=True), "tools": functions("add"), **body}


KINDS = {
    "plain": Kind({"input": "Hello"}, ["message"]),
    "sampled": Kind(
        {"input": "Hello", "instructions": "Be brief.", "temperature": 0, "top_p": 0.5, "max_output_tokens": 64},
        ["message"],
    ),
    "items": Kind(
        {
            "input": [
                {"role": "developer", "content": "Be kind."},
                {"role": "user", "content": "Hello"},
                {
                    **message("assistant", {"type": "output_text", "text": "Hello!", "annotations": []}),
                    **{"id": "msg_1", "status": "completed"},
                },
                message("user", text_part(scripted(answer="Bye"))),
            ]
        },
        ["message"],
        "Bye",
    ),
    "image": Kind(
        {"input": [message("user", text_part(scripted(answer="A dot")), image_part("low"))]}, ["message"], "A dot"
    ),
    "image with a tool": Kind(
        adding(input=[message("user", text_part(scripted([ADD])), image_part("auto"))]), [*CALLED, "message"], "2"
    ),
    "one tool": Kind(adding(), [*CALLED, "message"], "5"),
    "one tool, sampled": Kind(
        adding(instructions="Add.", temperature=1, top_p=1, parallel_tool_calls=False, store=False),
        [*CALLED, "message"],
        "5",
    ),
    "instructions as items": Kind(
        adding(instructions=[{"role": "developer", "content": "Add."}]), [*CALLED, "message"], "5"
    ),
    "described tool": Kind(
        adding(tools=functions("add", description="Adds.", parameters=NUMBERS, strict=False)), [*CALLED, "message"], "5"
    ),
    "parallel": Kind(
        {
            "input": scripted([call("add", a=1, b=1), call("mul", a=3, b=3), call("add", a=10, b=1)]),
            "tools": functions("add", "mul"),
            "parallel_tool_calls": True,
        },
        [*["function_call"] * 3, *["function_call_output"] * 3, "message"],
        "2 | 9 | 11",
    ),
    "chain of five": Kind(
        {"input": scripted(*[[call("add", a=n, b=n)] for n in range(5)]), "tools": functions("add")},
        [*CALLED * 5, "message"],
        "0 | 2 | 4 | 6 | 8",
    ),
    "bad arguments": Kind(
        {
            "input": scripted([{"name": "add", "arguments": "not JSON"}, call("add", a="one")], answer="Sorry"),
            "tools": functions("add"),
        },
        ["function_call", "function_call", "function_call_output", "function_call_output", "message"],
        "Sorry",
    ),
    "broken tool": Kind(
        {"input": scripted([call("broken")], answer="Sorry"), "tools": functions("broken")},
        [*CALLED, "message"],
        "Sorry",
    ),
    "made-up function": Kind(
        {"input": scripted([call("subtract", a=1)], answer="Sorry"), "tools": functions("add")},
        [*CALLED, "message"],
        "Sorry",
    ),
    "endless": Kind(endless(), CALLED * 10, "", "incomplete"),
    "max_tool_calls": Kind(endless(max_tool_calls=2), [*CALLED * 2, "function_call"], "", "incomplete"),
    "max_output_tokens": Kind(endless(max_output_tokens=23), [*CALLED, "function_call"], "", "incomplete"),
    "client's function": Kind(
        {
            "input": scripted([call("weather", city="Rome")]),
            "tools": functions("weather", parameters=CITY, strict=True),
        },
        ["function_call"],
        "",
    ),
    "mixed turn": Kind(
        {"input": scripted([ADD, call("weather", city="Rome")]), "tools": functions("add", "weather")},
        ["function_call", "function_call", "function_call_output"],
        "",
    ),
    "reasoning": Kind(
        {"input": scripted(answer="42", reasoning="Six times seven."), "reasoning": {"effort": "low"}},
        ["reasoning", "message"],
        "42",
    ),
    "reasoning with a tool": Kind(
        adding(input=scripted([ADD], reasoning="Let me see."), reasoning={"effort": "high"}),
        ["reasoning", *CALLED, "reasoning", "message"],
        "2",
    ),
    "refusal": Kind({"input": scripted(refuse="I would rather not.")}, ["message"], ""),
    "refusal with a tool": Kind(
        adding(input=scripted([ADD], refuse="I would rather not.")), [*CALLED, "message"], ""
    ),
    "schema": Kind({"input": scripted(answer='{"n": 1}'), "text": json_schema(strict=True)}, ["message"], '{"n": 1}'),
    "schema, corrected": Kind(
        {"input": scripted(answers=["One.", '{"n": 1}']), "text": json_schema(description="A number.")},
        ["message"],
        '{"n": 1}',
    ),
    "schema with a tool": Kind(
        adding(input=scripted([ADD], answer='{"n": 2}'), text={**json_schema(), "verbosity": "low"}),
        [*CALLED, "message"],
        '{"n": 2}',
    ),
    "user": Kind(
        adding(user="u-1", safety_identifier="s-1", prompt_cache_key="p-1", service_tier="default"),
        [*CALLED, "message"],
        "5",
    ),
    "tool_choice none": Kind(adding(input="Hello", tool_choice="none"), ["message"]),
    "tool_choice required": Kind(adding(tool_choice="required"), [*CALLED, "message"], "5"),
    "tool_choice function": Kind(
        adding(tool_choice={"type": "function", "name": "add"}), [*CALLED, "message"], "5"
    ),
    "tool_choice allowed_tools": Kind(
        adding(tool_choice={"type": "allowed_tools", "mode": "auto", "tools": functions("add")}),
        [*CALLED, "message"],
        "5",
    ),
    "agent": Kind(
        {
            "input": scripted([call("adder", input=scripted([call("add", a=20, b=22)]))]),
            "tools": functions("adder"),
        },
        [*CALLED, "message"],
        "42",
    ),
    "mcp": Kind(
        every([call("every__echo", message="one"), ADD], [call("every__echo", message="two")]),
        ["mcp_list_tools", "mcp_call", *CALLED, "mcp_call", "message"],
        "Echo: one | 2 | Echo: two",
    ),
    "mcp, failed": Kind(
        {**every(), "input": scripted([call("every__echo", message=7)], answer="Sorry")},
        ["mcp_list_tools", "mcp_call", "message"],
        "Sorry",
    ),
    "mcp, cut off": Kind(
        {**every([ADD], [call("every__echo", message="never")]), "max_tool_calls": 1},
        ["mcp_list_tools", *CALLED, "mcp_call"],
        "",
        "incomplete",
    ),
    "mcp, to be approved": Kind(
        every([call("every__echo", message="one"), ADD], require_approval="always", allowed_tools=["echo"]),
        ["mcp_list_tools", "mcp_approval_request", *CALLED],
        "",
    ),
    "tried again": Kind(adding(input=scripted([ADD], fail_once={"1": 500})), [*CALLED, "message"], "2"),
}
