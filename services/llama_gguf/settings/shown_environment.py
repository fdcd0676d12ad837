"""Which values of environment variables a report shows. Pure.

Values are withheld unless the name is on a list of harmless ones: a list of secret names cannot be complete. Of our own
variables those are shown whose setting is a number, a choice or a path.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping

from llama_gguf.settings.environment_filter import matches
from llama_gguf.settings.environment_value import clean
from llama_gguf.settings.platform import (
    KUBERNETES_SERVICE_HOST,
    RUNPOD_ENDPOINT_ID,
    RUNPOD_POD_ID,
    RUNPOD_VARIABLES,
    VAST_CONTAINER_ID,
)
from llama_gguf.settings.redaction import MASK, is_secret_name, looks_like_secret, mask_text, shown_secret_file
from llama_gguf.settings.schema_tree import ENV_PREFIX, Node, SettingsSchema, env_name, settings_schema
from llama_gguf.settings.sections.settings import Settings
from llama_gguf.settings.sections.sources import artifacts_of

HARMLESS = (
    *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "PWD", "TERM", "HOSTNAME", "LANG", "LANGUAGE", "LC_*", "TZ"),
    *("TMPDIR", "LD_LIBRARY_PATH", "LD_PRELOAD", "SSL_CERT_FILE", "SSL_CERT_DIR", "MALLOC_*", "GLIBC_TUNABLES"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "CUDA_VERSION", "NVIDIA_VISIBLE_DEVICES"),
    *("NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_REQUIRE_CUDA", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"),
    *("GGML_*", "OMP_*", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONPATH", "PYTHONUNBUFFERED"),
    *("HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HF_ENDPOINT", "NO_PROXY", "no_proxy", "LLAMA_GGUF_CONFIG"),
    *("LLAMA_GGUF_RUN_DIR", RUNPOD_POD_ID, RUNPOD_ENDPOINT_ID, "RUNPOD_DC_ID", "RUNPOD_GPU_COUNT"),
    *(VAST_CONTAINER_ID, KUBERNETES_SERVICE_HOST, *RUNPOD_VARIABLES),
)
"""Names whose values are shown, or prefixes of such names followed by `*`."""
_SHORTEST_SECRET = 6
_LONG = 12  # shorter ones are words that a report needs


def shown_environment(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, sorted, with every value masked that is not known to be harmless."""
    ours = dict(_ours(settings_schema()))
    return {_shown_name(name): _shown(name, env[name], ours) for name in sorted(env)}


def secret_values(env: Mapping[str, str], settings: Settings | None, read: Container[str] = ()) -> frozenset[str]:
    """Return the values that a report must not hold anywhere: what settings or names of variables call a secret, and
    every long value that is withheld, unless it is read as a setting (`read`: such names besides LLAMA_GGUF__…).
    """
    named: set[str | None] = set()
    if settings is not None:
        named = {settings.auth.bootstrap.env, settings.limits.store_password_env}
        named |= {artifact.token_env for _, artifact in artifacts_of(settings.model)}
    texts = (clean(value).text for name, value in env.items() if name in named or is_secret_name(name))
    called = {text for text in texts if len(text) >= _SHORTEST_SECRET}
    shown = shown_environment(env)
    withheld = {
        env[name]
        for name, text in shown.items()
        if text == MASK and name in env and name not in read and not name.upper().startswith(ENV_PREFIX)
    }
    return frozenset(called | {text for text in withheld if len(text) >= _LONG and not text.startswith("/")})


def _ours(schema: SettingsSchema) -> Iterator[tuple[str, Node]]:
    for leaf in schema.leaves():
        yield env_name(leaf.path), schema.resolve(leaf.node)


def _shown_name(name: str) -> str:
    return MASK if looks_like_secret(name) else name


def _shown(name: str, value: str, ours: Mapping[str, Node]) -> str:
    if not value:
        return ""
    harmless = matches(name, HARMLESS) and not is_secret_name(name)
    if looks_like_secret(value) and not (harmless and "/" in value):
        return MASK
    if harmless:
        return mask_text(value)
    return mask_text(value) if name in ours and _is_plain(value, ours[name]) else MASK


def _is_plain(value: str, node: Node) -> bool:
    """Return whether a value of the setting is a number, a choice or a path; a wrong value can be anything."""
    options = [node, *node.get("anyOf", ())]
    if any(value in map(str, option.get("enum", ())) for option in options):
        return True
    kinds = {option.get("type") for option in options}
    if kinds & {"integer", "number", "boolean"}:
        return len(value) <= 12 and (value.lower() in {"true", "false", "null"} or value.replace(".", "").isdigit())
    return node.get("format") == "path" and shown_secret_file(value) == value
