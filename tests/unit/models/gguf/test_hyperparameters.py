"""Values as a header has them: whole numbers in range, or an error that names the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.errors import ModelError
from llama_gguf.models.gguf.header import Header, SkippedArray, Value
from llama_gguf.models.gguf.hyperparameters import Hyperparameters


def values(**metadata: Value) -> Hyperparameters:
    named = {f"llama.{key}": value for key, value in metadata.items()}
    return Hyperparameters(Header(Path("/m.gguf"), 0, 3, {"general.architecture": "llama", **named}, (), 0))


def test_one_number() -> None:
    assert values(a=7).number("a") == 7
    assert values(a=(3, 9, 1)).number("a") == 9
    assert values().number("a", 5) == 5
    assert values(a=()).number("a", 5) == 5
    assert values(a=(3, 9)).first("a") == 3
    assert values(a=4).first("a") == 4
    assert values(a=()).first("a") == 0


def test_one_per_layer() -> None:
    assert values(a=7).per_layer("a", 3) == (7, 7, 7)
    assert values(a=(1, 2, 3)).per_layer("a", 3) == (1, 2, 3)
    assert values().per_layer("a", 2, 9) == (9, 9)
    for wrong in ((), (1, 2), (1, 2, 3, 4)):
        with pytest.raises(ModelError, match=rf"llama\.a has {len(wrong)} values for 3 layers"):
            values(a=wrong).per_layer("a", 3)


def test_flags() -> None:
    assert values(a=(True, 0, 1, 0)).flags("a", 3) == (True, False, True)
    assert values(a=(True,)).flags("a", 3) == (True, False, False)
    assert values(a=4).flags("a", 3) is None
    assert values().flags("a", 3) is None


WRONG: list[Value] = [-1, 11, True, 1.0, float("nan"), "1", (1, -1), (1, "x"), SkippedArray(9)]  # type: ignore[list-item]


@pytest.mark.parametrize("value", WRONG)
def test_whatever_is_no_number_in_range_is_an_error(value: Value) -> None:
    found = values(a=value)
    for read in (lambda: found.number("a", most=10), lambda: found.per_layer("a", 2, most=10)):
        with pytest.raises(ModelError, match=r"/m\.gguf is not a model .* llama\.a is .*expected"):
            read()


def test_what_a_model_needs() -> None:
    assert values(a=1).required("a") == 1
    with pytest.raises(ModelError, match=r"it has no llama\.a"):
        values().required("a")
    with pytest.raises(ModelError, match=r"llama\.a is 0, expected 1 to 5"):
        values(a=0).required("a", most=5)
    for wrong in ((), (1,), SkippedArray(5000)):
        with pytest.raises(ModelError, match=r"llama\.a is an array of \d+, expected a whole number"):
            values(a=wrong).required("a")
    assert "expected more" in values().unfit("a", 3, "more").message
