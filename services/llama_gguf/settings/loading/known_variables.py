"""The environment variables other than `LLAMA_GGUF__…`: legacy ones and those of platforms. Pure data.

Every variable that an existing deployment can set is here: mapped to a setting, or retired with the reason. `llama-gguf
config env` and the generated reference list this table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from llama_gguf.settings.locations import RUN_DIR_VARIABLE
from llama_gguf.settings.platform import (
    KUBERNETES_SERVICE_HOST,
    RUNPOD_ENDPOINT_ID,
    RUNPOD_POD_ID,
    RUNPOD_VARIABLES,
    VAST_API_KEY,
    VAST_CONTAINER_ID,
)
from llama_gguf.settings.schema_tree import SettingPath
from llama_gguf.settings.words import TRUE_WORDS

CONFIG_VARIABLE = "LLAMA_GGUF_CONFIG"
"""Path of the configuration file; `--config` overrides it."""
ADMIN_KEY_VARIABLE = "LLAMA_GGUF_ADMIN_KEY"
"""An operator's key, for commands that ask the gateway."""


def _no_limit_if_zero(text: str) -> str | None:
    return None if text.strip() == "0" else text


def _gpu_layers(text: str) -> str:
    """99 and more meant "all" in the legacy system; so did -1 in llama.cpp."""
    plain = text.strip()
    return "all" if plain == "-1" or (plain.isdigit() and int(plain) >= 99) else text


def _hold(text: str) -> int:
    """The legacy debug hold was unlimited; it becomes a day."""
    return 86_400 if text.strip().lower() in TRUE_WORDS else 0


@dataclass(frozen=True, slots=True)
class LegacyVariable:
    """A variable of the legacy system. Without a `setting` it is retired, and `note` says what replaces it."""

    name: str
    setting: SettingPath = ()
    note: str = ""
    convert: Callable[[str], JsonValue] | None = None


LEGACY_VARIABLES: tuple[LegacyVariable, ...] = (
    LegacyVariable("MODEL_NAME", ("model", "name")),
    LegacyVariable("MODEL_PATH", ("model", "path"), "overrides MODEL_NAME"),
    LegacyVariable("MODELS_DIR", ("paths", "models_dir")),
    LegacyVariable("DATA_DIR", ("paths", "data_dir")),
    LegacyVariable("LOG_DIR", ("paths", "logs_dir")),
    LegacyVariable("LOG_NAME", ("logging", "name")),
    LegacyVariable("LOG_FORMAT", ("logging", "format"), convert=str.lower),
    LegacyVariable("WORKER_TYPE", ("logging", "worker_type")),
    LegacyVariable("INSTANCE_ID", ("logging", "instance_id")),
    LegacyVariable("NGL", ("engine", "gpu_layers"), "99 or more means `all`", _gpu_layers),
    LegacyVariable("CTX", ("engine", "context_per_slot"), "if engine.slots is not set, it becomes 1, as before"),
    LegacyVariable("THREADS", ("engine", "threads")),
    LegacyVariable(
        "EXTRA_ARGS",
        ("engine", "extra_args"),
        "split as in a shell; arguments that correspond to settings are converted to them",
    ),
    LegacyVariable("MAX_CONCURRENT_REQUESTS", ("engine", "slots")),
    LegacyVariable("MAX_QUEUE_SIZE", ("limits", "queue", "max_size")),
    LegacyVariable("HOST", ("gateway", "host")),
    LegacyVariable("PORT", ("gateway", "port")),
    LegacyVariable("PORT_HEALTH", ("health", "port")),
    LegacyVariable("AUTH_ENABLED", ("auth", "enabled")),
    LegacyVariable("AUTH_KEYS_FILE", ("auth", "keys_file")),
    LegacyVariable(
        "MAX_REQUESTS_PER_MINUTE", ("limits", "requests_per_minute"), "0 means unlimited", _no_limit_if_zero
    ),
    LegacyVariable("METRICS_AUTH_ENABLED", ("metrics", "require_key")),
    LegacyVariable("CORS_ORIGINS", ("gateway", "cors", "allow_origins")),
    LegacyVariable("MAX_REQUEST_BODY_SIZE", ("gateway", "max_body_bytes")),
    LegacyVariable("MAX_HEADERS", ("gateway", "max_headers")),
    LegacyVariable("MAX_HEADER_LINE_SIZE", ("gateway", "max_header_line_bytes")),
    LegacyVariable("MAX_REQUEST_LINE_SIZE", ("gateway", "max_request_line_bytes")),
    LegacyVariable("REQUEST_TIMEOUT", ("gateway", "timeouts", "total_seconds")),
    LegacyVariable("BACKEND_CONNECT_TIMEOUT", ("gateway", "timeouts", "connect_seconds")),
    LegacyVariable("CLIENT_HEADER_TIMEOUT", ("gateway", "timeouts", "header_seconds")),
    LegacyVariable("HEALTH_TIMEOUT", ("health", "check_timeout_seconds")),
    LegacyVariable(
        "DEBUG_SHELL", ("supervisor", "hold_seconds"), "keeps the container up for a day after a failure", _hold
    ),
    LegacyVariable("PORT_BACKEND", note="the engine listens on a unix socket in the run directory"),
    LegacyVariable("BACKEND_PORT", note="the engine listens on a unix socket in the run directory"),
    LegacyVariable("BACKEND_HOST", note="the engine listens on a unix socket in the run directory"),
    LegacyVariable("BACKEND_API_KEY", note="the key between gateway and engine is generated at every start"),
)


