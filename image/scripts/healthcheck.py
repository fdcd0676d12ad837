#!/usr/bin/python3 -IS
"""The image's HEALTHCHECK: query the health server at its address in the running configuration.

Runs every few seconds for the lifetime of the container, so it imports almost nothing and none of our code. The run
directory is read from the environment of the appliance's programs.
"""

import json
import os
import socket
import sys

VARIABLE = b"LLAMA_GGUF_RUN_DIR="
TIMEOUT_SECONDS = 4.0
WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - read, not bound


def find_run_dir(proc: str = "/proc") -> str | None:
    """Return the run directory of the appliance in this container, None while no program of it runs."""
    for pid in sorted(filter(str.isdigit, os.listdir(proc)), key=int):  # noqa: PTH208 - pathlib takes 15 ms to import
        try:
            with open(f"{proc}/{pid}/environ", "rb") as file:  # noqa: PTH123
                variables = file.read().split(b"\0")
        except OSError:
            continue  # another user's, or it has exited
        for variable in variables:
            if variable.startswith(VARIABLE):
                return os.fsdecode(variable[len(VARIABLE) :])
    return None


def probe(host: str, port: int, path: str) -> int:
    """Return the HTTP status of the health server. Raises OSError or ValueError."""
    with socket.create_connection((WILDCARDS.get(host, host), port), TIMEOUT_SECONDS) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        with connection.makefile("rb") as response:
            return int(response.readline(1024).split()[1])


def main() -> int:
    """Print the status and return Docker's exit status: 0 healthy, 1 unhealthy."""
    run_dir = find_run_dir()
    if run_dir is None:
        print("the appliance is not running yet")  # noqa: T201 - what `docker inspect` shows
        return 1
    try:
        with open(f"{run_dir}/settings.json", "rb") as file:  # noqa: PTH123
            health = json.load(file)["settings"]["health"]
        status = probe(health["host"], health["port"], health["path"])
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(f"no response from the health server: {error}")  # noqa: T201
        return 1
    meaning = {200: "ready", 204: "starting"}.get(status, "not ready")
    print(f"{status} {meaning}")  # noqa: T201
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
