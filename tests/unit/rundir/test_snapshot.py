"""The snapshot: what `up` wrote is what the programs see, without pydantic."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import RunDir, Settings, locate, parse
from llama_gguf.settings.loading.load import load
from llama_gguf.settings.sections.base import Section

ROOT = Path(__file__).parents[3]
MODEL: dict[str, object] = {"model": {"path": "/m.gguf"}}
CONFIGS = [ROOT / "config/config.yaml", *sorted((ROOT / "config/examples").glob("*.yaml"))]


def snapshot_of(tree: dict[str, object]) -> Snapshot:
    settings = parse(tree)
    return Snapshot(settings=settings, locations=locate(settings, {"HOME": "/h"}))


def assert_same(plain: object, real: object, place: str = "settings") -> None:
    """Every field of a section, at any depth, has the value and the type that the model gives it."""
    if isinstance(real, Section):
        assert set(vars(plain)) == set(type(real).model_fields), place
        for name in type(real).model_fields:
            assert_same(getattr(plain, name), getattr(real, name), f"{place}.{name}")
    elif isinstance(real, dict) and any(isinstance(value, Section) for value in real.values()):
        assert isinstance(plain, dict), place
        assert list(plain) == list(real), place
        for name, value in real.items():
            assert_same(plain[name], value, f"{place}[{name}]")
    elif isinstance(real, tuple):
        assert isinstance(plain, tuple), place
        assert len(plain) == len(real), place
        for index, (left, right) in enumerate(zip(plain, real, strict=True)):
            assert_same(left, right, f"{place}[{index}]")
    else:
        assert (type(plain), plain) == (type(real), real), place


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_programs_see_what_up_has_loaded(config: Path, tmp_path: Path) -> None:
    several = "several" in config.stem
    sets = (
        ()
        if several
        else ('model.lora=[{"path": "/a.gguf", "scale": 0.5}]', "model.draft.path=/d.gguf", "health.platform=plain")
    )
    settings = load(config, {}, sets).settings
    written = Snapshot(settings=settings, locations=locate(settings, {"HOME": "/h"}))
    file = tmp_path / "settings.json"
    snapshots.write(written, file)
    read = snapshots.read(file)
    assert read.locations == written.locations
    assert isinstance(read.locations.run, RunDir)
    assert_same(read.settings, written.settings)
    assert snapshots.read_validated(file) == written


def test_a_section_has_nothing_but_fields() -> None:
    """What a section could do by itself, the programs' plain ones could not."""

    def sections(kind: type[Section]) -> set[type[Section]]:
        below = set(kind.__subclasses__())
        return below.union(*(sections(child) for child in below))

    found = sections(Section)
    assert Settings in found
    for kind in found:
        own = {name for name in vars(kind) if not name.startswith(("_", "model_"))}
        assert not own, f"{kind.__name__} has {own}; make it a function of its module"


def test_what_the_programs_see_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    snapshots.write(snapshot_of(MODEL), file)
    settings = snapshots.read(file).settings
    with pytest.raises(AttributeError, match="read-only"):
        settings.gateway.port = 1  # type: ignore[misc]
    with pytest.raises(AttributeError, match="read-only"):
        del settings.gateway
    with pytest.raises(AttributeError):
        _ = settings.gateway.prot  # type: ignore[attr-defined]
    assert settings.gateway.port == 8000


def test_it_is_private_and_appears_whole(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    snapshots.write(snapshot_of(MODEL), file)
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "unusable"),
        ("[]", "unusable"),
        (json.dumps({"settings": {}}), "unusable"),
        (json.dumps({"version": "0.0.0", "settings": {}, "locations": {}}), "version 0.0.0 wrote it"),
    ],
)
def test_one_that_is_broken_or_of_another_version(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    with pytest.raises(ConfigError, match="no snapshot"):
        snapshots.read(file)
    file.write_text(text)
    with pytest.raises(ConfigError, match=words):
        snapshots.read(file)


def test_it_does_not_read_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BaseSettings would fill absent fields from the environment even here; plain models do not."""
    file = tmp_path / "settings.json"
    snapshots.write(snapshot_of(MODEL), file)
    monkeypatch.setenv("LLAMA_GGUF__GATEWAY__PORT", "1")
    monkeypatch.setenv("GATEWAY", '{"port": 1}')
    assert snapshots.read(file).settings.gateway.port == 8000
    assert snapshots.read_validated(file).settings.gateway.port == 8000