@dataclass(frozen=True, slots=True)
class PlatformVariable:
    """A variable that a platform sets. `setting` is what it overrides; without one it has another use."""

    name: str
    setting: SettingPath = ()
    platform: Literal["RunPod", "Vast.ai", "Kubernetes", "Hugging Face", "llama-gguf", "system"] = "RunPod"
    note: str = ""


PLATFORM_VARIABLES: tuple[PlatformVariable, ...] = (
    PlatformVariable("PORT", RUNPOD_VARIABLES["PORT"], note="on RunPod serverless: the port of requests"),
    PlatformVariable(
        "PORT_HEALTH", RUNPOD_VARIABLES["PORT_HEALTH"], note="on RunPod serverless: the port of health checks"
    ),
    PlatformVariable("HEALTH_CHECK_PATH", RUNPOD_VARIABLES["HEALTH_CHECK_PATH"], note="read only on RunPod serverless"),
    PlatformVariable(RUNPOD_ENDPOINT_ID, note="its presence means RunPod serverless"),
    PlatformVariable(RUNPOD_POD_ID, note="its presence means RunPod; default of logging.instance_id"),
    PlatformVariable(
        KUBERNETES_SERVICE_HOST, platform="Kubernetes", note="its presence means Kubernetes for health.platform"
    ),
    PlatformVariable(VAST_API_KEY, platform="Vast.ai", note="its presence means Vast.ai for health.platform"),
    PlatformVariable(VAST_CONTAINER_ID, platform="Vast.ai", note="on Vast.ai: default of logging.instance_id"),
    PlatformVariable("HF_TOKEN", platform="Hugging Face", note="token for model.hf"),
    PlatformVariable("HUGGING_FACE_HUB_TOKEN", platform="Hugging Face", note="older name of HF_TOKEN, which wins"),
    PlatformVariable("HF_TOKEN_PATH", platform="Hugging Face", note="file with that token; default: HF_HOME/token"),
    PlatformVariable("XDG_CACHE_HOME", platform="system", note="where HF_HOME is by default; ~/.cache if unset"),
    PlatformVariable("HF_HOME", platform="Hugging Face", note="cache directory; read by huggingface_hub"),
    PlatformVariable("HF_HUB_CACHE", platform="Hugging Face", note="cache of repositories; overrides HF_HOME"),
    PlatformVariable("HF_XET_HIGH_PERFORMANCE", platform="Hugging Face", note="faster downloads that use more memory"),
    PlatformVariable("HF_ENDPOINT", platform="Hugging Face", note="another hub; read by huggingface_hub"),
    PlatformVariable("HF_HUB_OFFLINE", platform="Hugging Face", note="use the cache only; read by huggingface_hub"),
    PlatformVariable(
        "HTTPS_PROXY", platform="system", note="proxy of downloads; also http_proxy and all_proxy, as curl"
    ),
    PlatformVariable("NO_PROXY", platform="system", note="hosts, networks and ports that no proxy is used for"),
    PlatformVariable(
        "SSL_CERT_FILE", platform="system", note="authorities that downloads trust instead of the system's"
    ),
    PlatformVariable("SSL_CERT_DIR", platform="system", note="the same, as a directory that OpenSSL reads"),
    PlatformVariable("REQUESTS_CA_BUNDLE", platform="system", note="read where SSL_CERT_FILE is not set"),
    PlatformVariable("CURL_CA_BUNDLE", platform="system", note="read where neither of both is set"),
    PlatformVariable("XDG_RUNTIME_DIR", platform="system", note="candidate for paths.run_dir"),
    PlatformVariable("XDG_DATA_HOME", platform="system", note="candidate for paths.data_dir"),
    PlatformVariable(CONFIG_VARIABLE, platform="llama-gguf", note="path of the configuration file"),
    PlatformVariable("LLAMA_GGUF_TRACEBACK", platform="llama-gguf", note="print the traceback of an internal error"),
    PlatformVariable(
        ADMIN_KEY_VARIABLE, platform="llama-gguf", note="key with the scope admin, for `models load` and its like"
    ),
    PlatformVariable(RUN_DIR_VARIABLE, platform="llama-gguf", note="set by `up` for its programs"),
)

