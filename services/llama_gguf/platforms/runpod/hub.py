"""The files of RunPod's Hub: the endpoint as a listing that asks its users for settings, and a Dockerfile. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from llama_gguf import __version__
from llama_gguf.platforms.container import REPOSITORY, Launch
from llama_gguf.platforms.environment import variable_text
from llama_gguf.platforms.serialize import Tree
from llama_gguf.settings.one_model import each_model
from llama_gguf.settings.schema_tree import Leaf, env_name, settings_schema

from .options import RunPodOptions, allowed_cuda, secret_references

_ALWAYS_ASKED = ("engine.context_per_slot", "engine.slots")
_UNNAMED = f"ghcr.io/OWNER/{REPOSITORY}"
"""Where the images will be; the repository does not name the account. Not a valid reference, so no build uses it."""
_FROM = re.compile(r"^FROM (?P<name>\S+?)(?::[\w.-]+)?$", re.MULTILINE)


def hub(launch: Launch, options: RunPodOptions, variables: Mapping[str, str]) -> Tree:
    """Return hub.json. Settings become inputs with our descriptions; RunPod's own variables have fixed values."""
    tasks = [one.settings.engine.task for one in each_model(launch.settings)]
    return {
        "title": REPOSITORY,
        "description": "A GGUF model behind an OpenAI-compatible API with keys, limits and a fair queue.",
        "type": "serverless",
        "category": "language" if any(task == "generate" for task in tasks) else "embedding",
        "config": {
            "runsOn": "GPU" if launch.gpu else "CPU",
            "endpointType": "LB",
            "containerDiskInGb": options.disk,
            **_hardware(launch, options, "gpuIds", ",".join(options.pools)),
            "env": [*_setting_inputs(launch, variables), *_secret_inputs(launch)],
        },
    }


def hub_tests(launch: Launch, options: RunPodOptions, variables: Mapping[str, str]) -> Tree:
    """Return tests.json: one job with the settings of this configuration."""
    fixed = [{"key": name, "value": value} for name, value in variables.items() if name not in launch.secrets]
    return {
        "tests": [{"name": "ready", "input": {}, "timeout": 600_000}],
        "config": {
            **_hardware(launch, options, "gpuTypeId", "NVIDIA GeForce RTX 4090"),
            "env": fixed,
        },
    }


def hub_dockerfile(present: str) -> str:
    """Return the Dockerfile that the Hub builds: this version's CUDA image, from the registry that `present` names."""
    found = _FROM.search(present)
    return (
        "# What RunPod's Hub builds for a release: the released image, unchanged. Replace OWNER by the account that\n"
        "# publishes it; `llama-gguf render all` retains the name and sets the version.\n"
        f"FROM {found['name'] if found else _UNNAMED}:cuda-{__version__}\n"
    )


def _hardware(launch: Launch, options: RunPodOptions, gpu_field: str, gpus: str) -> Tree:
    if launch.variant == "cpu":
        return {"cpuFlavor": options.cpu_flavor}
    return {
        "gpuCount": options.gpu_count,
        gpu_field: gpus,
        "allowedCudaVersions": allowed_cuda(launch.variant),
    }


def _setting_inputs(launch: Launch, variables: Mapping[str, str]) -> list[Tree]:
    asked_one_by_one = (leaf for leaf in settings_schema().leaves() if leaf.name != "models")
    leaves = {env_name(leaf.path): leaf for leaf in asked_one_by_one}
    asked = {env_name(tuple(name.split("."))) for name in _ALWAYS_ASKED}
    inputs: list[Tree] = []
    for name in [*variables, *sorted(asked.difference(variables))]:
        if name in launch.secrets:
            continue
        leaf = leaves.get(name)
        text = variables.get(name) or variable_text(leaf.default if leaf else None)
        inputs.append({"key": name, **({"input": _input(leaf, text)} if leaf else {"value": text})})
    return inputs


def _input(leaf: Leaf, text: str) -> Tree:
    node = settings_schema().at(leaf.path) or {}
    advanced = leaf.path[0] != "model" and leaf.name not in _ALWAYS_ASKED
    field: Tree = {"name": leaf.name, "description": str(leaf.node.get("description", "")), "advanced": advanced}
    match node.get("type"):
        case "boolean":
            return field | {
                "type": "boolean",
                "default": text == "true",
                "trueValue": "true",
                "falseValue": "false",
            }
        case "integer" | "number" if text != "null":
            return field | {"type": "number", "default": json.loads(text)}
        case _:
            return field | {"type": "string", "default": text}


def _secret_inputs(launch: Launch) -> list[Tree]:
    return [
        {
            "key": name,
            "input": {
                "name": name,
                "type": "string",
                "description": f"A secret: {reference} reads it from your account's secrets.",
                "default": reference,
                "advanced": False,
            },
        }
        for name, reference in secret_references(launch).items()
    ]
