"""Files that cannot be chat templates, and templates as they are published, which all can."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.errors import ExitCode, ModelError
from llama_gguf.models.checks.chat_template import MAX_BYTES, check_chat_template, syntax_error


def failure(path: Path) -> ModelError:
    """Return the error with which the template is refused."""
    with pytest.raises(ModelError) as caught:
        check_chat_template(path, "model.chat_template")
    assert caught.value.exit_code == ExitCode.CONFIG
    assert caught.value.message.startswith("model.chat_template: ")
    assert caught.value.hint or caught.value.code == "model_not_found"
    return caught.value


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GGUF\x03\0\0\0" + bytes(99), "is a GGUF file, not a chat template"),
        (b"{{ x }}\xff\xfe", "is not text: byte 7 is not UTF-8"),
        (b"{{ x }}\0", "is not text: it has a zero byte"),
        (b" \n", "is empty"),
        (b" " * (MAX_BYTES + 1), "has more than 4 MiB, too much for a chat template"),
        (b"one\n{{ two\n", "t.jinja:2: {{ is not closed"),
    ],
)
def test_what_is_no_template(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "t.jinja"
    file.write_bytes(content)
    error = failure(file)
    assert (error.code, error.message.endswith(message)) == ("template_unusable", True), error.message


def test_what_is_no_file(tmp_path: Path) -> None:
    assert failure(tmp_path / "none").code == "model_not_found"
    assert failure(tmp_path).code == "model_not_a_file"
    assert failure(Path("/dev/zero")).code == "model_not_a_file"


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as sparse:
        sparse.truncate(1 << 40)
    assert "has more than 4 MiB" in failure(tmp_path / "model.bin").message


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("{% if x %}a", "1: {% if %} has no {% endif %}"),
        ("\n{% for m in messages %}\n{% if m %}{% endfor %}", "3: {% endfor %} closes {% if %}"),
        ("{% endif %}", "1: {% endif %} closes nothing"),
        ("{% else %}", "1: {% else %} is outside of {% if %}"),
        ("{% for m in messages %}{% elif m %}{% endfor %}", "1: {% elif %} is outside of {% if %}"),
        ("{% set x %}a", "1: {% set %} has no {% endset %}"),
        ("{% set x %}a{% endif %}", "1: {% endif %} closes {% set %}"),
        ("{{ 'abc }}", "1: {{ is not closed"),
        ('{{ "a\\" }}', "1: {{ is not closed"),
        ("{{ {'a': 1} ", "1: {{ is not closed"),
        ("{% if x", "1: {% is not closed"),
        ("{{ x %}", "1: {{ is not closed"),
        ("a {# b }", "1: {# is not closed"),
    ],
)
def test_wrong_tags(text: str, wrong: str) -> None:
    assert syntax_error(text) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no tags, } and % and { too",
        "{%- for m in messages -%}{{- m['role'] + '}}' + \"%}\" -}}{%- else -%}none{%- endfor -%}",
        "{% if a == b and c >= d %}x{% elif e != f %}y{% else %}z{% endif %}",
        "{% set x = {'a': {'b': 1}} %}{{ {'a': {'b': 1}}['a'] }}{{ {'a': {}}}}",
        "{% set ns.x = a == b %}{% set body %}text{% endset %}{% set a, b = 1, 2 %}",
        "{% macro f(x='%}') %}{{ x }}{% endmacro %}{% call f() %}a{% endcall %}{% filter upper %}a{% endfilter %}",
        "{% generation %}{{ x }}{% endgeneration %}{% break %}",
        "{# {% if %} {{ #}{{ 'it\\'s' }}",
    ],
)
def test_right_tags(text: str) -> None:
    assert syntax_error(text) == ""


@pytest.mark.parametrize(
    "text",
    ["{{" * 500_000, "{% if x %}" * 50_000, "{{ '" + "\\'" * 500_000, "{{ x }}\n" * 300_000, "{{ " + "{" * 500_000],
    ids=["open", "nested", "string", "long", "braces"],
)
def test_a_hostile_template_is_read_once(text: str) -> None:
    """With a second pass over what was read for each tag, any of these would take minutes."""
    assert syntax_error(text) == "" or syntax_error(text).partition(":")[0].isdigit()
