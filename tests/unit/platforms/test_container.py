"""The rules that hold on every platform."""

from __future__ import annotations

import pytest

from llama_gguf.platforms.bundle import Findings
from llama_gguf.platforms.container import (
    FIRST_KEY_VARIABLE,
    Launch,
    RenderRequest,
    default_variant,
    is_below,
    prepare,
    read_paths,
    requests_at_once,
    secret_variables,
    warn_of_room,
    written_paths,
)
from llama_gguf.settings import Settings, parse
from support.rendering import HF, settings


def launched(chosen: Settings, request: RenderRequest | None = None, **patch: object) -> tuple[Launch, set[str]]:
    findings = Findings("Test")
    launch = prepare(chosen, request or RenderRequest(), findings, patch)
    return launch, {problem.code for problem in findings.problems}


def test_variant_follows_the_layers() -> None:
    assert default_variant(settings(engine={"gpu_layers": 0})) == "cpu"
    assert default_variant(settings()) == "cuda"
    launch, _ = launched(settings(engine={"gpu_layers": 0}))
    assert (launch.image, launch.gpu) == ("llama-gguf-inference:cpu", False)


def several(common: dict[str, object] | None = None, **models: dict[str, object]) -> Settings:
    return parse({"models": {name: {**HF, **model} for name, model in models.items()}, "engine": common or {}})


def test_a_cpu_is_enough_only_if_it_is_for_every_model() -> None:
    assert default_variant(several({"gpu_layers": 0}, a={}, b={})) == "cpu"
    assert default_variant(several({"gpu_layers": 0}, a={}, b={"engine": {"gpu_layers": "auto"}})) == "cuda"
    assert default_variant(several(a={"engine": {"gpu_layers": 0}}, b={})) == "cuda"


def test_cpu_image_names_each_model_that_must_have_a_gpu() -> None:
    chosen = several({"gpu_layers": "all"}, a={}, b={"engine": {"gpu_layers": 3}}, c={"engine": {"gpu_layers": 0}})
    findings = Findings("Test")
    prepare(chosen, RenderRequest(variant="cpu"), findings, {})
    found = [(one.path, one.hint) for one in findings.problems if one.code == "variant-without-gpu"]
    assert [path for path, _ in found] == ["engine.gpu_layers", "models.b.engine.gpu_layers"]
    assert "models.b.engine.gpu_layers: auto" in found[1][1]


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        (settings(engine={"slots": 3}), 3),
        (settings(engine={"slots": 3}, limits={"max_in_flight": 2}), 2),
        (several({"slots": 3}, a={}, b={"engine": {"slots": 1}}), 4),
        (several({"slots": 3}, a={}, b={"load": "on_demand", "engine": {"slots": 9}}, c={"load": "on_demand"}), 12),
        (several(a={"load": "on_demand", "engine": {"slots": 2}}), 2),
    ],
)
def test_models_that_take_turns_work_on_no_more_than_the_largest_of_them(chosen: Settings, expected: int) -> None:
    assert requests_at_once(chosen) == expected


@pytest.mark.parametrize(
    ("chosen", "size", "warned"),
    [
        (several(a={}, b={}), 40, True),
        (several(a={}, b={}), 100, False),
        (several(a={}), 40, False),
        (settings(), 40, False),
        (parse({"models": {"a": HF, "b": {"path": "/b.gguf"}}}), 40, False),
    ],
)
def test_a_disk_of_the_size_for_one_model_is_told_of(chosen: Settings, size: int, warned: bool) -> None:
    findings = Findings("Test")
    warn_of_room(chosen, "--disk", size, 40, findings)
    assert [problem.code for problem in findings.problems] == ["disk-for-several"] * warned


def test_cpu_image_refuses_layers_on_a_gpu() -> None:
    assert "variant-without-gpu" in launched(settings(engine={"gpu_layers": "all"}), RenderRequest(variant="cpu"))[1]
    assert "variant-without-gpu" not in launched(settings(), RenderRequest(variant="cpu"))[1]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1.2.3", "::1"])
