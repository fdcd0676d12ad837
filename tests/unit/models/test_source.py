"""Settings.model -> what is wanted, and the names clients see."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.models.source import (
    AtUrl,
    Named,
    OnDisk,
    OnHub,
    plan_sources,
    served_names,
    split_names,
)
from llama_gguf.settings.platform import RUNPOD_MODEL_CACHE
from llama_gguf.settings.sections.model import Model
from support.model_box import locations_for, settings_for


def model(value: dict[str, object]) -> Model:
    return settings_for(Path("/x"), value).model


def test_each_kind_of_source(tmp_path: Path) -> None:
    locations = locations_for(tmp_path)
    wanted = model(
        {
            "path": "/m/a.gguf",
            "mmproj": {"name": "sub/p.gguf", "sha256": "0" * 64},
            "draft": {"url": "https://user:pw@h.org:8443/d%20x.gguf?sig=1#f"},
            "lora": [{"hf": {"repo": "o/n", "file": "l.gguf"}, "token_env": "T", "scale": 0.5}],
            "chat_template": "/t.jinja",
        }
    )
    sources = plan_sources(wanted, locations, {})
    assert sources.model.origin == OnDisk(Path("/m/a.gguf"))
    assert sources.mmproj
    assert sources.mmproj.origin == Named(locations.models_dir, "sub/p.gguf")
    assert (sources.mmproj.setting, sources.mmproj.sha256) == ("model.mmproj", "0" * 64)
    assert sources.draft
    assert isinstance(sources.draft.origin, AtUrl)
    assert sources.draft.origin.path.name == "d_x.gguf"
    assert sources.draft.origin.path.parent.parent == locations.models_dir / "url"
    (adapter,) = sources.lora
    assert adapter.origin == OnHub(
        "o/n", "l.gguf", "main", (locations.models_dir / "huggingface", Path(RUNPOD_MODEL_CACHE))
    )
    assert (adapter.setting, adapter.token_env) == ("model.lora[0]", "T")
    assert sources.chat_template == Path("/t.jinja")
    assert [w.description for w in (sources.model, sources.mmproj, sources.draft, adapter)] == [
        "/m/a.gguf",
        f"sub/p.gguf in {locations.models_dir}",
        "https://h.org:8443/d%20x.gguf",
        "o/n/l.gguf@main",
    ]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "model: needs exactly one of path, name, hf and url; none given"),
        ({"path": "a", "name": "b"}, "path and name given"),
        ({"path": "a", "draft": {}}, "model.draft: needs exactly one"),
        ({"url": "ftp://h/x"}, "model.url: ftp://h/x is not an http:// or https:// URL"),
        ({"url": "https:///x"}, "is not an http:// or https:// URL"),
        ({"name": "../x"}, "model.name: '../x' must name a file below its directory"),
        ({"name": "/etc/passwd"}, "must name a file below"),
        ({"hf": {"repo": "o/n", "file": "a/../../x"}}, "model.hf.file"),
    ],
)
def test_sources_that_make_no_sense(tmp_path: Path, value: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        plan_sources(model(value), locations_for(tmp_path), {})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ({"path": "/m/My Model.Q4_K_M.gguf"}, ("My Model.Q4_K_M",)),
        ({"name": "sub/x"}, ("x",)),
        ({"hf": {"repo": "o/n", "file": "q/Big-00001-of-00009.gguf"}}, ("Big",)),
        ({"url": "https://h/a%2Cb.gguf?x=y.gguf"}, ("a_b",)),
        ({"url": "https://h/"}, ("model",)),
        ({"path": "/m/a.gguf", "aliases": ["z", "b"]}, ("z", "b")),
    ],
)
def test_names(value: dict[str, object], names: tuple[str, ...]) -> None:
    assert served_names(model(value)) == names


def test_split_names() -> None:
    assert split_names("a.gguf") == ("a.gguf",)
    assert split_names("q/a-00002-of-00003.gguf") == tuple(f"q/a-0000{n}-of-00003.gguf" for n in (1, 2, 3))
