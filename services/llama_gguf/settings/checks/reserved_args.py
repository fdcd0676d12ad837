"""llama-server's arguments that `engine.extra_args` must not contain, and what to write instead. Pure data and lookup.

Four kinds: `setting` (there is a setting for it, and the two could disagree), `newer_setting` (the same for settings
that came later: the argument is allowed while the setting is not set), `owned` (the appliance itself depends on it:
address, key, logs) and `unsafe` (exposes files, tools, state or other users' prompts to clients; allowed by
engine.allow_unsafe_args). A test compares the names with `llama-server --help`.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from llama_gguf.settings.schema_tree import SettingPath

ArgKind = Literal["setting", "newer_setting", "owned", "unsafe"]


@dataclass(frozen=True, slots=True)
class ArgRule:
    """Arguments (all spellings) and why they are rejected; `instead` is a setting's dotted name or a sentence."""

    names: tuple[str, ...]
    kind: ArgKind
    instead: str
    value: str | None = None  # for arguments without a value: the setting's value
    values: int = 1  # how many values follow


def _rule(kind: ArgKind, names: str, instead: str, *, value: str | None = None, values: int = 1) -> ArgRule:
    return ArgRule(tuple(names.split()), kind, instead, value, 0 if value is not None else values)


_setting = functools.partial(_rule, "setting")
_newer = functools.partial(_rule, "newer_setting")
_owned = functools.partial(_rule, "owned")
_unsafe = functools.partial(_rule, "unsafe")

_LISTEN = "the engine listens on a private Unix socket; the public address is gateway.host and gateway.port"
_EXIT = "llama-server would print something and exit"
_OTHER_MODEL = "the model is set in `model`"
_LOG = "the appliance collects the engine's output; see logging"
_ROUTER = "the appliance serves one model"
_CORS = "the engine's CORS headers are dropped; see gateway.cors"

