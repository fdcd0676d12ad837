"""Vast.ai: a template for instances, whose variables and ports are one string of docker flags.

Owns Vast's field names, limits and quoting (schemas/vast-template.json holds the fields as data). Not tested on Vast
itself. A template has no secrets: a secret is an empty placeholder that is filled in when an instance is rented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from llama_gguf.platforms.container import (
    MINIMUM_COMPUTE,
    MINIMUM_CUDA,
    Launch,
    RenderRequest,
    check_health_contract,
    pinned,
    prepare,
    warn_of_room,
)
from llama_gguf.platforms.mounts import Mounts, check_mounts
from llama_gguf.platforms.serialize import Tree, to_json
from llama_gguf.settings import Settings
from llama_gguf.settings.locations import DATA_DIR
from llama_gguf.settings.schema_tree import env_name

from .bundle import Bundle, Findings

MAX_ARGUMENT_CHARACTERS = 4096  # args, args_str and onstart together
MAX_VARIABLE_CHARACTERS = 256  # one variable, name and value
MAX_ENV_CHARACTERS = 32_768  # the whole string
_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=-]*")
_OWN_IMAGE = (
    "put config.yaml into an image of your own (COPY config.yaml /etc/llama-gguf/config.yaml) and render with "
    "--config-in-image"
)
_NAMES_HINT = "name models without hyphens, so that each of their settings has a variable"


@dataclass(frozen=True, slots=True)
class VastOptions:
    """Options of Vast's template that the configuration does not have. Disk and GPU memory in GB."""

    disk: int = 40
    gpu_memory: int | None = None
    gpu_count: int = 1
    arguments: str = "up"


def render(settings: Settings, request: RenderRequest, options: VastOptions) -> Bundle:
    """Return template.json for `settings`."""
    findings = Findings("Vast.ai")
    # Vast sets no variable that reliably distinguishes it from other hosts.
    patch = {"health.platform": "vast"} if settings.health.platform == "auto" else {}
    launch = prepare(settings, request, findings, patch)
    _check(launch, findings)
    check_mounts(launch, Mounts("template.json", ephemeral=(DATA_DIR, "/tmp", "/run", "/workspace")), findings)  # noqa: S108 - paths in the container
    if len(options.arguments) > MAX_ARGUMENT_CHARACTERS:
        findings.error(
            "arguments-too-long",
            "",
            f"the arguments have {len(options.arguments)} characters; Vast accepts at most {MAX_ARGUMENT_CHARACTERS}",
            f"shorten them; {_OWN_IMAGE}",
        )
    warn_of_room(settings, "--disk", options.disk, VastOptions().disk, findings)
    tree = template(launch, options, env_flags(launch, findings))
    return findings.finish({"template.json": to_json(tree)})


def template(launch: Launch, options: VastOptions, env: str) -> Tree:
    """Return the body of POST /api/v0/template/. `args` runs the image's entrypoint; ssh and jupyter replace it."""
    return {
        "name": launch.name,
        **_image(launch.image),
        "env": env,
        "runtype": "args",
        "args_str": options.arguments,
        "extra_filters": _filters(launch, options),
        "recommended_disk_space": options.disk,
        "desc": "A GGUF model behind an OpenAI-compatible API with keys, limits and a fair queue.",
        "readme": _readme(launch),
        "private": True,
    }


def _image(reference: str) -> Tree:
    name, separator, tag = reference.rpartition(":")
    if pinned(reference) or not separator or "/" in tag:
        return {"image": reference}
    return {"image": name, "tag": tag}


def _filters(launch: Launch, options: VastOptions) -> Tree:
    filters: Tree = {"num_gpus": {"eq": options.gpu_count}}
    if launch.variant != "cpu":
        filters["cuda_max_good"] = {"gte": float(MINIMUM_CUDA[launch.variant])}
        filters["compute_cap"] = {"gte": 10 * MINIMUM_COMPUTE[launch.variant]}
    if options.gpu_memory is not None:
        filters["gpu_ram"] = {"gte": 1000 * options.gpu_memory}
    return filters


def env_flags(launch: Launch, findings: Findings) -> str:
    """Return the docker flags for the variables and the API's port."""
    variables: Mapping[str, str] = launch.variables() | dict.fromkeys(launch.secrets, "")
    flags = [_flag(name, value, findings) for name, value in variables.items()]
    port = launch.settings.gateway.port
    text = " ".join([*flags, f"-p {port}:{port}"])
    if len(text) > MAX_ENV_CHARACTERS:
        findings.error(
            "variables-too-long",
            "",
            f"all variables together have {len(text)} characters; Vast accepts at most {MAX_ENV_CHARACTERS}",
            _OWN_IMAGE,
        )
    return text


def _flag(name: str, value: str, findings: Findings) -> str:
    length = len(name) + 1 + len(value)
    if length > MAX_VARIABLE_CHARACTERS:
        findings.error(
            "variable-too-long",
            "",
            f"{name} would have {length} characters; Vast accepts at most {MAX_VARIABLE_CHARACTERS} per variable",
            f"{_NAMES_HINT if name == env_name(('models',)) else 'shorten the setting'}; {_OWN_IMAGE}",
        )
    quoted = quote(value)
    if quoted is None:
        findings.error(
            "variable-unquotable",
            "",
            f"{name} mixes quotation marks in a way that Vast's parser of docker flags would change",
            f"use one kind of quotation mark; {_OWN_IMAGE}",
        )
    return f"-e {name}={quoted}"


def quote(value: str) -> str | None:
    """Return `value` quoted so that both a shell and Vast's own parser restore it, or None if that is impossible.

    Vast splits at spaces outside of quotes and then strips quotation marks off both ends of the value; it has no
    escapes. So a value must not start or end with a quotation mark, nor contain the one it is quoted with.
    """
    if _PLAIN.fullmatch(value):
        return value
    if value[0] in "'\"" or value[-1] in "'\"":
        return None
    if "'" not in value and value.count('"') % 2 == 0:
        return f"'{value}'"
    if not set(value) & set('"$`\\') and value.count("'") % 2 == 0:
        return f'"{value}"'
    return None


def _readme(launch: Launch) -> str:
    port = launch.settings.gateway.port
    lines = [f"The API listens on container port {port}; the instance's page shows the public port."]
    if launch.secrets:
        names = ", ".join(launch.secrets)
        lines.append(f"Fill in before renting, or set in your account's variables and remove here: {names}.")
    if not pinned(launch.image):
        lines.append("Pin the image by digest (name@sha256:...) to get the same build at every rental.")
    return "\n\n".join(lines)


def _check(launch: Launch, findings: Findings) -> None:
    settings = launch.settings
    if settings.auth.bootstrap.file:
        findings.error(
            "file-not-mountable",
            "auth.bootstrap.file",
            f"Vast cannot mount the secret file {settings.auth.bootstrap.file}",
            "set auth.bootstrap.env instead, and set the variable when you rent an instance",
        )
    check_health_contract(settings, "vast", findings)
