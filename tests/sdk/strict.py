"""Parsing as the SDK's client does not: without converting, and without unknown members.

The client takes an answer as it comes (`construct`); `model_validate` checks all of it: each type, each literal, each
required member, and of a union that the member's `type` names one whose members are there.
"""

from openai.types.responses import Response
from pydantic import BaseModel


def strictly(model, raw):
    """`raw` as an object of `model`."""
    parsed = model.model_validate(raw, strict=True)
    _assert_nothing_unknown(parsed)
    return parsed


def strict_response(body):
    """A body as the `Response` it must be, but for two things that the SDK's type does not have."""
    # OpenAI's own answers have it. An upstream's need not.
    assert isinstance(body.get("store", True), bool)
    body = {name: value for name, value in body.items() if name != "store"}
    # A limit for which OpenAI has no reason.
    details = body["incomplete_details"]
    if details and "reason" not in details:
        assert sorted(details) == ["limit", "message"]
        body["incomplete_details"] = {}
    return strictly(Response, body)


def _assert_nothing_unknown(parsed):
    assert not parsed.model_extra, f"{type(parsed).__name__} does not know {sorted(parsed.model_extra)}"
    for name in type(parsed).model_fields:
        value = getattr(parsed, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                _assert_nothing_unknown(child)
