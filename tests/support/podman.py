"""Containers for the image tests: started by podman, waited for by requests, always removed."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

LOCKED_DOWN = (
    "--read-only",
    "--tmpfs=/run",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
)
"""The strictest options with which the image must work."""


def podman(*arguments: str, check: bool = True, seconds: float = 120) -> subprocess.CompletedProcess[str]:
    """Run podman and return its output."""
    done = subprocess.run(["/usr/bin/podman", *arguments], capture_output=True, text=True, timeout=seconds, check=False)
    if check and done.returncode != 0:
        raise AssertionError(f"podman {' '.join(arguments[:2])} failed ({done.returncode}): {done.stderr.strip()}")
    return done


def inspect_image(name: str) -> dict[str, Any]:
    """Return podman's metadata of an image."""
    found: list[dict[str, Any]] = json.loads(podman("image", "inspect", name).stdout)
    return found[0]


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP response, errors included."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON."""
        return json.loads(self.body)


def http(url: str, *, body: object = None, key: str = "", timeout: float = 60) -> Answer:
    """Call `url`; a `body` makes it a POST of JSON."""
    request = urllib.request.Request(url)  # noqa: S310 - loopback
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:  # noqa: S310
            return Answer(answer.status, answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


def eventually(what: str, question: Callable[[], object], seconds: float = 60, *, pause: float = 0.2) -> None:
    """Call until the result is true; a refused connection counts as false."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        try:
            last = question()
            if last:
                return
        except OSError as error:
            last = error
        time.sleep(pause)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s; last: {last!r}")


class Container:
    """One running container."""

    def __init__(self, name: str, ports: Sequence[int]) -> None:
        self.name = name
        self._ports = {port: self._published(port) for port in ports}

    def _published(self, port: int) -> int:
        return int(podman("port", self.name, f"{port}/tcp").stdout.split()[0].rpartition(":")[2])

    def url(self, path: str, port: int = 8000) -> str:
        """Return the URL of `path` on the host."""
        return f"http://127.0.0.1:{self._ports[port]}{path}"

    def wait_ready(self, seconds: float = 60, *, port: int = 8001, path: str = "/ping") -> None:
        """Wait for the health server's 200."""
        try:
            eventually("readiness", lambda: http(self.url(path, port), timeout=5).status == 200, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from error

    def exec(self, *command: str, check: bool = True, user: str = "") -> str:
        """Run a command inside; return its output."""
        options = ["--user", user] if user else []
        done = podman("exec", *options, self.name, *command, check=check)
        return done.stdout + done.stderr

    def pid_of(self, program: str) -> int:
        """Return the process id, inside, of the first process whose program is called `program`."""
        script = 'for p in /proc/[0-9]*; do echo "${p#/proc/} $(tr "\\0" " " <"$p/cmdline")"; done 2>/dev/null'
        for line in self.exec("sh", "-c", script).splitlines():
            pid, _, command = line.partition(" ")
            if command.split(" ")[0].rpartition("/")[2] == program:
                return int(pid)
        raise AssertionError(f"no {program} runs in {self.name}")

    def logs(self) -> str:
        """Return standard output and standard error so far."""
        done = podman("logs", self.name, check=False)
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        """Return the state that podman reports."""
        found: list[dict[str, Any]] = json.loads(podman("container", "inspect", self.name).stdout)
        state: dict[str, Any] = found[0]["State"]
        return state

    def healthcheck(self) -> bool:
        """Run the image's HEALTHCHECK as Docker would, and return its verdict."""
        return podman("healthcheck", "run", self.name, check=False).returncode == 0

    def stop(self, seconds: int = 40) -> int:
        """Stop it, wait, and return its exit code."""
        podman("stop", "--time", str(seconds), self.name, seconds=seconds + 60)
        return self.exit_code()

    def wait_end(self, seconds: float = 60) -> int:
        """Wait until it exits without a stop, and return its exit code."""
        eventually("the end of the container", lambda: not self.state()["Running"], seconds)
        return self.exit_code()

    def exit_code(self) -> int:
        """Return the exit code of a container that has exited."""
        return int(self.state()["ExitCode"])


@contextmanager
def container(
    image: str, *command: str, options: Iterable[str] = (), ports: Sequence[int] = (8000, 8001)
) -> Iterator[Container]:
    """Start a container in the background; it and its anonymous volumes are removed at the end."""
    published = [f"--publish=127.0.0.1::{port}" for port in ports]
    name = podman("run", "--detach", *published, *options, image, *command).stdout.strip()
    try:
        yield Container(name, ports)
    finally:
        podman("rm", "--force", "--volumes", "--time", "1", name, check=False)
