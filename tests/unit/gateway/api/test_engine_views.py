"""The engine's models and properties, as clients see them."""

from __future__ import annotations

import json

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api.engine_views import present_models, present_props

ENGINE = json.dumps({"data": [{"id": "/m/x.gguf", "created": 5, "meta": {"n_ctx_train": 9, "path": "/m"}}]}).encode()


def test_models_are_shown_under_their_names() -> None:
    shown = json.loads(present_models(ENGINE, ("a", "b"), ("b", "c"), wanted=""))
    assert shown == {
        "object": "list",
        "data": [{"id": "b", "object": "model", "created": 5, "owned_by": "llama.cpp", "meta": {"n_ctx_train": 9}}],
    }
    assert json.loads(present_models(ENGINE, ("a b",), None, wanted="a%20b"))["id"] == "a b"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": []}', b'{"data": [5]}', b'{"data": 5}', b"[1]"])
def test_models_without_data_of_the_engine_still_have_names(body: bytes) -> None:
    entry = json.loads(present_models(body, ("a",), None, wanted="a"))
    assert entry == {"id": "a", "object": "model", "created": 0, "owned_by": "llama.cpp"}


@pytest.mark.parametrize("body", [b"", b"[]", b"nonsense"])
def test_properties_that_make_no_sense_are_the_engines_fault(body: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        present_props(body, "tiny")
    assert (caught.value.status, caught.value.code) == (502, "engine_protocol")


def test_unknown_properties_are_not_shown() -> None:
    assert json.loads(present_props(b'{"total_slots": 1, "new": "/models/x", "model_path": "/models/x"}', "tiny")) == {
        "model_alias": "tiny",
        "model_path": "tiny",
        "total_slots": 1,
    }
