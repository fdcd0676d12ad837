"""The ring follows the file; what goes wrong with the file never takes the ring away."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from blockbuster import blockbuster_ctx

from llama_gguf.errors import KeysError
from llama_gguf.keys import watcher
from llama_gguf.keys.file_format import render
from llama_gguf.keys.record import KeyFile
from llama_gguf.keys.store import KeyStore
from llama_gguf.keys.watcher import KeyState, KeyWatcher
from support.keys_made import ALICE, BOB, record
from support.patience import PATIENCE

ONE = render(KeyFile((record(),)))
TWO = render(KeyFile((record(), record("bob", BOB))))


def put(path: Path, text: str = ONE) -> None:
    """Replace the file the way a careful writer does."""
    new = path.with_name("next")
    new.write_text(text)
    new.chmod(0o600)
    new.replace(path)


class Watched:
    """A running watcher and the states it told."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[KeyState] = []
        self.keys = KeyWatcher(path, interval_seconds=0.02, on_change=self.told.append)

    async def until(self, true: Callable[[], bool], seconds: float = 5.0 * PATIENCE) -> float:
        began = time.monotonic()
        while not true():
            assert time.monotonic() - began < seconds, self.keys.state
            await asyncio.sleep(0.005)
        return time.monotonic() - began


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest_asyncio.fixture
async def watched(path: Path) -> AsyncIterator[Watched]:
    put(path)
    made = Watched(path)
    with blockbuster_ctx():  # no file work on the loop
        await made.keys.start()
        yield made
        await made.keys.stop()


async def test_the_first_read_is_done_when_start_returns(watched: Watched) -> None:
    assert watched.keys.ring.match(ALICE, time.time()) is not None
    assert len(watched.keys.ring) == 1
    state = watched.keys.state
    assert (state.ring, state.error) == (watched.keys.ring, None)
    assert watched.told == [state]


async def test_a_change_is_live_within_a_second_with_the_default_interval(path: Path) -> None:
    put(path)
    keys = KeyWatcher(path)
    await keys.start()
    before = keys.ring
    await asyncio.to_thread(put, path, TWO)
    async with asyncio.timeout(PATIENCE):
        while keys.ring is before:  # noqa: ASYNC110 - what the watcher does is seen from outside
            await asyncio.sleep(0.005)
    await keys.stop()
    assert keys.ring.get("bob") is not None
    assert before.get("bob") is None  # a request that runs keeps what it has


async def test_a_write_in_place_is_seen(watched: Watched) -> None:
    """How a bind-mounted file changes: same inode, new content."""

    def overwrite() -> None:
        with watched.path.open("r+b") as file:
            file.write(TWO.encode())

    await asyncio.to_thread(overwrite)
    await watched.until(lambda: len(watched.keys.ring) == 2)


async def test_the_symlink_swap_of_kubernetes_is_seen(tmp_path: Path) -> None:
    """keys.json -> ..data/keys.json, and ..data is renamed over to the next version's directory."""
    for version, text in (("..v1", ONE), ("..v2", TWO)):
        (tmp_path / version).mkdir()
        put(tmp_path / version / "keys.json", text)
    (tmp_path / "..data").symlink_to("..v1")
    (tmp_path / "keys.json").symlink_to("..data/keys.json")
    made = Watched(tmp_path / "keys.json")
    await made.keys.start()
    assert len(made.keys.ring) == 1
    (tmp_path / "..data_tmp").symlink_to("..v2")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    await made.until(lambda: len(made.keys.ring) == 2)
    await made.keys.stop()