RULES: tuple[ArgRule, ...] = (
    _setting("-c --ctx-size", "engine.context_per_slot"),
    _setting("--kv-unified-per-slot", "engine.context_per_slot"),
    _setting("-np --parallel", "engine.slots"),
    _setting("-ngl --gpu-layers --n-gpu-layers", "engine.gpu_layers"),
    _setting("-t --threads", "engine.threads"),
    _setting("-b --batch-size", "engine.batch_size"),
    _setting("-ub --ubatch-size", "engine.ubatch_size"),
    _setting("-fa --flash-attn", "engine.flash_attention"),
    _setting("-ctk --cache-type-k", "engine.cache_type_k"),
    _setting("-ctv --cache-type-v", "engine.cache_type_v"),
    _setting("-fit --fit", "engine.fit"),
    _setting("-cram --cache-ram", "engine.prompt_cache_mib"),
    _setting("--sleep-idle-seconds", "engine.sleep_idle_seconds"),
    _setting("--embedding --embeddings", "engine.task", value="embed"),
    _setting("--rerank --reranking", "engine.task", value="rerank"),
    _setting("--pooling", "engine.pooling"),
    _setting("-a --alias", "model.aliases"),
    _setting("-m --model", "model.path"),
    _setting("-mu --model-url", "model.url"),
    _setting("-hf -hfr --hf-repo", "model.hf.repo"),
    _setting("-hff --hf-file", "model.hf.file"),
    _setting("-hft --hf-token", "model.token_env"),
    _setting("-mm --mmproj", "model.mmproj"),
    _setting("-mmu --mmproj-url", "model.mmproj.url"),
    _setting("--spec-draft-model -md --model-draft", "model.draft"),
    _setting("--spec-draft-hf -hfd -hfrd --hf-repo-draft", "model.draft.hf"),
    _setting("--lora --lora-scaled", "model.lora"),
    _setting("--chat-template-file", "model.chat_template"),
    _setting("-lv --verbosity --log-verbosity", "logging.level"),
    _newer("-dev --device", "engine.devices"),
    _newer("-sm --split-mode", "engine.split_mode"),
    _newer("-ts --tensor-split", "engine.tensor_split"),
    _newer("-mg --main-gpu", "engine.main_gpu"),
    _newer("-cmoe --cpu-moe", "engine.cpu_moe_layers", value="all"),
    _newer("-ncmoe --n-cpu-moe", "engine.cpu_moe_layers"),
    _newer("-lm --load-mode", "engine.load_mode"),
    _newer("--numa", "engine.numa"),
    _newer("--cache-reuse", "engine.cache_reuse_tokens"),
    _newer("--rope-scaling", "engine.rope.scaling"),
    _newer("--rope-scale --rope-freq-scale", "engine.rope.scale"),
    _newer("--rope-freq-base", "engine.rope.freq_base"),
    _newer("--yarn-orig-ctx", "engine.rope.yarn_original_context"),
    _newer("--yarn-ext-factor", "engine.rope.yarn_extrapolation_factor"),
    _newer("--yarn-attn-factor", "engine.rope.yarn_attention_factor"),
    _newer("--yarn-beta-slow", "engine.rope.yarn_beta_slow"),
    _newer("--yarn-beta-fast", "engine.rope.yarn_beta_fast"),
    _newer("-rea --reasoning", "engine.reasoning.mode"),
    _newer("--reasoning-format", "engine.reasoning.format"),
    _newer("--reasoning-effort", "engine.reasoning.effort"),
    _newer("--reasoning-budget", "engine.reasoning.budget_tokens"),
    _newer("--reasoning-budget-message", "engine.reasoning.budget_message"),
    _newer("--spec-type", "engine.speculative.types"),
    _newer("--spec-default", "engine.speculative.types", value="ngram-mod"),
    _newer("--spec-draft-n-max", "engine.speculative.max_tokens"),
    _newer("--spec-draft-n-min", "engine.speculative.min_tokens"),
    _newer("--spec-draft-p-min --draft-p-min", "engine.speculative.min_probability"),
    _newer("--spec-ngram-mod-n-match", "engine.speculative.ngram_size"),
    _newer("--spec-ngram-mod-n-max", "engine.speculative.max_tokens"),
    _newer("--spec-ngram-mod-n-min", "engine.speculative.min_tokens"),
    _newer(
        "--spec-ngram-simple-size-n --spec-ngram-map-k-size-n --spec-ngram-map-k4v-size-n",
        "engine.speculative.ngram_size",
    ),
    _newer(
        "--spec-ngram-simple-size-m --spec-ngram-map-k-size-m --spec-ngram-map-k4v-size-m",
        "engine.speculative.max_tokens",
    ),
    _newer(
        "--spec-ngram-simple-min-hits --spec-ngram-map-k-min-hits --spec-ngram-map-k4v-min-hits",
        "engine.speculative.ngram_min_hits",
    ),
    _owned("-dr --docker-repo", _OTHER_MODEL),
    _owned(
        "--embd-gemma-default --fim-qwen-1.5b-default --fim-qwen-3b-default --fim-qwen-7b-default --fim-qwen-7b-spec "
        "--fim-qwen-14b-spec --fim-qwen-30b-default --gpt-oss-20b-default --gpt-oss-120b-default "
        "--vision-gemma-4b-default --vision-gemma-12b-default",
        _OTHER_MODEL,
        values=0,
    ),
    _owned("--host --port --api-prefix", _LISTEN),
    _owned("--reuse-port", _LISTEN, values=0),
    _owned("--ssl-key-file --ssl-cert-file", "TLS ends in front of the gateway; the engine has a private socket"),
    _owned("--api-key --api-key-file", "the engine's key is new at every start; clients' keys are in auth.keys_file"),
    _owned("--metrics", "it depends on metrics.engine_series", values=0),
    _owned("--cors-origins --cors-methods --cors-headers", _CORS),
    _owned("--cors-credentials --no-cors-credentials", _CORS, values=0),
    _owned("--log-file", _LOG),
    _owned(
        "--log-disable --log-jsonl --no-log-jsonl --log-prefix --no-log-prefix --log-timestamps --no-log-timestamps",
        _LOG,
        values=0,
    ),
    _owned("--log-colors", _LOG),
    _owned("--threads-http", "it depends on engine.slots"),
    _owned("--offline", "it is always set: the weights are downloaded and verified before the engine starts", values=0),
    _owned("--ui --webui --no-ui --no-webui", "the engine is built without its web UI", values=0),
    _owned("-h --help --usage --version --completion-bash -cl --cache-list --list-devices", _EXIT, values=0),
    _owned("--models-dir --models-preset --models-max", _ROUTER),
    _owned("--models-autoload --no-models-autoload", _ROUTER, values=0),
    _unsafe("--slots --no-slots", "/slots shows other users' prompts", values=0),
    _unsafe("--props", "POST /props changes the server for all users", values=0),
    _unsafe("--slot-save-path", "clients could read and write files of cached prompts"),
    _unsafe("--tools --tools-runtime", "clients could run tools on this machine"),
    _unsafe("-ag --agent", "it enables a proxy and all built-in tools", values=0),
    _unsafe("-no-ag --no-agent", "the appliance never enables it", values=0),
    _unsafe("--ui-mcp-proxy --webui-mcp-proxy", "clients could make the engine call other servers", values=0),
    _unsafe("--no-ui-mcp-proxy --no-webui-mcp-proxy", "the appliance never enables it", values=0),
    _unsafe("--mcp-servers-config --mcp-servers-json", "clients could run MCP servers on this machine"),
    _unsafe("--media-path", "clients could read files below that path"),
    _unsafe("--path", "it serves files of this machine to clients"),
    _unsafe("-v --verbose --log-verbose", "it logs all users' prompts", values=0),
    _unsafe("--log-prompts-dir", "it writes all users' prompts to disk"),
    _unsafe("--rpc", "it sends the model and prompts to other machines unencrypted"),
    _unsafe("--video-ffmpeg-dir", "it sets programs that the engine runs on clients' data"),
)  # fmt: skip


