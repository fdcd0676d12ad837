"""A record and a file of records: what can be asked of them."""

from __future__ import annotations

from llama_gguf.keys.record import KeyFile, PreviousSecret
from support.keys_made import ALICE, NOW, record, sha


def test_digests_and_find() -> None:
    old = PreviousSecret("0" * 64, NOW)
    keys = KeyFile((record(previous=(old,)),))
    assert list(keys.records[0].digests()) == [sha(ALICE), "0" * 64]
    assert keys.find("alice") is keys.records[0]
    assert keys.find("bob") is None
