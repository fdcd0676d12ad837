"""Several models in one configuration: each as settings in which it is the only one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llama_gguf import __version__
from llama_gguf.errors import ConfigError
from llama_gguf.rundir import snapshot as snapshots
from llama_gguf.rundir.snapshot import Snapshot
from llama_gguf.settings import locate, parse
from llama_gguf.settings.one_model import each_model

TREE: dict[str, Any] = {
    "paths": {"run_dir": "/run/x"},
    "engine": {"slots": 2, "sleep_idle_seconds": 60},
    "models": {
        "chat": {"name": "a.gguf", "aliases": ["gpt-4o"], "engine": {"context_per_slot": 1024}},
        "embed": {
            "name": "b.gguf",
            "load": "on_demand",
            "unload_after_seconds": 5,
            "engine": {"task": "embed", "slots": 1},
            "variants": {"short": {"defaults": {"dimensions": {"x": [1]}}, "strip": ["user"]}},
        },
    },
}


def test_each_model_is_the_only_one_in_its_settings() -> None:
    chat, embed = each_model(parse(TREE))
    assert (chat.program, embed.program) == ("engine-chat", "engine-embed")
    assert chat.settings.model.aliases == ("chat", "gpt-4o")
    assert embed.settings.model.aliases == ("embed",)
    assert (chat.settings.engine.slots, chat.settings.engine.context_per_slot) == (2, 1024)
    assert (embed.settings.engine.slots, embed.settings.engine.context_per_slot) == (1, 4096)
    assert (chat.on_demand, chat.required, chat.unload_after_seconds) == (False, True, 60)
    assert (embed.on_demand, embed.required, embed.unload_after_seconds) == (True, False, 5)
    assert each_model(chat.settings)[0].settings is chat.settings


def test_a_configuration_of_one_model_is_what_it_was() -> None:
    settings = parse({"model": {"name": "a.gguf"}})
    (one,) = each_model(settings)
    assert one.settings is settings
    assert (one.key, one.program, one.place, one.required, one.on_demand) == ("", "engine", "model", True, False)
    assert one.place_of("engine.slots") == "engine.slots"


def test_places_are_those_of_the_file() -> None:
    chat, embed = each_model(parse(TREE))
    assert chat.place_of("model.mmproj.url") == "models.chat.mmproj.url"
    assert chat.place_of("model") == "models.chat"
    assert chat.place_of("engine.context_per_slot") == "models.chat.engine.context_per_slot"
    assert chat.place_of("engine.context_per_slot[0]") == "models.chat.engine.context_per_slot[0]"
    assert chat.place_of("engine.slots") == "engine.slots"  # set for all
    assert embed.place_of("engine.slots") == "models.embed.engine.slots"
    assert embed.place_of("limits.queue") == "limits.queue"


@pytest.mark.parametrize("read", [snapshots.read, snapshots.read_validated])
def test_messages_name_the_places_of_the_file(tmp_path: Path, read: Any) -> None:
    settings = parse(TREE)
    snapshots.write(Snapshot(settings, locate(settings, {})), tmp_path / "settings.json")
    chat, _ = read(tmp_path / "settings.json").models
    placed = {
        "model.path: /x/model.gguf does not exist": "models.chat.path: /x/model.gguf does not exist",
        'model.url: "model.safetensors" is not GGUF': 'models.chat.url: "model.safetensors" is not GGUF',
        'model.name: "model.name" is odd': 'models.chat.name: "model.name" is odd',
        "model.lora[1].path: no": "models.chat.lora[1].path: no",
        "model: no source is set": "models.chat: no source is set",
        "fits the model: fine": "fits the model: fine",
        "engine.slots and engine.context_per_slot": "engine.slots and models.chat.engine.context_per_slot",
        "engine.log has it": "engine.log has it",
        "submodel.path": "submodel.path",
    }
    assert {text: chat.placed(text) for text in placed} == placed
    advice = "set engine.slots to 2, model.aliases, or engine.log; see limits.queue"
    own = "set models.chat.engine.slots to 2, models.chat.aliases, or engine.log; see limits.queue"
    assert chat.advice(advice, "models.chat.path: wrong") == own
    assert chat.advice(advice, "engine.slots: wrong") == own.replace("models.chat.engine", "engine")
    (alone,) = each_model(parse({"model": {"name": "a.gguf"}}))
    assert alone.advice(advice, "model: wrong") == advice
    assert [alone.placed(text) for text in placed] == list(placed)


@pytest.mark.parametrize("read", [snapshots.read, snapshots.read_validated])
def test_a_snapshot_has_every_model_with_files_of_its_own(tmp_path: Path, read: Any) -> None:
    settings = parse(TREE)
    file = tmp_path / "settings.json"
    snapshots.write(Snapshot(settings, locate(settings, {})), file)
    found = read(file)
    assert [one.program for one in found.models] == ["engine-chat", "engine-embed"]
    embed = found.of_engine("engine-embed")
    run = embed.locations.run
    assert embed.settings.engine.task == "embed"
    assert embed.settings.model.variants["short"].defaults == {"dimensions": {"x": [1]}}
    assert embed.settings.model.variants["short"].strip == ("user",)
    assert (run.engine_socket.name, run.engine_key.name) == ("engine-embed.sock", "engine-embed.key")
    assert run.failure == found.locations.run.failure  # the appliance's
    with pytest.raises(ConfigError, match="engine-other"):
        found.of_engine("engine-other")
    assert __version__


def test_no_two_engines_share_a_file() -> None:
    """Names that resemble the suffixes of other files are no way into them."""
    names = ["a", "a-variant", "variant-a", "failure-a", "a-b"]
    settings = parse({"models": {name: {"name": "a.gguf"} for name in names}})
    run = locate(settings, {}).run
    files = ("engine_socket", "engine_key", "engine_phase", "engine_variant")
    paths = [getattr(run.of_engine(one.program), file) for one in each_model(settings) for file in files]
    assert len(set(paths)) == len(paths)
    assert run.failure not in paths
