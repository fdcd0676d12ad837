"""What docs/tls.md says to put in front, run as it stands there: nginx and Caddy, with a private authority.

Changed are only names that belong to the reader's machine: addresses, ports, paths of certificates.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.certificates import make_authority, make_certificate
from support.gateway_box import KEY
from support.patience import PATIENCE
from support.ports import free_port
from support.running_gateway import Running, chat, running_gateway

GUIDE = Path(__file__).parents[2] / "docs" / "tls.md"
NAME = "llm.example.com"


def from_guide(language: str) -> str:
    (block,) = re.findall(rf"^```{language}\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return str(block)


def replaced(text: str, **changes: str) -> str:
    for old, new in changes.items():
        assert old in text, f"docs/tls.md no longer has {old}"
        text = text.replace(old, new)
    return text


def nginx_command(folder: Path, certificate: Path, port: int, gateway: int) -> list[str]:
    site = replaced(
        from_guide("nginx"),
        **{
            "listen 443": f"listen 127.0.0.1:{port}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway}",
            f"/etc/ssl/{NAME}.pem": str(certificate),
            f"/etc/ssl/{NAME}.key": str(certificate),
        },
    )
    folders = "".join(f"{name}_temp_path {folder};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    user = "user root;\n" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"{user}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log stderr;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{folders}{site}}}\n"
    )
    return [_program("nginx"), "-p", str(folder), "-c", str(file)]


def caddy_command(folder: Path, certificate: Path, port: int, gateway: int) -> list[str]:
    site = replaced(
        from_guide("caddyfile"),
        **{
            f"{NAME} {{": f"https://{NAME}:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate} {certificate}",
            "127.0.0.1:8000": f"127.0.0.1:{gateway}",
        },
    )
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https disable_redirects\n}}\n{site}")
    return [_program("caddy"), "run", "--config", str(file), "--adapter", "caddyfile"]


def _program(name: str) -> str:
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


Command = Callable[[Path, Path, int, int], list[str]]


class Front:
    """A TLS server in front of a gateway, and a client that verifies its certificate."""

    def __init__(self, running: Running, port: int, authority: Path) -> None:
        self.gateway = running
        self.port = port
        self._authority = authority

    def curl(self, *arguments: str, path: str, body: dict[str, Any] | None = None) -> list[str]:
        """Return curl's command line for one request."""
        command = ["curl", "--silent", "--no-buffer", "--cacert", str(self._authority), "--noproxy", "*"]
        command += ["--resolve", f"{NAME}:{self.port}:127.0.0.1", "--header", f"Authorization: Bearer {KEY}"]
        if body is not None:
            command += ["--header", "Content-Type: application/json", "--data-binary", json.dumps(body)]
        return [*command, *arguments, f"https://{NAME}:{self.port}{path}"]

    async def status(self, *arguments: str, path: str, body: dict[str, Any] | None = None) -> str:
        """Return the status and the HTTP version of one complete response."""
        write_out = ("--output", "/dev/null", "--write-out", "%{http_code} %{http_version}")
        command = self.curl(*write_out, *arguments, path=path, body=body)
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(process.communicate(), 30 * PATIENCE)
        return output.decode()


@asynccontextmanager
async def in_front(command: Command, folder: Path) -> AsyncIterator[Front]:
    authority = await asyncio.to_thread(make_authority, folder / "authority")
    certificate = await asyncio.to_thread(make_certificate, authority, NAME)
    async with running_gateway(folder / "box", {}, {}) as running:
        port = free_port()
        words = command(folder, certificate, port, running.port)
        env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        errors = (folder / "stderr.txt").open("wb")
        process = await asyncio.create_subprocess_exec(*words, stderr=errors, stdout=errors, env=env)
        try:
            await _listening(port, process, folder / "stderr.txt")
            yield Front(running, port, authority)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()
            errors.close()


async def _listening(port: int, process: asyncio.subprocess.Process, output: Path) -> None:
    async with asyncio.timeout(30 * PATIENCE):
        while True:
            assert process.returncode is None, f"it ended, see {output}"
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                writer.close()
                await writer.wait_closed()
                return


@pytest.fixture(params=[nginx_command, caddy_command], ids=["nginx", "caddy"])
async def front(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Front]:
    async with in_front(request.param, tmp_path) as made:
        yield made


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
async def test_a_stream_passes_as_it_arrives_and_ends_with_its_client(front: Front, version: str) -> None:
    """The engine falls silent after the second event: what a proxy buffers would never come."""
    body = chat(stream=True, tokens=5, hang_after=2)
    command = front.curl(version, path="/v1/chat/completions", body=body)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    async with asyncio.timeout(30 * PATIENCE):
        first = await process.stdout.readline()
    assert first.startswith(b"data: ")
    (seen,) = front.gateway.engine.asked
    assert not seen.finished
    process.terminate()
    await process.wait()
    await front.gateway.until(lambda: front.gateway.engine.asked[0].dropped, 30)


async def test_answers_errors_and_limits(front: Front) -> None:
    assert await front.status("--http2", path="/v1/chat/completions", body=chat()) == "200 2"
    assert await front.status("--http1.1", path="/v1/chat/completions", body=chat()) == "200 1.1"
    assert (await front.status(path="/v1/none")).startswith("404")
    assert (await front.status(path="/metrics")).startswith("404")
    large = chat() | {"messages": [{"role": "user", "content": "x" * 9_000_000}]}
    file = front.gateway.box.root / "large.json"
    file.write_text(json.dumps(large))
    sent = ("--header", "Content-Type: application/json", "--data-binary", f"@{file}")
    assert (await front.status(*sent, path="/v1/chat/completions")).startswith("200")
    file.write_text(json.dumps(large | {"messages": [{"role": "user", "content": "x" * 11_000_000}]}))
    assert (await front.status(*sent, path="/v1/chat/completions")).startswith("413")
    assert len(front.gateway.engine.asked) == 3


async def test_what_an_engine_died_of_is_sent_once(front: Front) -> None:
    assert (await front.status(path="/v1/chat/completions", body=chat(die_after=-1))).startswith("50")
    assert len(await front.gateway.lines()) == 1  # one line for each request that the gateway got


def test_the_ingress_is_valid_and_names_what_nginx_does() -> None:
    ingress = yaml.safe_load(from_guide("yaml"))
    notes = ingress["metadata"]["annotations"]
    nginx = from_guide("nginx")
    for name, directive in (
        ("proxy-body-size", "client_max_body_size 10m"),
        ("proxy-buffering", "proxy_buffering off"),
        ("proxy-read-timeout", "proxy_read_timeout 1830s"),
        ("proxy-next-upstream", "proxy_next_upstream off"),
    ):
        value = notes[f"nginx.ingress.kubernetes.io/{name}"]
        assert directive.split()[1].removesuffix("s") == value
        assert directive in nginx
