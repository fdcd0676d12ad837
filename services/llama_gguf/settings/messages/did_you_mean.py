"""Did-you-mean: the setting that was probably meant. Pure.

Besides spelling, it knows other tools' names of settings, and settings that belong to another section.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping

from llama_gguf.settings.schema_tree import SettingPath, SettingsSchema, dotted
from llama_gguf.settings.words import closest

_SYNONYMS: dict[str, str] = {
    "engine.context_per_slot": "ctx ctxsize nctx context contextsize contextlength maxmodellen numctx",
    "engine.slots": "parallel np nparallel maxconcurrentrequests maxnumseqs numparallel",
    "engine.gpu_layers": "ngl ngpulayers gpulayer numgpu layers ngpu",
    "engine.threads": "nthreads threadcount numthread",
    "engine.flash_attention": "flashattn fa",
    "engine.cache_type_k": "ctk typek kvcachetype cachetype",
    "engine.cache_type_v": "ctv typev",
    "engine.devices": "device gpus",
    "engine.split_mode": "splitmode tensorparallel",
    "engine.tensor_split": "tensorsplit gpusplit",
    "engine.cpu_moe_layers": "ncpumoe cpumoe ncmoe moecpu",
    "engine.load_mode": "loadmode mmap mlock usemmap usemlock nommap",
    "engine.cache_reuse_tokens": "cachereuse ncachereuse",
    "engine.rope": "ropescaling yarn ropescale ropefreqbase",
    "engine.reasoning": "thinking think reasoningformat",
    "engine.reasoning.budget_tokens": "reasoningbudget thinkingbudget thinkbudget",
    "engine.speculative": "speculativedecoding speculation spectype mtp ngram",
    "engine.extra_args": "args extraargs llamaargs",
    "model.path": "file modelpath modelfile filename gguf",
    "model.name": "modelname modelid id",
    "model.hf.repo": "hfrepo huggingface repo repoid",
    "model.hf.file": "hffile",
    "model.url": "modelurl downloadurl",
    "model.aliases": "alias servedmodelname",
    "model.sha256": "checksum hash sha",
    "model.token_env": "hftoken token accesstoken",
    "model.draft": "draftmodel speculativemodel",
    "model.lora": "loras adapters loraadapters",
    "engine": "portbackend backendport llama llamaserver backend inference",
    "gateway.host": "bind listen address listenaddress",
    "health.port": "healthport porthealth",
    "gateway.timeouts.total_seconds": "requesttimeout timeout",
    "gateway.cors.allow_origins": "corsorigins allowedorigins origins",
    "gateway.max_body_bytes": "maxbodysize maxrequestbodysize clientmaxbodysize",
    "auth.keys_file": "apikey apikeys key keys apikeyfile keyfile authkeysfile",
    "auth.enabled": "authenabled requireauth",
    "limits.requests_per_minute": "rpm ratelimit maxrequestsperminute requestsperminute",
    "limits.tokens_per_minute": "tpm tokensperminute",
    "limits.queue.max_size": "maxqueuesize queuesize",
    "limits.store": "redis redisurl valkey",
    "paths.data_dir": "datadir volume",
    "paths.models_dir": "modelsdir modeldir",
    "paths.logs_dir": "logdir logsdir",
    "logging.format": "logformat",
    "logging.level": "loglevel verbosity",
    "logging": "log",
    "gateway": "server api http",
    "auth": "authentication security",
    "limits": "ratelimits quota quotas",
    "model": "models",
}
"""Setting -> its names in other tools and in the legacy system, in lower case, without dashes and underscores."""


@functools.cache
def synonyms() -> Mapping[str, str]:
    """Return other name -> setting."""
    return {name: setting for setting, names in _SYNONYMS.items() for name in names.split()}


def suggestion(path: SettingPath, schema: SettingsSchema) -> str:
    """Say which setting was probably meant by `path`, which does not exist; "" if nothing is similar."""
    name, parent = str(path[-1]), path[:-1]
    if fold(name) in _KEYS and parent[:1] in ((), ("auth",)):
        return "API keys are not set here: create one with `llama-gguf keys generate`, or see auth.bootstrap"
    if "." in name and schema.at((*parent, *name.split("."))) is not None:
        return f"write it as a group: {_as_group(name)}"
    longer = any(one.startswith(f"{name}_") for one in schema.keys(parent))  # paths.models_dir
    if parent and name in schema.keys(()) and not longer:
        return f'did you mean "{name}"? Check the indentation'
    found = _in_section(name, parent, schema) or _sibling(name, parent, schema)
    if found:
        return f"did you mean {found}?"
    return _in_other_section(name, parent, schema)


_KEYS = {"apikey", "apikeys", "key", "keys"}
_COMPANIONS = ("mmproj", "draft")


def _as_group(name: str) -> str:
    *groups, last = name.split(".")
    return "".join(f"{group}: {{" for group in groups) + f"{last}: …" + "}" * len(groups)


def _in_section(name: str, parent: SettingPath, schema: SettingsSchema) -> str:
    """Return settings of exactly this name deeper or higher in the same section."""
    same = [
        leaf
        for leaf in schema.leaves()
        if parent and leaf.path[0] == parent[0] and leaf.path[-1] == name and not set(leaf.path) & set(_COMPANIONS)
    ]
    named = [_short(leaf.name, parent) for leaf in same]
    other = synonyms().get(fold(name), "")
    if named and other.rpartition(".")[0] == dotted(parent):
        named.insert(0, _short(other, parent))
    return " or ".join(f'"{option}"' for option in named[:2])


def _sibling(name: str, parent: SettingPath, schema: SettingsSchema) -> str:
    """Return the sibling that is most similar to `name`, or that has this name in other tools."""
    siblings = schema.keys(parent)
    plain = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("-", "_").strip("_/# ")
    other = synonyms().get(fold(name), "")
    if parent and other.startswith(f"{dotted(parent)}."):
        return f'"{_short(other, parent)}"'
    near = closest(plain, siblings) or _sharing_a_word(plain, siblings)
    return f'"{near}"' if near else ""


def _sharing_a_word(name: str, siblings: Iterable[str]) -> str | None:
    """Return the sibling that has the most words in common with `name`, or begins or ends with it."""
    words = set(name.split("_")) - {"max", "seconds", "bytes", "file", "per"}

    def score(sibling: str) -> int:
        return len(words & set(sibling.split("_"))) or int(len(sibling) > 2 and name.startswith(sibling))

    best = max(((score(one), -len(one), one) for one in siblings), default=(0, 0, ""))
    return best[2] if best[0] else None


def _in_other_section(name: str, parent: SettingPath, schema: SettingsSchema) -> str:
    leaves = list(schema.leaves())
    same = [leaf.name for leaf in leaves if leaf.path[-1] == name and not set(leaf.path) & set(_COMPANIONS)]
    if len(same) == 1:
        return f'did you mean "{same[0]}"? Check the indentation'
    if same:
        return f"{name} is a setting of {_list([part.rpartition('.')[0] for part in same])}; check the indentation"
    other = synonyms().get(fold(name))
    every = {leaf.path[-1]: leaf.name for leaf in leaves}
    near = other or every.get(closest(name, every) or "")
    return f'did you mean "{_short(near, parent)}"?' if near else ""


def fold(name: str) -> str:
    """Return `name` in lower case, without dashes and underscores."""
    return name.lower().replace("-", "").replace("_", "")


def _short(target: str, parent: SettingPath) -> str:
    prefix = dotted(parent) + "."
    return target.removeprefix(prefix) if parent else target


def _list(names: list[str]) -> str:
    shown = [name or "the top level" for name in names[:4]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
