"""The machine's CPU as the kernel reports it: model and flags, only those that the system has enabled. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

_FLAGS = ("flags", "Features")
_MODEL = ("model name", "CPU implementer", "CPU architecture", "CPU variant", "CPU part")


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the kernel reports about the machine's CPU."""

    flags: frozenset[str] = frozenset()
    model: str = ""

    @property
    def fingerprint(self) -> str:
        """A short hash of model and flags."""
        text = "\n".join((self.model, *sorted(self.flags)))
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def read_cpu(cpuinfo: str) -> Cpu | None:
    """Return the CPU that /proc/cpuinfo describes: the model of its first core, and the flags that all cores have.

    None where it lists no flags.
    """
    model: dict[str, str] = {}
    texts: set[str] = set()  # of all cores, mostly equal
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        name = name.strip()
        if name in _FLAGS:
            texts.add(value)
        elif name in _MODEL:
            model.setdefault(name, value.strip())
    flags = frozenset.intersection(*(frozenset(text.split()) for text in texts)) if texts else frozenset()
    if not flags:
        return None
    return Cpu(flags, " ".join(model[name] for name in _MODEL if name in model))
