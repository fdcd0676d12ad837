"""Headers of models on the hub and at URLs, whole and in parts, with what they need: tokens, redirects, proxies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import gguf
import numpy as np
import pytest

from llama_gguf.errors import ConfigError, ModelError
from llama_gguf.models.gguf.header import read_header
from llama_gguf.models.remote.header_cache import HeaderCache
from llama_gguf.models.remote.header_prefix import PrefixLimits, RemoteHeader
from llama_gguf.models.remote.headers import read_remote
from llama_gguf.models.source import plan_sources, split_names
from support.file_server import COMMIT, FileServer, Remote, file_server
from support.model_box import locations_for, settings_for
from support.proxy_servers import ProxyServer, http_proxy, names_of, socks_proxy

REPO, FILE = "acme/tiny-GGUF", "tiny-Q4_K_M.gguf"
LIMITS = PrefixLimits(
    steps=(1000, 20_000), later_steps=(300, 4000), stall_seconds=5, total_seconds=20, retry_seconds=0.01
)


@pytest.fixture
def hub(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    with file_server() as server:
        server.hub[REPO] = {FILE: Remote(tiny_model.read_bytes())}
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield server


def read(root: Path, model: dict[str, object], env: dict[str, str] | None = None) -> tuple[RemoteHeader, ...]:
    sources = plan_sources(settings_for(root, model).model, locations_for(root), env or {})
    return read_remote(sources.model, env or {}, HeaderCache(root / "cache"), LIMITS)


def on_hub(file: str = FILE, revision: str = "main") -> dict[str, object]:
    return {"hf": {"repo": REPO, "file": file, "revision": revision}}


def write_split(directory: Path, parts: int) -> list[Path]:
    """Write a model in parts, as llama.cpp's gguf-split does."""
    names = split_names(f"m-00001-of-{parts:05}.gguf")
    for number, name in enumerate(names):
        writer = gguf.GGUFWriter(str(directory / name), "llama")
        if number == 0:
            writer.add_block_count(2)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", parts)
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.zeros((64, 64), np.float32))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return [directory / name for name in names]


def test_from_the_hub(hub: FileServer, tmp_path: Path, tiny_model: Path) -> None:
    (found,) = read(tmp_path, on_hub())
    model = read_header(tiny_model)
    assert found.header.tensors == model.tensors
    assert found.file_bytes == model.file_bytes
    assert not list((tmp_path / "models").iterdir())  # nothing is downloaded
    assert all("authorization" not in headers for _, _, headers in hub.requests)


def test_with_the_hubs_token_which_no_other_host_gets(hub: FileServer, tmp_path: Path) -> None:
    hub.hub_token = "hf_secret"
    read(tmp_path, on_hub(), {"HF_TOKEN": "hf_secret"})
    assert all("authorization" not in headers for headers in hub.asked("GET", f"/cdn/{REPO}/{FILE}"))
    named = on_hub() | {"token_env": "MY_TOKEN"}
    read(tmp_path, named, {"MY_TOKEN": "hf_secret"})
    with pytest.raises(ConfigError, match=r"model\.token_env: the variable MY_TOKEN is not set"):
        read(tmp_path, named)
    with pytest.raises(ModelError, match="gated") as caught:
        read(tmp_path, on_hub(), {"HF_TOKEN": "hf_wrong"})
    assert "hf_wrong" not in caught.value.message + caught.value.hint


