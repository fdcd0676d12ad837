"""A wrong value -> what was probably meant. Pure; every function returns "" if it does not know."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_gguf.settings.redaction import mask_text
from llama_gguf.settings.schema_tree import Node, SettingPath, SettingsSchema
from llama_gguf.settings.words import FALSE_WORDS, TRUE_WORDS, closest

_TRUE_WORDS = TRUE_WORDS | {"y"}
_FALSE_WORDS = FALSE_WORDS | {"n"}
_NO_LIMIT_WORDS = {"0", "-1", "unlimited", "none", "infinite", "inf", ".inf", "off", "no", "never", "disabled"}
_SAME_MEANING = {
    **dict.fromkeys(("k8s", "gke"), "kubernetes"),
    **dict.fromkeys(("max", "full"), "all"),
    **dict.fromkeys(("llm", "chat", "completion"), "generate"),
    **dict.fromkeys(("fatal", "critical"), "error"),
    "docker": "plain",
    "average": "mean",
    "trace": "debug",
    "native": "auto",
}
_SIZES = {"k": 1024, "kb": 1024, "kib": 1024, "m": 1024**2, "mb": 1024**2, "mib": 1024**2, "g": 1024**3, "gb": 1024**3}
_TIMES = {"s": 1.0, "sec": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_CURLY = "\u201c\u201d\u201e\u201f\u2018\u2019\u201a\u201b\u00ab\u00bb"
_HUB = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/(?P<repo>[\w.-]+/[\w.-]+).*")
_QUANTISED = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+):(?P<quant>[\w.-]+)")
_MAX_DIGITS = 15


def show(value: object) -> str:
    """Return a value for use in a message: short, without secrets, as in YAML."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case str():
            text = mask_text(value)
            return f'"{text}"' if len(text) <= 60 else f'"{text[:57]}..."'
        case list() | tuple():
            return "an empty list" if not value else "a list"
        case dict():
            return "a group of settings"
        case _:
            return str(value)


def hint(path: SettingPath, given: object, schema: SettingsSchema) -> str:
    """Return what to write instead of `given`."""
    node = schema.at(path) or {}
    if given is None:
        return "remove the line, or give it a value"
    if isinstance(given, str) and (advice := _placeholder(given, path) or _repository(given, path)):
        return advice
    if schema.nullable(path) and "properties" not in node and str(given).strip().lower() in _NO_LIMIT_WORDS:
        return "did you mean null?"
    if node.get("type") == "array":
        return _list(given, node, schema)
    if "properties" in node or "patternProperties" in node:
        return _group(given, node)
    meant = (
        _meant_by_text(given, node, schema.choices(path), str(path[-1]) if path else "")
        if isinstance(given, str)
        else _meant(given, node, schema.choices(path))
    )
    return f"did you mean {meant}?" if meant else ""


def _placeholder(given: str, path: SettingPath) -> str:
    if re.fullmatch(r"[\w.]+#.*", given):
        return "a comment needs a space before its #"
    if path and str(path[-1]).endswith("env"):
        named = re.fullmatch(r"\$\{?([A-Za-z_]\w*)\}?", given)
        return f'did you mean "{named[1]}"?' if named else ""
    if re.search(r"\$\{?[A-Za-z_]|\{\{|<[A-Z_ -]+>", given):
        return "variables are not expanded here: set the LLAMA_GGUF__ variable of this setting instead"
    return ""


def _repository(given: str, path: SettingPath) -> str:
    """Return the repository meant by a URL or by `repo:quantisation`, which other tools accept."""
    if path[-2:] != ("hf", "repo"):
        return ""
    if found := _HUB.fullmatch(given):
        return f'did you mean "{found["repo"]}"?'
    if found := _QUANTISED.fullmatch(given):
        return f"write repo: {found['repo']}, and set `file` to the name of its {found['quant']} file"
    return ""


def without_curly_quotes(text: str) -> str:
    """Return `text` without typographic quotes, which are part of the value in YAML."""
    return text.strip(_CURLY)


def _list(given: object, node: Node, schema: SettingsSchema) -> str:
    if isinstance(given, (list, dict)):
        return ""
    items = schema.resolve(node.get("items", {}))
    if "properties" in items:
        return f"write a list of groups: [{{path: {show(given)}}}]"
    words = given.split() if isinstance(given, str) and given.startswith("-") else [given]
    if choices := items.get("enum"):
        words = [near] if (near := _choice(str(given).lower(), choices)) else choices[:2]
        return f"write a list, as in [{', '.join(words)}]"
    return f"write a list: [{', '.join(show(word) for word in words)}]"


