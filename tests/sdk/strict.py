"""Parsing as the SDK's client does not: without converting, and without unknown members.

The client takes an answer as it comes (`construct`); `model_validate` checks all of it: each type, each literal, each
required member, and of a union that the member's `type` names one whose members are there.
"""

from pydantic import BaseModel


def strictly(model, raw):
    """`raw` as an object of `model`."""
    parsed = model.model_validate(raw, strict=True)
    _assert_nothing_unknown(parsed)
    return parsed


def _assert_nothing_unknown(parsed):
    assert not parsed.model_extra, f"{type(parsed).__name__} does not know {sorted(parsed.model_extra)}"
    for name in type(parsed).model_fields:
        value = getattr(parsed, name)
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, BaseModel):
                _assert_nothing_unknown(child)
