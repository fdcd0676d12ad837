"""JSON and YAML text that is the same bytes for the same value.

Owns the layout of every rendered file. An `Expression` is a scalar that stays unquoted in YAML: a Helm template
expression, which becomes a value when the chart is installed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

import yaml

Tree = dict[str, object]
"""A document as plain values: what JSON and YAML can hold, keys in the order they are written."""


class Expression(str):
    """A Helm template expression for a whole value, as in `{{ .Values.image }}`."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Block style, two spaces, no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless  # PyYAML would not indent list items below their key
        super().increase_indent(flow, False)


_AMBIGUOUS = re.compile(r"[-+.]*[0-9].*|[yYnN]", re.DOTALL)
"""Text that some YAML parser reads as a number, a time or a boolean, so it is always quoted."""


def _represent_text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else "'" if _AMBIGUOUS.fullmatch(value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


def _represent_expression(dumper: yaml.SafeDumper, value: Expression) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", f"HELM<{value.encode().hex()}>")


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(Expression, _represent_expression)
_MARKED = re.compile(r"HELM<([0-9a-f]+)>")


def to_yaml(document: Mapping[str, object], *, header: Iterable[str] = ()) -> str:
    """Return one YAML document below `header`, whose lines become comments."""
    body = yaml.dump(dict(document), Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)
    comments = "".join(f"# {line}".rstrip() + "\n" for line in header)
    return comments + _MARKED.sub(lambda match: bytes.fromhex(match[1]).decode(), body)


def to_json(document: object) -> str:
    """Return `document` as indented JSON with a newline at its end."""
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_flat_json(value: object) -> str:
    """Return `value` as JSON on one line without spaces, as it goes into a variable."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