def test_loopback_cannot_be_reached(host: str) -> None:
    assert "loopback-host" in launched(settings(health={"host": host}))[1]


def test_first_key_comes_from_a_variable_where_nothing_gives_one() -> None:
    launch, codes = launched(settings())
    assert launch.settings.auth.bootstrap.env == FIRST_KEY_VARIABLE
    assert launch.secrets == (FIRST_KEY_VARIABLE,)
    assert codes == {"first-key-variable"}


@pytest.mark.parametrize(
    "auth",
    [
        {"enabled": False},
        {"keys_file": "/data/keys.json"},
        {"bootstrap": {"generate": True}},
        {"bootstrap": {"file": "/run/secrets/x"}},
    ],
)
def test_no_variable_where_keys_come_from_elsewhere(auth: dict[str, object]) -> None:
    launch, codes = launched(settings(auth=auth))
    assert launch.secrets == ()
    assert codes == set()


def test_every_secret_variable_is_found_once() -> None:
    chosen = settings(
        model={
            **HF,
            "token_env": "HF_TOKEN",
            "draft": {**HF, "token_env": "HF_TOKEN"},
            "lora": [{"path": "/a"}, {"url": "https://x/y", "token_env": "LORA_TOKEN"}],
        },
        limits={"store": "redis://x", "store_password_env": "STORE_PASSWORD"},
        auth={"bootstrap": {"env": "KEY"}},
    )
    found = secret_variables(chosen, ["EXTRA", "KEY"])
    assert found == ("KEY", "HF_TOKEN", "LORA_TOKEN", "STORE_PASSWORD", "EXTRA")


def test_config_in_image_passes_only_the_adaptation() -> None:
    launch, _ = launched(
        settings(logging={"format": "json"}), RenderRequest(config_in_image=True), **{"paths.data_dir": "/d"}
    )
    assert launch.variables() == {
        "LLAMA_GGUF__PATHS__DATA_DIR": "/d",
        "LLAMA_GGUF__AUTH__BOOTSTRAP__ENV": FIRST_KEY_VARIABLE,
    }


def test_stop_time_covers_drain_and_stop() -> None:
    launch, _ = launched(settings(gateway={"drain_seconds": 12.5}, supervisor={"stop_seconds": 20.0}))
    assert launch.stop_seconds == 38


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a" * 54, "a."])
def test_bad_names_are_refused(name: str) -> None:
    assert "bad-name" in launched(settings(), RenderRequest(name=name))[1]


def test_paths_are_named_as_in_the_configuration() -> None:
    chosen = settings(
        model={"path": "/m", "mmproj": {"path": "/p"}, "lora": [{"path": "/l"}], "chat_template": "/t"},
        paths={"data_dir": "/d", "logs_dir": "/logs"},
        limits={"usage_file": "/u"},
    )
    assert read_paths(chosen) == {
        "model.path": "/m", "model.mmproj.path": "/p", "model.lora[0].path": "/l", "model.chat_template": "/t",
    }  # fmt: skip
    assert written_paths(chosen) == {"paths.data_dir": "/d", "paths.logs_dir": "/logs", "limits.usage_file": "/u"}


def test_tokens_and_paths_of_every_model_are_found() -> None:
    chosen = parse(
        {
            "models": {
                "a": {"path": "/a.gguf", "draft": {**HF, "token_env": "DRAFT_TOKEN"}},
                "b": {**HF, "token_env": "B_TOKEN", "lora": [{"path": "/l.gguf"}], "chat_template": "/t.jinja"},
            }
        }
    )
    assert secret_variables(chosen) == ("DRAFT_TOKEN", "B_TOKEN")
    assert read_paths(chosen) == {
        "models.a.path": "/a.gguf",
        "models.b.lora[0].path": "/l.gguf",
        "models.b.chat_template": "/t.jinja",
    }


def test_below_is_by_path_not_by_text() -> None:
    assert is_below("/data/x", ["/data"])
    assert is_below("/data", ["/data"])
    assert not is_below("/database", ["/data"])
    assert not is_below("/x", [])
