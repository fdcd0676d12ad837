"""The first key of an appliance without a shell."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from llama_gguf.audit import AuditLog, entries
from llama_gguf.errors import KeysError
from llama_gguf.keys.admin import KeyAdmin
from llama_gguf.keys.bootstrap import BootstrapResult, bootstrap
from llama_gguf.keys.record import KeyRecord
from llama_gguf.keys.store import KeyStore, load
from llama_gguf.settings.locations import Locations, RunDir
from llama_gguf.settings.sections.auth import Auth
from support.keys_made import ALICE, BOB, sha


class Site:
    """A data directory to start in, again and again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keys_file = root / "keys.json"
        self.locations = Locations(
            data_dir=root,
            data_dir_reason="",
            models_dir=root,
            logs_dir=root,
            keys_file=self.keys_file,
            audit_file=root / "audit.jsonl",
            usage_file=root / "usage",
            run=RunDir(root=root),
            run_dir_reason="",
        )

    def start(self, variables: dict[str, str] | None = None, *, enabled: bool = True, **given: Any) -> BootstrapResult:
        auth = Auth.model_validate_json(json.dumps({"enabled": enabled, "bootstrap": given}))
        return bootstrap(auth, self.locations, variables or {})

    def record(self, key_id: str = "bootstrap") -> KeyRecord:
        found = load(self.keys_file).keys.find(key_id)
        assert found is not None
        return found

    def admin(self) -> KeyAdmin:
        return KeyAdmin(KeyStore(self.keys_file), AuditLog(self.locations.audit_file), actor="test")


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_nothing_asked_nothing_done(site: Site) -> None:
    assert site.start() == BootstrapResult("off")
    assert site.start({"FIRST": ALICE}, enabled=False, env="FIRST") == BootstrapResult("off")
    assert not site.keys_file.exists()


def test_a_key_from_a_variable(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    result = site.start({"FIRST": f" {ALICE}\n"}, env="FIRST", scopes=["inference", "admin"])
    assert result == BootstrapResult("added", "bootstrap", "environment variable FIRST")
    assert site.record().digest == sha(ALICE)
    assert site.record().scopes == {"inference", "admin"}
    assert site.keys_file.stat().st_mode & 0o777 == 0o600
    before = site.keys_file.read_bytes()
    assert site.start({"FIRST": ALICE}, env="FIRST").outcome == "present"
    assert site.keys_file.read_bytes() == before
    assert [(entry.action, entry.target) for entry in entries(site.locations.audit_file)] == [
        ("keys.generate", "bootstrap")
    ]
    assert ALICE not in caplog.text + repr(result) + site.locations.audit_file.read_text()


def test_a_key_from_a_mounted_file(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(ALICE + "\n")
    assert site.start(file=str(secret)).source == f"file {secret}"
    assert site.record().digest == sha(ALICE)


def test_the_variable_comes_before_the_file_and_an_empty_one_does_not_count(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(BOB)
    assert site.start({"FIRST": ""}, env="FIRST", file=str(secret)).source == f"file {secret}"
    assert site.start({"FIRST": ALICE}, env="FIRST", file=str(secret)).outcome == "replaced"
    assert site.record().digest == sha(ALICE)


def test_a_new_value_replaces_the_old_key_at_once(site: Site) -> None:
    site.start({"FIRST": ALICE}, env="FIRST")
    site.admin().update("bootstrap", requests_per_minute=9)
    assert site.start({"FIRST": BOB}, env="FIRST").outcome == "replaced"
    assert list(site.record().digests()) == [sha(BOB)]
    assert site.record().requests_per_minute == 9


def test_a_key_that_was_rotated_away_does_not_come_back(site: Site) -> None:
    site.start({"FIRST": ALICE}, env="FIRST")
    site.admin().rotate("bootstrap")
    assert site.start({"FIRST": ALICE}, env="FIRST").outcome == "stale"
    assert sha(ALICE) not in site.record().digests()


def test_a_key_that_has_another_id_already_is_left(site: Site) -> None:
    site.admin().generate("alice", secret=ALICE)
    result = site.start({"FIRST": ALICE}, env="FIRST")
    assert (result.outcome, result.key_id) == ("present", "alice")


def test_a_key_is_made_once_and_handed_over_once(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    first = site.start(generate=True)
    assert first.outcome == "generated"
    assert sha(first.secret) == site.record().digest
    assert first.secret not in repr(first) + caplog.text + site.locations.audit_file.read_text()
    again = site.start(generate=True)
    assert (again.outcome, again.secret) == ("present", "")


def test_no_key_is_made_where_there_is_one(site: Site) -> None:
    site.admin().generate("alice")
    assert site.start(generate=True).outcome == "present"
    assert len(load(site.keys_file).keys.records) == 1


def test_what_is_named_but_absent(site: Site, tmp_path: Path) -> None:
    absent = str(tmp_path / "absent")
    with pytest.raises(KeysError) as caught:
        site.start(env="FIRST", file=absent)
    assert caught.value.message == (
        f"there is no key yet, and the source of the first one is missing: environment variable FIRST or file {absent}"
    )
    assert site.start(env="FIRST", file=absent, generate=True).outcome == "generated"
    assert site.start(env="FIRST", file=absent).outcome == "present"  # it has served, and may go


@pytest.mark.parametrize("bad", ["short", "with space with space", "x" * 200])
def test_an_unusable_key_is_refused_and_not_quoted(site: Site, bad: str) -> None:
    with pytest.raises(KeysError) as caught:
        site.start({"FIRST": bad}, env="FIRST")
    assert caught.value.message.startswith("environment variable FIRST: a key must be 16 to 128 characters")
    assert bad not in caught.value.message


def test_a_file_that_cannot_be_read(site: Site, tmp_path: Path) -> None:
    with pytest.raises(KeysError, match=r"cannot read auth\.bootstrap\.file .*: Is a directory"):
        site.start(file=str(tmp_path))


def test_an_old_plaintext_file_is_left_as_it_is(site: Site) -> None:
    site.keys_file.write_text(f"alice:{ALICE}\n")
    site.keys_file.chmod(0o600)
    assert site.start(generate=True).outcome == "present"
    assert site.start({"FIRST": ALICE}, env="FIRST").key_id == "alice"
    with pytest.raises(KeysError, match="old format"):
        site.start({"FIRST": BOB}, env="FIRST")


def test_a_broken_keys_file_stops_the_start(site: Site) -> None:
    site.keys_file.write_text("{")
    with pytest.raises(KeysError, match="not JSON"):
        site.start(generate=True)


@pytest.mark.parametrize("around", ['"{}"', "'{}'", " {}\r\n", '"{}"\r'])
def test_what_an_env_file_leaves_around_a_key_is_no_part_of_it(site: Site, around: str) -> None:
    site.start({"FIRST": around.format(ALICE)}, env="FIRST")
    assert sha(ALICE) in site.record().digests()
    given = site.root / "first"
    given.write_bytes(b"\xef\xbb\xbf" + around.format(BOB).encode())
    site.start({}, file=str(given))
    assert sha(BOB) in site.record().digests()