@pytest.mark.parametrize("broken", ["{", "", " \n", "alice", '{"version": 9, "keys": []}'])
async def test_a_broken_or_blank_file_keeps_the_ring(
    watched: Watched, broken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Defect 11: an unreadable file on reload locked everyone out."""
    before = watched.keys.ring
    await asyncio.to_thread(put, watched.path, broken)
    await watched.until(lambda: watched.keys.state.error is not None)
    await asyncio.sleep(0.1)
    assert watched.keys.ring is before
    assert len(watched.told) == 2  # told once, however often it was read
    errors = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert [entry.getMessage() for entry in errors] == ["invalid keys file; the previous keys remain in use"]
    await asyncio.to_thread(put, watched.path, TWO)
    await watched.until(lambda: watched.keys.state.error is None)
    assert len(watched.keys.ring) == 2


async def test_a_file_that_goes_and_comes_back_as_it_was(watched: Watched) -> None:
    before = watched.keys.ring
    await asyncio.to_thread(watched.path.unlink)
    await watched.until(lambda: watched.keys.state.error is not None)
    assert watched.keys.state.error is not None
    assert watched.keys.state.error.code == "keys-missing"
    assert watched.keys.ring is before
    await asyncio.to_thread(put, watched.path)
    await watched.until(lambda: watched.keys.state.error is None)
    assert watched.keys.ring.match(ALICE, time.time()) is not None


async def test_a_file_that_anybody_may_write_is_not_taken_over(watched: Watched) -> None:
    def open_up() -> None:
        watched.path.write_text(TWO)
        watched.path.chmod(0o666)

    await asyncio.to_thread(open_up)
    await watched.until(
        lambda: watched.keys.state.error is not None and watched.keys.state.error.code == "keys-writable"
    )
    await asyncio.to_thread(watched.path.chmod, 0o600)  # the content stays; the mode alone is a change
    await watched.until(lambda: watched.keys.state.error is None)


async def test_without_a_usable_file_at_the_start_nobody_gets_in(path: Path) -> None:
    """Defect 12: auth failed open."""
    made = Watched(path)
    await made.keys.start()
    assert len(made.keys.ring) == 0
    assert made.keys.ring.match(ALICE, time.time()) is None
    assert made.keys.state.error is not None
    put(path)
    await made.until(lambda: len(made.keys.ring) == 1)
    await made.keys.stop()


async def test_an_empty_list_of_keys_is_a_decision(watched: Watched, caplog: pytest.LogCaptureFixture) -> None:
    await asyncio.to_thread(put, watched.path, render(KeyFile()))
    await watched.until(lambda: len(watched.keys.ring) == 0)
    assert watched.keys.state.error is None
    assert "no keys: every request that needs one is rejected" in caplog.messages


async def test_reload_now_counts_the_keys(watched: Watched) -> None:
    await asyncio.to_thread(put, watched.path, TWO)
    assert await watched.keys.reload_now() == 2
    assert await watched.keys.reload_now() == 2
    assert len(watched.told) == 2  # the second read found nothing new


async def test_reload_now_is_all_or_nothing(watched: Watched) -> None:
    before = watched.keys.ring
    await asyncio.to_thread(put, watched.path, TWO + "x")
    with pytest.raises(KeysError) as caught:
        await watched.keys.reload_now()
    assert caught.value.code == "keys-syntax"
    assert watched.keys.ring is before
    assert watched.keys.state.error is caught.value


async def test_the_old_plaintext_file_works_as_it_is(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(path, f"# old\nalice:{ALICE}:60:2099-01-01T00:00:00+02:00\n")
    made = Watched(path)
    await made.keys.start()
    found = made.keys.ring.match(ALICE, time.time())
    assert found is not None
    assert found.requests_per_minute == 60
    assert any("contains the keys in plaintext" in message for message in caplog.messages)
    assert ALICE not in caplog.text
    await made.keys.stop()


async def test_changes_by_the_command_are_seen(watched: Watched) -> None:
    def change() -> None:
        with KeyStore(watched.path).locked() as session:
            session.write(KeyFile())

    await asyncio.to_thread(change)
    await watched.until(lambda: len(watched.keys.ring) == 0)


@pytest.mark.slow
async def test_a_second_write_that_the_clock_of_the_file_system_hides(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "identify", lambda _path: (1, 2, 3, 4, 5))
    put(path)
    made = Watched(path)
    await made.keys.start()
    put(path, TWO)
    await made.until(lambda: len(made.keys.ring) == 2, 0.9)
    await asyncio.sleep(1.1)  # settled: from here on only a new identity counts
    put(path)
    await asyncio.sleep(0.1)
    assert len(made.keys.ring) == 2
    await made.keys.stop()


async def test_a_reload_that_is_cancelled_loses_nothing(watched: Watched) -> None:
    await asyncio.to_thread(put, watched.path, TWO)
    reload = asyncio.create_task(watched.keys.reload_now())
    await asyncio.sleep(0)
    reload.cancel()
    await asyncio.gather(reload, return_exceptions=True)
    await watched.until(lambda: len(watched.keys.ring) == 2)


async def test_a_defect_in_on_change_does_not_end_the_watch(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    put(path)
    calls: list[KeyState] = []

    def fail(state: KeyState) -> None:
        calls.append(state)
        if len(calls) == 2:
            raise ZeroDivisionError

    keys = KeyWatcher(path, interval_seconds=0.02, on_change=fail)
    await keys.start()
    for count, text in ((2, TWO), (3, ONE)):
        put(path, text)
        while len(calls) < count:  # noqa: ASYNC110 - what is waited for happens in a callback that fails
            await asyncio.sleep(0.005)
    await keys.stop()
    assert "the keys watcher failed; it continues" in caplog.messages


async def test_stop_before_start_and_twice(path: Path) -> None:
    keys = KeyWatcher(path)
    await keys.stop()
    await keys.start()
    await keys.stop()
    await keys.stop()


def test_identity_changes_with_every_kind_of_write(path: Path) -> None:
    assert watcher.identify(path) is None
    put(path)
    first = watcher.identify(path)
    assert watcher.identify(path) == first
    put(path)  # another inode, the same bytes
    second = watcher.identify(path)
    assert second != first
    os.utime(path, (1, 1))
    assert watcher.identify(path) != second
