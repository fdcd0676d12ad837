"""Which store the settings open, and what they get to hear when it cannot be had."""

from __future__ import annotations

import subprocess
import sys

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.gateway.ratelimit.factory import open_store
from llama_gguf.gateway.ratelimit.memory_store import LocalStore
from llama_gguf.settings.sections.limits import Limits


def test_the_memory_store_is_the_default() -> None:
    assert isinstance(open_store(Limits()), LocalStore)


def test_a_store_whose_password_is_missing_says_which_variable() -> None:
    limits = Limits(store="redis://localhost", store_password_env="STORE_PASSWORD")
    with pytest.raises(ConfigError, match="STORE_PASSWORD is not set"):
        open_store(limits)


def test_a_store_whose_client_is_not_installed_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_gguf.gateway.ratelimit.redis_store", None)
    with pytest.raises(ConfigError, match="needs the Python package"):
        open_store(Limits(store="redis://localhost"))


def test_for_the_memory_store_no_client_of_a_shared_one_is_imported() -> None:
    code = (
        "import sys, llama_gguf.gateway.ratelimit.factory as f;"
        "from llama_gguf.settings.sections.limits import Limits;"
        "f.open_store(Limits()); print([m for m in ('limits', 'redis') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