def test_what_the_hub_does_not_have(hub: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read(tmp_path, on_hub("tiny-Q4_K_S.gguf"))
    assert caught.value.code == "model_not_found"
    assert caught.value.hint == f"did you mean {FILE}?"


def test_a_commit_is_read_once(hub: FileServer, tmp_path: Path) -> None:
    first = read(tmp_path, on_hub(revision=COMMIT))
    hub.requests.clear()
    assert [item.header.tensors for item in read(tmp_path, on_hub(revision=COMMIT))] == [first[0].header.tensors]
    assert hub.requests == []
    assert read(tmp_path, on_hub(revision=COMMIT), {"HF_HUB_OFFLINE": "1"})


def test_offline(hub: FileServer, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set"):
        read(tmp_path, on_hub(), {"HF_HUB_OFFLINE": "1"})
    assert hub.requests == []


def test_all_parts_of_a_split_model(hub: FileServer, tmp_path: Path) -> None:
    parts = write_split(tmp_path, 11)
    hub.hub[REPO] |= {part.name: Remote(part.read_bytes()) for part in parts}
    found = read(tmp_path, on_hub(parts[0].name))
    assert [item.header.tensors[0].name for item in found] == [f"blk.{n}.ffn_up.weight" for n in range(11)]
    assert [item.file_bytes for item in found] == [part.stat().st_size for part in parts]
    del hub.hub[REPO][parts[7].name]
    hub.files.clear()
    with pytest.raises(ModelError, match=parts[7].name) as caught:
        read(tmp_path, on_hub(parts[0].name))
    assert caught.value.code == "model_not_found"


def test_a_part_that_is_not_the_first(hub: FileServer, tmp_path: Path) -> None:
    parts = write_split(tmp_path, 3)
    hub.hub[REPO] |= {"renamed.gguf": Remote(parts[0].read_bytes()), parts[1].name: Remote(parts[1].read_bytes())}
    with pytest.raises(ModelError, match="is part of 3, but not named so"):
        read(tmp_path, on_hub("renamed.gguf"))
    hub.hub[REPO]["second.gguf"] = Remote(parts[1].read_bytes())
    with pytest.raises(ModelError) as caught:
        read(tmp_path, on_hub("second.gguf"))
    assert "-00001-of-00003.gguf" in caught.value.hint


def test_at_a_url(hub: FileServer, tmp_path: Path) -> None:
    """The signature in the query is sent, and shown nowhere."""
    parts = write_split(tmp_path, 2)
    for part in parts:
        hub.files[f"/m/{part.name}"] = Remote(part.read_bytes(), token="t0ken")
    address = hub.url(f"/m/{parts[0].name}?signature=5ecret")
    found = read(tmp_path, {"url": address, "token_env": "MY_TOKEN"}, {"MY_TOKEN": "t0ken"})
    assert len(found) == 2
    hub.files.clear()
    with pytest.raises(ModelError) as caught:
        read(tmp_path, {"url": address})
    assert "5ecret" not in caught.value.message + caught.value.hint
    assert not [path for path in (tmp_path / "cache").iterdir() if "5ecret" in path.name]


def test_no_name_makes_it_ask_for_many_files(hub: FileServer, tmp_path: Path) -> None:
    at_url: dict[str, object] = {"url": hub.url("/a@b/m-00001-of-99999.gguf?x=@1")}
    for model in (on_hub("m-00001-of-99999.gguf"), at_url):
        with pytest.raises(ModelError, match="99999 parts; at most 1000 are read"):
            read(tmp_path, model)
    assert hub.requests == []


def test_a_part_whose_header_is_as_large_as_a_first_one(hub: FileServer, tmp_path: Path, tiny_model: Path) -> None:
    parts = write_split(tmp_path, 2)
    hub.hub[REPO] |= {parts[0].name: Remote(parts[0].read_bytes()), parts[1].name: Remote(tiny_model.read_bytes())}
    with pytest.raises(ModelError, match="its header is larger than"):
        read(tmp_path, on_hub(parts[0].name))


@pytest.mark.parametrize("opened", [http_proxy, socks_proxy])
def test_through_a_proxy(
    plain_site: FileServer,
    tmp_path: Path,
    tiny_model: Path,
    opened: Callable[[dict[str, int]], AbstractContextManager[ProxyServer]],
) -> None:
    plain_site.files["/m.gguf"] = Remote(tiny_model.read_bytes())
    scheme = "http" if opened is http_proxy else "socks5h"
    with opened(names_of(plain_site.port)) as proxy:
        variables = {"http_proxy": f"{scheme}://localhost:{proxy.port}"}
        (found,) = read(tmp_path, {"url": "http://models.test/m.gguf"}, variables)
        assert proxy.seen
    assert found.header.tensors == read_header(tiny_model).tensors
    with pytest.raises(ModelError, match="the proxy"):
        read(tmp_path, {"url": "http://models.test/other.gguf"}, variables)


def test_a_hub_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(ModelError, match="the Hub cannot be reached") as caught:
        read(tmp_path, on_hub())
    assert not caught.value.permanent
