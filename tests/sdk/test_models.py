"""The models that rows may name: listing them, and retrieving one."""

import pytest
from openai import NotFoundError


def test_each_listed_model_can_be_retrieved(client):
    listed = list(client.models.list())

    assert [model.id for model in listed] == ["simulator"]
    assert client.models.retrieve("simulator").to_dict() == listed[0].to_dict()


@pytest.mark.parametrize("model", ["gpt", "Qwen/Qwen3-8B"])
def test_a_model_that_is_not_listed_is_not_found(client, model):
    with pytest.raises(NotFoundError) as refused:
        client.models.retrieve(model)

    assert refused.value.code == "model_not_found"
    assert f"'{model}'" in refused.value.message
