"""What an operator can set as a default of requests, or have left out: the parameters that clients can set. Pure.

Checked where an operator writes it, because a request would only be refused, or nothing would happen.
"""

from __future__ import annotations

from llama_gguf.api_errors import GatewayError
from llama_gguf.gateway.request.fields import TABLES
from llama_gguf.gateway.request.model_rules import KEPT
from llama_gguf.settings.words import closest


def check_parameter(name: str) -> None:
    """Raise ValueError, with what is wrong, unless clients can set a parameter of this name that can be changed."""
    if name in KEPT:
        raise ValueError(f"{name} is what a request is for, so it can neither be set nor left out")
    fields = [table[name] for table in TABLES.values() if name in table]
    if any(field.access == "public" for field in fields):
        return
    if fields:
        raise ValueError(f"{name} is no parameter that clients can set")
    near = closest(name, [known for table in TABLES.values() for known in table])
    raise ValueError(f"no route has a parameter of this name{f'; did you mean {near}?' if near else ''}")


def check_default(name: str, value: object) -> None:
    """Raise ValueError, with what is wrong, unless a parameter can have this value on each route that has it."""
    check_parameter(name)
    if value is None:
        raise ValueError(f"{name}: null sets nothing")
    for table in TABLES.values():
        field = table.get(name)
        if field is not None and field.access == "public":
            try:
                field.check(name, value)
            except GatewayError as error:
                raise ValueError(error.message) from None