NEAR_MISSES: Mapping[str, str] = {
    **dict.fromkeys(("MODEL", "MODEL_FILE", "GGUF", "GGUF_PATH", "MODEL_FILENAME"), "MODEL_PATH"),
    **dict.fromkeys(("MODELNAME", "MODEL_ID"), "MODEL_NAME"),
    **dict.fromkeys(("MODEL_DIR", "MODELS_PATH", "MODELS_DIRECTORY"), "MODELS_DIR"),
    **dict.fromkeys(("GPU_LAYERS", "N_GPU_LAYERS", "NUM_GPU_LAYERS", "NGPU_LAYERS", "NUM_GPU"), "NGL"),
    **dict.fromkeys(
        ("CONTEXT", "CONTEXT_SIZE", "CTX_SIZE", "CTX_LEN", "N_CTX", "CONTEXT_LENGTH", "MAX_MODEL_LEN", "NUM_CTX"), "CTX"
    ),
    **dict.fromkeys(("N_THREADS", "NUM_THREADS", "THREAD_COUNT"), "THREADS"),
    **dict.fromkeys(("LLAMA_ARGS", "LLAMA_EXTRA_ARGS", "EXTRA_ARG", "ARGS"), "EXTRA_ARGS"),
    **dict.fromkeys(("PARALLEL", "N_PARALLEL", "NUM_PARALLEL", "SLOTS", "MAX_CONCURRENCY"), "MAX_CONCURRENT_REQUESTS"),
    **dict.fromkeys(("HEALTH_PORT", "PORT_HEALTHCHECK"), "PORT_HEALTH"),
    **dict.fromkeys(("GATEWAY_PORT", "API_PORT", "SERVER_PORT"), "PORT"),
    **dict.fromkeys(("API_KEYS_FILE", "KEYS_FILE", "AUTH_KEY_FILE"), "AUTH_KEYS_FILE"),
    **dict.fromkeys(("AUTH", "ENABLE_AUTH", "AUTH_ENABLE"), "AUTH_ENABLED"),
    **dict.fromkeys(("RATE_LIMIT", "RATE_LIMIT_RPM", "MAX_RPM", "REQUESTS_PER_MINUTE"), "MAX_REQUESTS_PER_MINUTE"),
    **dict.fromkeys(("CORS_ORIGIN", "ALLOWED_ORIGINS", "CORS_ALLOW_ORIGINS"), "CORS_ORIGINS"),
    **dict.fromkeys(("QUEUE_SIZE", "MAX_QUEUE"), "MAX_QUEUE_SIZE"),
    **dict.fromkeys(("MAX_BODY_SIZE", "MAX_REQUEST_SIZE"), "MAX_REQUEST_BODY_SIZE"),
    **dict.fromkeys(("TIMEOUT", "REQUEST_TIMEOUT_SECONDS"), "REQUEST_TIMEOUT"),
}
"""Names that are set by mistake -> the right one. Reported as warnings: they can belong to another program."""
