"""An appliance with several models on the real llama-server: keys of three people, and what an operator sees of it."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from llama_gguf.rundir.supervisord_client import Supervisord

from .appliance import Appliance, Response, running

IN_MEMORY = ("loading", "loaded", "draining", "unloading")
GENEROUS = {"requests_per_minute": None, "queue": {"max_size": 0, "max_wait_seconds": 600}}


@dataclass
class ManyModels:
    """A running appliance, and its keys by name: `admin` and those of clients."""

    appliance: Appliance
    keys: dict[str, str] = field(default_factory=dict)

    def add_key(self, name: str, *options: str) -> None:
        """Make a key and wait until the gateway knows it."""
        keys_file = str(self.appliance.folder / "data" / "keys.json")
        made = self.appliance.cli("keys", "generate", "--name", name, *options, "--quiet", "--keys-file", keys_file)
        assert made.returncode == 0, made.stderr
        self.keys[name] = made.stdout.strip()
        self.appliance.wait_for(
            lambda: self.get("/v1/models", key=name).status not in {401, 429}, 10, f"key {name} is read"
        )

    def get(self, path: str, *, key: str) -> Response:
        """GET with a key."""
        return self._request("GET", path, None, key)

    def post(self, path: str, body: Mapping[str, Any], *, key: str) -> Response:
        """POST JSON with a key."""
        return self._request("POST", path, body, key)

    def _request(self, method: str, path: str, body: Mapping[str, Any] | None, key: str) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.appliance.gateway_port, timeout=600)
        headers = {"Authorization": f"Bearer {self.keys[key]}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Response(answer.status, found, answer.read())
        finally:
            connection.close()

    def complete(self, model: str, *, key: str, prompt: str = "abc", **changes: Any) -> Response:
        """A completion whose text is always the same for a model and a prompt."""
        body = {"model": model, "prompt": prompt, "max_tokens": 8, "temperature": 0, "ignore_eos": True, **changes}
        return self.post("/v1/completions", body, key=key)

    def residency(self) -> dict[str, dict[str, Any]]:
        """What the gateway tells an operator of each model."""
        found = self.get("/models/residency", key="admin")
        assert found.status == 200, found.body
        return {one["name"]: one for one in found.json()["models"]}

    def states(self, *, key: str = "admin") -> dict[str, str]:
        """The state of each model that a key sees."""
        return {one["id"]: one["state"] for one in self.get("/v1/models", key=key).json()["data"]}

    def wait_state(self, model: str, state: str) -> None:
        """Wait until a model is in a state."""
        self.appliance.wait_for(lambda: self.states()[model] == state, 10, f"{model} is {state}")

    def engines(self) -> dict[str, int]:
        """The pids of the engines that run, by model."""
        programs = Supervisord(self.appliance.run_dir / "supervisord.sock").programs()
        return {
            one.name.removeprefix("engine-"): one.pid for one in programs if one.name.startswith("engine-") and one.pid
        }

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        total = 0.0
        for line in self.get("/metrics", key="admin").body.decode().splitlines():
            if line.startswith(name + "{") and all(f'{label}="{value}"' in line for label, value in labels.items()):
                total += float(line.rsplit(" ", 1)[1])
        return total


@contextlib.contextmanager
def many_models(
    folder: Path, binary: Path, models: Mapping[str, Mapping[str, Any]], **sections: Mapping[str, Any]
) -> Iterator[ManyModels]:
    """Run an appliance with these models, ready, with an operator's key and those of three clients."""
    overrides = {"models": models, "limits": GENEROUS, **sections}
    overrides["engine"] = {"binary": str(binary), **overrides.get("engine", {})}
    with running(folder, model=None, overrides=overrides) as appliance:
        appliance.wait_ready()
        box = ManyModels(appliance)
        box.add_key("admin", "--scopes", "inference,metrics,admin")
        for name in ("ann", "bob", "cid"):
            box.add_key(name)
        yield box
