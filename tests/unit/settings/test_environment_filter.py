"""What may be handed on."""

from __future__ import annotations

import pytest

from llama_gguf.settings.environment_filter import DEVICES, SYSTEM, filter_environment, matches


@pytest.mark.parametrize(
    ("name", "found"), [("LC_ALL", True), ("LC_", True), ("LC", False), ("PATH", True), ("PATHS", False), ("", False)]
)
def test_a_pattern_is_a_name_or_a_beginning(name: str, found: bool) -> None:
    assert matches(name, ("LC_*", "PATH")) is found


def test_secrets_do_not_pass_under_a_harmless_prefix() -> None:
    env = {"NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_API_KEY": "n", "CUDA_SECRET": "c", "TZ": "UTC", "OTHER": "o"}
    assert filter_environment(env, (*SYSTEM, *DEVICES)) == {"NVIDIA_VISIBLE_DEVICES": "all", "TZ": "UTC"}