def _group(given: object, node: Node) -> str:
    if "patternProperties" in node or not isinstance(given, str):
        return "give each a name: {NAME: {…}}" if "patternProperties" in node else _group_of_one(given, node)
    if re.match(r"[A-Za-z_]\w*:\S", given):
        return "a space is missing after the colon"
    if assigned := re.match(r"(\w+)\s*=\s*(\S+)", given):
        return f"write {assigned[1]}: {mask_text(assigned[2])}" if assigned[1] in node["properties"] else ""
    if "repo" in node["properties"]:
        return "write {repo: OWNER/NAME, file: NAME.gguf}"
    if "path" in node["properties"] and "url" in node["properties"]:
        return f"write {{path: {show(given)}}}"
    return ""


def _group_of_one(given: object, node: Node) -> str:
    """Return the group with its only setting that accepts such a value: the only list, the only boolean."""
    if isinstance(given, list) and not all(isinstance(item, str) for item in given):
        return ""
    wanted = {list: "array", bool: "boolean"}.get(type(given))
    names = [name for name, child in node["properties"].items() if wanted and child.get("type") == wanted]
    if len(names) != 1 or given is False:
        return ""
    return f"write {{{names[0]}: {'[…]' if isinstance(given, list) else 'true'}}}"


def _meant(given: object, node: Node, choices: Sequence[str]) -> str:
    """Return what a value that is not text was meant to be."""
    if isinstance(given, bool):
        return ('"on"' if given else '"off"') if {"on", "off"} & set(choices) else ""
    if not isinstance(given, (int, float)):
        return ""
    if node.get("type") == "boolean":
        return "true" if given == 1 else "false" if given == 0 else ""
    if "all" in choices and given == -1:
        return '"all"'
    if (
        isinstance(given, float)
        and given.is_integer()
        and abs(given) < 10**_MAX_DIGITS
        and node.get("type") != "string"
    ):
        return str(int(given))
    return f'"{show(given)}"' if node.get("type") == "string" and not choices else ""


def _meant_by_text(given: str, node: Node, choices: Sequence[str], name: str) -> str:
    word, kind = given.strip().lower(), node.get("type")
    kinds = {kind, *(option.get("type") for option in node.get("anyOf", ()))}
    if kind == "boolean":
        return (
            "true"
            if word in _TRUE_WORDS
            else "false"
            if word in _FALSE_WORDS
            else closest(word, ("true", "false")) or ""
        )
    if {"on", "off"} <= set(choices) and word in _TRUE_WORDS | _FALSE_WORDS:
        return '"on"' if word in _TRUE_WORDS else '"off"'
    if choice := _choice(word, choices):
        return f'"{choice}"'
    if kinds & {"integer", "number"}:
        return _number_within(word, name)
    pattern = node.get("pattern")
    if pattern and given != word and re.search(pattern, word):
        return f'"{mask_text(word)}"'
    return (
        f'"/{word}"'
        if pattern and re.search(pattern, f"/{word}") and "/" in str(node.get("patternErrorMessage"))
        else ""
    )


def _choice(word: str, choices: Sequence[str]) -> str:
    if _SAME_MEANING.get(word) in choices:
        return _SAME_MEANING[word]
    longer = [one for one in choices if len(word) > 1 and (one.startswith(word) or word.startswith(one))]
    return longer[0] if len(longer) == 1 else closest(word, choices) or ""


def _number_within(text: str, name: str) -> str:
    """Return the bare number in texts such as "8000", "1_000", "30s" or "10MB", in the unit that `name` ends in."""
    plain = text.replace("_", "").replace(",", "")
    digits = plain.rstrip("abcdefghijklmnopqrstuvwxyz %")
    unit = plain[len(digits) :].strip()
    if len(digits) > _MAX_DIGITS or not digits.replace(".", "", 1).isdigit():
        return ""
    if not unit:
        return digits
    if name.endswith("_seconds"):
        return f"{float(digits) * _TIMES[unit]:g}" if unit in _TIMES else ""
    scale = 1024**2 if name.endswith("_mib") else 1
    return f"{float(digits) * _SIZES[unit] / scale:.0f}" if unit in _SIZES else ""
