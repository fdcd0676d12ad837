"""The engine's models and properties, as clients see them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.api.engine_views import ModelEntry, present_models, present_props
from llama_gguf.states import Residency

ENGINE = json.dumps({"data": [{"id": "/m/x.gguf", "created": 5, "meta": {"n_ctx_train": 9, "path": "/m"}}]}).encode()


def entry(name: str, engine: bytes = ENGINE, **values: Any) -> ModelEntry:
    plain: dict[str, Any] = {"state": Residency.LOADED, "task": "generate", "context": 2048, "modalities": ("text",)}
    return ModelEntry(name=name, engine=engine, **plain | values)


SHOWN = {
    "object": "model",
    "created": 5,
    "owned_by": "llama.cpp",
    "state": "loaded",
    "task": "generate",
    "context": 2048,
    "modalities": ["text"],
    "meta": {"n_ctx_train": 9},
}


def test_models_are_shown_under_their_names() -> None:
    other = entry("b", of="a", state=Residency.UNLOADED, context=0)
    shown = json.loads(present_models([entry("a"), other], wanted=""))
    second = {**SHOWN, "id": "b", "parent": "a", "state": "unloaded", "context": None}
    assert shown == {"object": "list", "data": [{**SHOWN, "id": "a"}, second]}
    assert json.loads(present_models([entry("a b")], wanted="a%20b"))["id"] == "a b"
    with pytest.raises(GatewayError) as caught:
        present_models([entry("a")], wanted="b")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": []}', b'{"data": [5]}', b'{"data": 5}', b"[1]"])
def test_models_without_data_of_the_engine_still_have_names(body: bytes) -> None:
    shown = json.loads(present_models([entry("a", body)], wanted="a"))
    assert shown == {name: value for name, value in SHOWN.items() if name != "meta"} | {"id": "a", "created": 0}


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
