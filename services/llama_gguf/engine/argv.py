"""Settings -> llama-server's arguments. Pure: reads no file and checks nothing that `settings.checks` has checked.

What matters is passed explicitly even if it equals llama-server's default, which can change with its version.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_gguf.engine import tuning
from llama_gguf.errors import ConfigError
from llama_gguf.models.model_files import LoraFile, ModelFiles
from llama_gguf.models.source import served_names
from llama_gguf.settings import Locations
from llama_gguf.settings.sections.engine_parts.auto import given

if TYPE_CHECKING:
    from llama_gguf.settings import Settings


@dataclass(frozen=True, slots=True)
class Host:
    """What depends on the machine: the default number of threads, and whether the build supports GPUs.

    `threads` is set where a container must not use every core; 0 leaves the choice to llama-server.
    """

    threads: int = 0
    gpu_backend: bool = True


_VERBOSITY = {"error": "1", "warning": "2", "info": "3", "debug": "4"}  # 5 logs prompts, so it is never used
_SPARE_HTTP_THREADS = 8  # for health, metrics and the admin routes while every slot is busy


def build_argv(settings: Settings, locations: Locations, files: ModelFiles, host: Host | None = None) -> list[str]:
    """Return llama-server's arguments, without the program itself."""
    host = host or Host()
    return [
        *_listen(settings, locations),
        *_model(settings, files),
        *_memory(settings, host),
        *_compute(settings, host),
        *tuning.placement(settings.engine),
        *tuning.rope(settings.engine),
        *_task(settings),
        *tuning.reasoning(settings.engine),
        *_draft(settings, files),
        *_logging(settings),
        *settings.engine.extra_args,
    ]


def _listen(settings: Settings, locations: Locations) -> list[str]:
    in_flight = max(given(settings.engine.slots), settings.limits.max_in_flight or 0)
    return [
        *("--host", _csv([str(locations.run.engine_socket)])),
        *("--api-key-file", str(locations.run.engine_key)),
        *("--threads-http", str(in_flight + _SPARE_HTTP_THREADS)),
        "--offline",  # llama-server downloads nothing: weights are fetched, verified and locked before
        "--no-ui",
        "--slots",  # protected by the engine's key; the gateway serves it to admins only
        "--metrics",
    ]


def _model(settings: Settings, files: ModelFiles) -> list[str]:
    arguments = ["--model", str(files.model)]
    # One name only: llama-server sorts its aliases, and the alphabetically first would be the name in responses.
    arguments += ["--alias", served_names(settings.model)[0]]
    if files.mmproj:
        arguments += ["--mmproj", str(files.mmproj)]
        if settings.engine.gpu_layers == 0:
            arguments.append("--no-mmproj-offload")
    arguments += _lora(files.lora)
    if files.chat_template:
        arguments += ["--chat-template-file", str(files.chat_template)]
    return arguments


def _lora(adapters: tuple[LoraFile, ...]) -> list[str]:
    if not adapters:
        return []
    if all(adapter.scale == 1.0 for adapter in adapters):
        return ["--lora", _csv(str(adapter.path) for adapter in adapters)]
    for adapter in adapters:
        if ":" in str(adapter.path):
            raise ConfigError(
                f"{adapter.path}: llama-server does not support a scale for an adapter whose path contains a colon",
                hint="rename the adapter, or set its scale to 1.0",
            )
    return ["--lora-scaled", _csv(f"{adapter.path}:{adapter.scale:g}" for adapter in adapters)]


def _memory(settings: Settings, host: Host) -> list[str]:
    engine = settings.engine
    # Fitting reads the model an extra time (1.3 s for a vocabulary of 262144), so it is omitted where it has no effect.
    fit = engine.fit and (engine.context_per_slot == 0 or (host.gpu_backend and engine.gpu_layers != 0))
    arguments = [
        # llama-server divides --ctx-size over its slots. 0 stays 0: the trained context, reduced by --fit if needed.
        *("--ctx-size", str(given(engine.context_per_slot) * given(engine.slots))),
        *("--parallel", str(given(engine.slots))),
        *("--cache-type-k", given(engine.cache_type_k)),
        *("--cache-type-v", given(engine.cache_type_v)),
        *("--cache-ram", str(engine.prompt_cache_mib)),
        *("--fit", "on" if fit else "off"),
    ]
    if engine.gpu_layers != "auto":  # passed explicitly, a build without GPU support would warn
        arguments += ["--n-gpu-layers", str(engine.gpu_layers)]
    return arguments


def _compute(settings: Settings, host: Host) -> list[str]:
    engine = settings.engine
    # An input to embed or to rank must fit into one physical batch, or it is rejected.
    ubatch_size = engine.ubatch_size if engine.task == "generate" else given(engine.batch_size)
    arguments = [
        *("--flash-attn", engine.flash_attention),
        *("--batch-size", str(given(engine.batch_size))),
        *("--ubatch-size", str(ubatch_size)),
    ]
    if chosen := engine.threads or host.threads:
        arguments += ["--threads", str(chosen)]
    return arguments


def _task(settings: Settings) -> list[str]:
    match settings.engine.task:
        case "embed":
            pooling = settings.engine.pooling
            return ["--embeddings"] if pooling == "auto" else ["--embeddings", "--pooling", pooling]
        case "rerank":
            return ["--reranking"]
        case "generate":
            return []


def _draft(settings: Settings, files: ModelFiles) -> list[str]:
    speculation = tuning.speculation(settings.engine, drafts=files.draft is not None)
    if files.draft is None:
        return speculation
    arguments = ["--spec-draft-model", str(files.draft)]
    if settings.engine.gpu_layers in (0, "all"):
        arguments += ["--spec-draft-ngl", str(settings.engine.gpu_layers)]
    # Without a type llama-server loads a plain draft model and then never uses it.
    chosen = settings.engine.speculative.types or "--spec-type" in settings.engine.extra_args
    if not files.draft_sets_spec_type and not chosen:
        arguments += ["--spec-type", "draft-simple"]
    return arguments + speculation


def _logging(settings: Settings) -> list[str]:
    # Objects whatever our format is: in text a message's newlines look like the ends of lines (see llama_server_log).
    return ["--log-verbosity", _VERBOSITY[settings.logging.level], "--log-colors", "off", "--log-jsonl"]


def _csv(items: Iterable[str]) -> str:
    """Join in the format of llama-server's list arguments: an item with a comma or a quote is quoted."""
    return ",".join('"' + item.replace('"', '""') + '"' if set(item) & set(',"') else item for item in items)
