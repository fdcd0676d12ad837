"""The reference names everything that programs match on."""

from __future__ import annotations

from llama_gguf.cli.generate.reference import SECTIONS, reference
from llama_gguf.errors import ExitCode
from llama_gguf.settings.messages.codes import PROBLEM_CODES
from llama_gguf.settings.schema_tree import settings_schema


def test_reference_names_every_setting_code_and_exit_code() -> None:
    text = reference()
    for leaf in settings_schema().leaves():
        assert f"| `{leaf.name}` |" in text
    for code in PROBLEM_CODES:
        assert f"| `{code}` |" in text
    for exit_code in ExitCode:
        assert f"| {int(exit_code)} | {exit_code.name} |" in text


def test_every_section_is_in_it_once() -> None:
    assert reference().count("\n## ") == len(SECTIONS)