@functools.cache
def rules_by_name() -> Mapping[str, ArgRule]:
    """Return every spelling and its rule."""
    return {name: rule for rule in RULES for name in rule.names}


def spelled(item: str) -> tuple[str, str | None]:
    """Split `--name=value`; like llama-server, read `_` in long names as `-`."""
    name, equals, value = item.partition("=")
    if name.startswith("--"):
        name = name.replace("_", "-")
    return name, value if equals else None


def is_argument(item: str) -> bool:
    """Return whether `item` names an argument, as opposed to being a value such as `-1`."""
    return item.startswith("-") and len(item) > 1 and not item[1].isdigit() and item[1] != "."


def reserved(args: Sequence[str]) -> Iterator[tuple[int, str, ArgRule]]:
    """Yield (index, name, rule) for each of `args` that has a rule."""
    known = rules_by_name()
    for index, item in enumerate(args):
        name, _ = spelled(item)
        if is_argument(item) and name in known:
            yield index, name, known[name]


def hoist(args: Sequence[str]) -> tuple[dict[SettingPath, str], list[str]]:
    """Split legacy EXTRA_ARGS into settings (as text) and the remaining arguments.

    Only arguments with a scalar setting are converted; the others remain, for the checks to reject. A total context
    (`-c`) is returned unchanged: the caller knows the slots.
    """
    known, found, rest = rules_by_name(), {}, []
    index = 0
    while index < len(args):
        name, value = spelled(args[index])
        rule = known.get(name)
        following = args[index + 1] if index + 1 < len(args) and not is_argument(args[index + 1]) else None
        index += 1
        if name == "--metrics":
            continue
        if rule is None or rule.kind != "setting" or not rule.instead.startswith(_HOISTED):
            rest.append(args[index - 1])
            continue
        if rule.value is None and value is None and following is not None:
            value, index = following, index + 1
        text = rule.value or value or ("on" if rule.instead == "engine.flash_attention" else None)
        if text is None:
            rest.append(args[index - 1])
            continue
        found[tuple[str | int, ...](rule.instead.split("."))] = _BOOLEAN.get(text, text) if "fit" in name else text
    return found, rest


_BOOLEAN = {"on": "true", "off": "false"}
_HOISTED = ("engine.", "model.aliases", "model.chat_template")
"""Settings with a scalar value, by the beginnings of their names."""
