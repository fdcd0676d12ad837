"""Whose connections are given up when too many are open."""

from __future__ import annotations

import pytest

from llama_gguf.open_connections import ConnectionLimits, Idle, host_of, peer_of, to_give_up


def idle(peer: str, *since: float) -> list[Idle[str]]:
    return [Idle(f"{peer}{at:g}", peer, at) for at in since]


def test_none_within_the_limits() -> None:
    assert to_give_up(idle("a", 1, 2, 3), ConnectionLimits(in_all=3, per_peer=3)) == []


def test_the_oldest_of_a_peer_that_has_more_than_its_share() -> None:
    given_up = to_give_up([*idle("a", 5, 1, 3), *idle("b", 0)], ConnectionLimits(in_all=9, per_peer=2))
    assert given_up == ["a1"]


def test_when_all_is_full_whoever_has_most_gives_way() -> None:
    given_up = to_give_up([*idle("b", 0), *idle("a", 5, 1, 3)], ConnectionLimits(in_all=3, per_peer=9))
    assert given_up == ["a1"]


def test_many_peers_with_one_each_lose_some() -> None:
    many = [found for number in range(20) for found in idle(f"p{number}-", number)]
    assert len(to_give_up(many, ConnectionLimits(in_all=16, per_peer=4))) == 5  # four too many, and one to spare


def test_some_are_given_up_at_once_so_that_choosing_is_rare() -> None:
    given_up = to_give_up(idle("a", *range(65)), ConnectionLimits(in_all=256, per_peer=64))
    assert given_up[::-1] == ["a0", "a1", "a2", "a3", "a4"]


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 4000), "192.0.2.7"),
        (("2001:db8:1:2:3:4:5:6", 4000, 0, 0), "2001:db8:1:2::"),
        (("fe80::1%eth0", 4000, 0, 2), "fe80::"),
        (("::ffff:192.0.2.7", 4000, 0, 0), "192.0.2.7"),
        (("::1", 4000, 0, 0), "::"),
        ("", ""),
        (None, ""),
    ],
)
def test_who_is_at_the_other_end(address: object, peer: str) -> None:
    assert peer_of(host_of(address)) == peer
