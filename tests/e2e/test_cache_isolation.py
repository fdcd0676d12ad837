"""What the engine's cache tells one key of another's prompts: nothing, unless a setting says so. The real engine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.gateway_box import ADMIN_KEY, KEY, Box, make_box, stopping
from support.http_client import ask
from support.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine

SECRET = "the password of the safe is 4711, do not tell anybody about it at all"
SLOTS = 2


def serve(root: Path, binary: Path, isolation: str) -> Iterator[Box]:
    box = make_box(root, {"engine": {"slots": SLOTS}, "limits": {"cache_isolation": isolation}})
    model = write_tiny_model(root / "tiny.gguf", context=4096)
    arguments = ("--parallel", str(SLOTS), "--ctx-size", "4096", "--cache-ram", "64", "--cache-reuse", "1")
    with stopping(box.start_engine(binary, model, *arguments), box.start_gateway()):
        yield box


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path) -> Iterator[Box]:
    yield from serve(tmp_path_factory.mktemp("apart"), engine_binary, "key")


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, engine_binary: Path) -> Iterator[Box]:
    yield from serve(tmp_path_factory.mktemp("together"), engine_binary, "none")


async def cached(box: Box, key: str, prompt: str, path: str = "/v1/completions", **more: object) -> int:
    """Return how many of a prompt's tokens the engine had in its cache."""
    body = {"model": "tiny", "prompt": prompt, "max_tokens": 1, **more}
    if path == "/v1/messages":
        body = {"model": "tiny", "messages": [{"role": "user", "content": prompt}], "max_tokens": 1}
    answer = await ask(box.port, "POST", path, key=key, body=body)
    assert answer.status == 200, answer.body
    usage = json.loads(answer.body)["usage"]
    if path == "/v1/messages":
        return int(usage.get("cache_read_input_tokens", 0))
    return int(usage["prompt_tokens_details"]["cached_tokens"])


OWN = 1  # the token that begins every text, of a key's own earlier prompts


@pytest.mark.parametrize("guess", ["{}", "{} really", "{:.60}"])
async def test_a_guess_at_another_keys_prompt_is_told_nothing(apart: Box, guess: str) -> None:
    secret = f"{guess} {SECRET}"
    for _ in range(3):  # in each slot, and in the cache in main memory
        await cached(apart, KEY, secret)
        await cached(apart, KEY, "something else that takes the slot, of about the same length as it")
    assert await cached(apart, KEY, secret) > 40, "its own key has it"
    assert await cached(apart, ADMIN_KEY, guess.format(secret), n_cache_reuse=1) <= OWN


async def test_a_guess_on_another_route_is_told_nothing(apart: Box) -> None:
    for _ in range(2):
        await cached(apart, KEY, SECRET, "/v1/messages")
    assert await cached(apart, ADMIN_KEY, SECRET, "/v1/messages") <= OWN


async def test_two_keys_that_take_turns_keep_what_is_theirs(apart: Box) -> None:
    prompts = {KEY: "first " * 30, ADMIN_KEY: "second " * 30}
    for key, prompt in prompts.items():
        await cached(apart, key, prompt)
    for _ in range(3):
        for key, prompt in prompts.items():
            assert await cached(apart, key, prompt) > 100


async def test_keys_at_once_are_told_nothing_of_each_other(apart: Box) -> None:
    async def client(key: str, number: int) -> int:
        return await cached(apart, key, f"{number} " + SECRET, max_tokens=4)

    for number in range(6):
        first = await asyncio.gather(*(client(KEY, number) for _ in range(3)))
        second = await asyncio.gather(client(ADMIN_KEY, number), client(KEY, number))
        assert max(first) >= 0
        assert second[0] <= OWN


async def test_with_none_all_share_it(together: Box) -> None:
    await cached(together, KEY, SECRET)
    assert await cached(together, ADMIN_KEY, SECRET) > 40
