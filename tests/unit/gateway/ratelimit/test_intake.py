"""What unfinished requests may hold: bytes by key and in all, and requests of a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.ratelimit.intake import Intake
from llama_gguf.keys.record import KeyRecord
from llama_gguf.settings.sections.limits import Limits
from support.gateway_box import key_record

MIB = 1024 * 1024
SIZES = st.integers(0, 10 * MIB)


def key(name: str, concurrency: int | None = None) -> KeyRecord:
    return key_record(name, f"sk-{name}", concurrency=concurrency)


def intake(**limits: object) -> Intake:
    return Intake(Limits.model_validate(limits), max_body_bytes=10 * MIB)


def test_forty_unfinished_bodies_of_a_key_with_concurrency_1_hold_one() -> None:
    gate = intake()
    gate.enter(key("a", 1), 10 * MIB)
    for _ in range(39):
        with pytest.raises(GatewayError) as caught:
            gate.enter(key("a", 1), 10 * MIB)
        assert (caught.value.status, caught.value.code) == (429, "rate_limit_exceeded")
        assert caught.value.retry_after
    assert gate._total == 10 * MIB
    gate.leave(key("a", 1), 10 * MIB)
    assert gate._total == 0
    assert gate.enter(key("a", 1), None) == 10 * MIB  # it does not say, so it may become as large


def test_bytes_of_one_key_and_of_all() -> None:
    gate = intake(max_body_bytes_per_key=25 * MIB, max_body_bytes_in_all=45 * MIB)
    gate.enter(key("a"), 10 * MIB)
    gate.enter(key("a"), 10 * MIB)
    with pytest.raises(GatewayError, match="This key's requests"):
        gate.enter(key("a"), 10 * MIB)
    gate.enter(key("a"), 0)  # without a body there is nothing to hold
    gate.enter(key("b"), 10 * MIB)
    gate.enter(key("b"), 10 * MIB)
    with pytest.raises(GatewayError) as caught:
        gate.enter(key("c"), 10 * MIB)
    assert (caught.value.status, caught.value.code) == (503, "queue_full")
    gate.enter(key("c"), 1000)


def test_one_body_of_the_allowed_size_is_always_taken() -> None:
    gate = Intake(
        Limits.model_validate({"max_body_bytes_per_key": MIB, "max_body_bytes_in_all": MIB}), max_body_bytes=9 * MIB
    )
    assert gate.enter(key("a"), None) == 9 * MIB
    with pytest.raises(GatewayError):
        gate.enter(key("b"), 10)


def test_what_has_arrived_counts_as_what_it_is() -> None:
    gate = intake(max_body_bytes_per_key=25 * MIB)
    held = [gate.arrived(key("a"), gate.enter(key("a"), None), 500) for _ in range(100)]
    assert gate._total == 50_000
    for size in held:
        gate.leave(key("a"), size)
    assert gate._total == 0


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from("abc"), st.none() | st.integers(0, 10 * MIB), st.integers(0, 10 * MIB), st.booleans()
        ),
        max_size=60,
    )
)
def test_nothing_is_lost_and_the_bounds_hold(steps: list[tuple[str, int | None, int, bool]]) -> None:
    gate = intake(concurrency=5, max_body_bytes_per_key=30 * MIB, max_body_bytes_in_all=50 * MIB)
    held: list[tuple[KeyRecord, int]] = []
    for name, announced, actual, arrives in steps:
        try:
            size = gate.enter(key(name), announced)
        except GatewayError:
            if held:
                gate.leave(*held.pop(0))
            continue
        if arrives:
            size = gate.arrived(key(name), size, actual if announced is None else announced)
        held.append((key(name), size))
        assert gate._total == sum(size for _, size in held) <= 50 * MIB
    for one in held:
        gate.leave(*one)
    assert gate._total == 0
    assert not gate._held
