"""The compose file: services, mounts, hardening."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from llama_gguf.errors import ConfigError
from llama_gguf.platforms import ComposeOptions, RenderRequest, render_compose
from llama_gguf.settings import Settings
from llama_gguf.settings.loading.load import loads
from support.rendering import settings


def composed(chosen: Settings, options: ComposeOptions | None = None, request: RenderRequest | None = None) -> Any:
    bundle = render_compose(chosen, request or RenderRequest(), options or ComposeOptions())
    return yaml.safe_load(bundle.files["compose.yaml"])


@pytest.mark.parametrize(
    ("layers", "services"), [("auto", ["gpu", "cpu"]), (0, ["cpu"]), ("all", ["gpu"]), (9, ["gpu"])]
)
def test_services_are_those_that_can_run_it(layers: object, services: list[str]) -> None:
    compose = composed(settings(engine={"gpu_layers": layers}))
    assert list(compose["services"]) == services
    for name, service in compose["services"].items():
        assert service["profiles"] == [name]
        assert ("deploy" in service) == (name == "gpu")


def test_variant_narrows_to_one_service() -> None:
    compose = composed(settings(), request=RenderRequest(variant="cpu", image="mine:1"))
    assert {name: service["image"] for name, service in compose["services"].items()} == {"cpu": "mine:1"}


def test_service_is_hardened_and_has_time_to_stop() -> None:
    service = composed(settings(gateway={"drain_seconds": 60.0}, supervisor={"stop_seconds": 20.0}))["services"]["gpu"]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["stop_grace_period"] == "85s"
    assert [entry.split(":")[0] for entry in service["tmpfs"]] == ["/run", "/tmp"]
    assert "healthcheck" not in service  # the image's own holds


def test_the_config_beside_it_says_the_same() -> None:
    chosen = settings(gateway={"port": 9000}, auth={"bootstrap": {"env": "KEY"}})
    bundle = render_compose(chosen, RenderRequest(), ComposeOptions())
    assert loads(bundle.files["config.yaml"], Path("config.yaml"), {}).settings == chosen
    assert composed(chosen)["services"]["cpu"]["environment"] == {"KEY": "${KEY:?set it in .env or the shell}"}


def test_loopback_becomes_a_published_address() -> None:
    chosen = settings(gateway={"host": "127.0.0.1"}, health={"host": "::1"}, auth={"keys_file": "/data/k.json"})
    bundle = render_compose(chosen, RenderRequest(), ComposeOptions())
    inside = loads(bundle.files["config.yaml"], Path("config.yaml"), {}).settings
    assert (inside.gateway.host, inside.health.host) == ("0.0.0.0", "0.0.0.0")
    assert composed(chosen)["services"]["cpu"]["ports"] == ["127.0.0.1:8000:8000"]


def test_without_keys_it_is_published_on_loopback_unless_told_otherwise() -> None:
    chosen = settings(auth={"enabled": False})
    assert composed(chosen)["services"]["cpu"]["ports"] == ["127.0.0.1:8000:8000"]
    assert composed(chosen, ComposeOptions(bind_address="10.0.0.1"))["services"]["cpu"]["ports"] == [
        "10.0.0.1:8000:8000"
    ]


def test_folders_of_the_host_are_mounted_read_only_once() -> None:
    model = {
        "path": "/srv/m/a-00001-of-00002.gguf",
        "draft": {"path": "/srv/m/b.gguf"},
        "chat_template": "/data/t.jinja",
    }
    volumes = composed(settings(model=model))["services"]["gpu"]["volumes"]
    binds = [volume for volume in volumes if volume["type"] == "bind"]
    assert [bind["source"] for bind in binds] == ["/srv/m", "./config.yaml"]
    assert all(bind["read_only"] for bind in binds)


def test_a_dollar_sign_is_no_variable() -> None:
    compose = composed(settings(model={"path": "/srv/$m/a.gguf"}))
    assert "/srv/$$m" in [volume["source"] for volume in compose["services"]["gpu"]["volumes"]]


def test_another_config_file_can_be_mounted() -> None:
    bundle = render_compose(settings(), RenderRequest(), ComposeOptions(config_file="../config/config.yaml"))
    assert set(bundle.files) == {"compose.yaml"}
    assert "source: ../config/config.yaml" in bundle.files["compose.yaml"]


@pytest.mark.parametrize("path", ["/a.gguf", "models/a.gguf"])
def test_a_folder_that_cannot_be_mounted_is_an_error(path: str) -> None:
    with pytest.raises(ConfigError) as caught:
        render_compose(settings(model={"path": path}), RenderRequest(), ComposeOptions())
    assert "path-not-mountable" in {problem.code for problem in caught.value.problems}
