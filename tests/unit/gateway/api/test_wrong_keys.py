"""How many wrong keys a peer may send."""

from __future__ import annotations

from llama_gguf.gateway.api.wrong_keys import BURST, MAX_PEERS, SECONDS_EACH, WrongKeys


def test_the_first_are_judged_as_ever_then_a_time_to_wait_is_named() -> None:
    wrong = WrongKeys()
    assert [wrong.count("a", 0.0) for _ in range(BURST)] == [None] * BURST
    for _ in range(3):
        error = wrong.count("a", 0.25)
        assert error is not None
        assert (error.status, error.code, error.retry_after) == (429, "too_many_invalid_keys", 1)
    assert wrong.count("b", 0.25) is None


def test_who_waits_may_send_one_more() -> None:
    wrong = WrongKeys()
    for _ in range(5 * BURST):
        wrong.count("a", 0.0)
    assert wrong.count("a", SECONDS_EACH) is None
    assert wrong.count("a", SECONDS_EACH) is not None
    later = (BURST + 1) * SECONDS_EACH
    assert [wrong.count("a", later) for _ in range(BURST)] == [None] * BURST


def test_memory_is_bounded() -> None:
    wrong = WrongKeys()
    for _ in range(BURST):
        wrong.count("first", 0.0)
    for number in range(MAX_PEERS - 1):
        wrong.count(f"p{number}", 0.0)
    assert wrong.count("first", 0.0) is not None  # is still known
    for number in range(MAX_PEERS):
        wrong.count(f"q{number}", 0.0)
    assert wrong.count("first", 0.0) is None
