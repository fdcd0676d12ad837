"""The table of request fields knows every field that the pinned llama-server reads of a body."""

from __future__ import annotations

import os
import re
import tarfile
from pathlib import Path

from image.engine import build, compiler

from llama_gguf.gateway.request.fields import TABLES

FILES = ("server-schema.cpp", "server-common.cpp", "server-chat.cpp", "server-context.cpp", "server-task.cpp")
_SCHEMA = re.compile(r'new field_\w+\("([^"]+)"|add_alias\("([^"]+)"')
_READ = re.compile(
    r"(?:json_value\(\s*(?:body|data|inp_body|response_body|request)\s*,\s*|"
    r'(?:body|data|inp_body|response_body|request)\.(?:contains|at|count|value|erase)\()"([^"]+)"'
)
# Not of a client's body on a route that clients have.
ELSEWHERE = {
    "id": "of /lora-adapters and the control of a response",
    "action": "of the control of a response, which is closed",
    "filename": "of a part, or of slots, for admins",
    "file": "of an upload, which gateway.api.multipart reads",
    "file_data": "of the engine's own state",
    "language": "of an upload",
    "timestamp_granularities": "of an upload",
    "include_usage": "within stream_options",
}


def source(tmp_path: Path) -> dict[str, str]:
    """Return the texts of the server's files, out of the source that the engine was built from."""
    folder = build.default_cache(os.environ).parent / "sources"
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(compiler.fetch_source(folder, os.environ, tmp_path / "download.log")) as packed:
        found = {}
        for member in packed:
            path = Path(member.name)
            if path.name in FILES and path.parent.name == "server":
                file = packed.extractfile(member)
                assert file is not None
                found[path.name] = file.read().decode()
    return found


def names_in(texts: dict[str, str]) -> set[str]:
    texts = {name: re.sub(r"//[^\n]*", "", text) for name, text in texts.items()}
    schema = {name for found in _SCHEMA.findall(texts["server-schema.cpp"]) for name in found if name}
    return schema | {name for text in texts.values() for name in _READ.findall(text)}


def test_every_field_of_the_engine_is_in_the_table(tmp_path: Path) -> None:
    texts = source(tmp_path)
    assert set(texts) == set(FILES)
    names = names_in(texts)
    assert len(names) > 80
    known = {name for table in TABLES.values() for name in table} | ELSEWHERE.keys()
    assert not names - known, f"llama-server reads these of a body: decide what each is: {sorted(names - known)}"


def test_a_new_field_is_seen() -> None:
    planted = {"server-schema.cpp": 'add((new field_num("brand_new", x))->add_alias("also_new"));'}
    assert names_in(planted) == {"brand_new", "also_new"}
    assert names_in({"server-schema.cpp": "", "a": 'json_value(body, "other", 1); data.contains("more")'}) == {
        "other",
        "more",
    }
