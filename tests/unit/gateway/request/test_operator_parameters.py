"""Which parameters an operator can set or leave out: those that clients can set, with values that a route takes."""

from __future__ import annotations

import pytest

from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.operator_parameters import check_default, check_parameter


def test_every_public_parameter_but_the_request_itself_can_be_left_out() -> None:
    refused = set()
    for name in {name for table in TABLES.values() for name, field in table.items() if field.access == "public"}:
        try:
            check_parameter(name)
        except ValueError:
            refused.add(name)
    assert {"messages", "prompt", "input", "model", "stream"} <= refused
    assert not refused & {"temperature", "max_tokens", "tools", "thinking", "n", "seed"}


@pytest.mark.parametrize("name", ["id_slot", "temprature", "", "x" * 10_000])
def test_what_clients_cannot_set_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="parameter"):
        check_parameter(name)


def test_a_value_has_to_be_right_on_every_route_that_has_the_parameter() -> None:
    check_default("temperature", 0.2)
    check_default("max_tokens", 100)
    with pytest.raises(ValueError, match="logprobs"):
        check_default("logprobs", True)  # a number in completions
    values: tuple[object, ...] = ("hot", [1], {}, True)
    for wrong in values:
        with pytest.raises(ValueError, match="temperature"):
            check_default("temperature", wrong)
    with pytest.raises(ValueError, match="null"):
        check_default("temperature", None)
