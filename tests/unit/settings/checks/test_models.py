"""Several models: what is wrong with them together, and where the file says it."""

from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.settings.loading.load import InvalidConfigError, loads

FILE = Path("config.yaml")
TWO = """
engine: {slots: 2}
models:
  chat: {name: a.gguf}
  my-embed:
    name: b.gguf
    engine: {task: embed, context_per_slot: 512}
"""


def told(text: str, env: dict[str, str] | None = None) -> list[tuple[str, str, int]]:
    try:
        loaded = loads(text, FILE, env or {})
    except InvalidConfigError as error:
        return [(one.code, one.path, one.line) for one in error.problems]
    return [(one.code, one.path, one.line) for one in loaded.problems]


def test_two_models_are_fine() -> None:
    assert told(TWO) == []


def test_model_and_models_together_are_an_error() -> None:
    assert told(f"model: {{name: c.gguf}}{TWO}") == [("model-and-models", "model.name", 1)]


def test_settings_of_one_model_are_checked_at_their_place_in_the_file() -> None:
    drafts = "    engine: {speculative: {types: [draft-simple]}, rope: {scaling: none, scale: 2}}\n"
    text = TWO.replace("  my-embed:\n", f"  coder:\n    name: c.gguf\n{drafts}  my-embed:\n")
    assert told(text) == [
        ("bad-speculation", "models.coder.engine.speculative.types", 7),
        ("bad-rope", "models.coder.engine.rope.scale", 7),
    ]


def test_a_group_of_one_model_completes_the_common_one() -> None:
    env = {
        "LLAMA_GGUF__ENGINE__ROPE__SCALING": "yarn",
        "LLAMA_GGUF__ENGINE__DEVICES": "CUDA0,CUDA1",
        "LLAMA_GGUF__ENGINE__TENSOR_SPLIT": "3,1.5",
        "LLAMA_GGUF__ENGINE__ROPE__SCALE": "2",
        "LLAMA_GGUF__MODELS__CHAT__ENGINE__ROPE__SCALE": "4",
        "LLAMA_GGUF__MODELS__CHAT__ENGINE__SPECULATIVE__TYPES": "ngram-simple,ngram-map-k",
        "LLAMA_GGUF__MODELS__CHAT__ENGINE__CPU_MOE_LAYERS": "all",
    }
    settings = loads(TWO, FILE, env).settings
    chat = settings.models["chat"].engine
    assert (chat.rope.scaling, chat.rope.scale, settings.engine.rope.scale) == ("yarn", 4.0, 2.0)
    assert (chat.speculative.types, chat.cpu_moe_layers) == (("ngram-simple", "ngram-map-k"), "all")
    assert (chat.devices, chat.tensor_split) == (("CUDA0", "CUDA1"), (3.0, 1.5))
    assert settings.models["my-embed"].engine.speculative.types == ()


def test_neither_is_an_error() -> None:
    assert [code for code, _, _ in told("engine: {slots: 2}")] == ["no-model"]
    assert [code for code, _, _ in told("models: {}")] == ["no-model"]


def test_the_remedies_of_a_model_without_a_source_are_those_that_reach_it() -> None:
    with pytest.raises(InvalidConfigError) as caught:
        loads(f"{TWO}  third: {{load: on_demand}}\n", FILE, {})
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("no-model", "models.third")
    assert "models.third.path" in problem.hint
    assert "MODEL_PATH" not in problem.hint
    with pytest.raises(InvalidConfigError) as caught:
        loads("model: {mmproj: {name: p.gguf}}", FILE, {})
    assert "MODEL_PATH" in caught.value.problems[0].hint


@pytest.mark.parametrize("name", ["Chat", "a b", "-x", "a.b", "é", "a" * 33])
def test_names_are_programs_and_variables(name: str) -> None:
    problems = told(f'models:\n  "{name}": {{name: a.gguf}}\n')
    assert ("bad-name", f"models.{name}", 2) in problems


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ("  c: {name: c.gguf, aliases: [chat]}", "models.c.aliases"),
        ("  c: {name: c.gguf, variants: {my-embed: {}}}", "models.c.variants.my-embed"),
        ("  c: {name: c.gguf, aliases: [x], variants: {x: {}}}", "models.c.variants.x"),
    ],
)
def test_a_name_means_one_thing(extra: str, place: str) -> None:
    problems = told(TWO + extra)
    assert ("duplicate-alias", place, 8) in problems


def test_a_check_names_the_model_that_it_is_about() -> None:
    """A defect of what only one model sets is at its line, one of the common settings at theirs, once."""
    own = TWO + "  c: {name: c.gguf, engine: {batch_size: 64}}"
    assert ("ubatch-over-batch", "models.c.engine.ubatch_size", 8) in [
        (code, path.replace("engine.ubatch_size", "engine.ubatch_size"), line) for code, path, line in told(own)
    ] or ("ubatch-over-batch", "engine.ubatch_size", 2) in told(own)
    common = "engine: {cache_type_v: q8_0, flash_attention: off}\nmodels: {a: {name: a.gguf}, b: {name: b.gguf}}"
    assert [(code, path) for code, path, _ in told(common.replace("off", '"off"'))] == [
        ("cache-needs-flash-attention", "engine.cache_type_v")
    ]
    both = "models:\n  a: {name: a.gguf, url: 'http://x/y.gguf'}\n  b: {name: b.gguf}\n"
    assert told(both) == [("two-sources", "models.a.url", 2)]


def test_scales_of_a_variant_are_one_for_each_adapter() -> None:
    text = "model:\n  name: a.gguf\n  lora: [{name: l.gguf}]\n  variants:\n    v: {lora: [1, 2]}\n"
    assert told(text) == [("bad-scales", "model.variants.v.lora", 5)]
    assert told(text.replace("[1, 2]", "[0.5]")) == []


def test_variables_name_models_in_capitals() -> None:
    loaded = loads(TWO, FILE, {"LLAMA_GGUF__MODELS__MY_EMBED__ENGINE__SLOTS": "7"})
    assert loaded.settings.models["my-embed"].engine.slots == 7
    assert loaded.settings.models["chat"].engine.slots == 2
    added = loads(TWO, FILE, {"LLAMA_GGUF__MODELS__THIRD__NAME": "c.gguf"})
    assert list(added.settings.models) == ["chat", "my-embed", "third"]
    assert told(TWO, {"LLAMA_GGUF__MODELS__MY_EMBED__ENGINE__SLOT": "7"})[0][0] == "unknown-variable"


def test_a_variable_replaces_the_source_of_its_model_only() -> None:
    loaded = loads(TWO, FILE, {"LLAMA_GGUF__MODELS__CHAT__PATH": "/x/y.gguf"})
    assert (loaded.settings.models["chat"].path, loaded.settings.models["chat"].name) == ("/x/y.gguf", None)
    assert loaded.settings.models["my-embed"].name == "b.gguf"


def test_sleep_beside_unload_is_told() -> None:
    text = "models: {a: {name: a.gguf, unload_after_seconds: 5, engine: {sleep_idle_seconds: 9}}}"
    assert told(text) == [("no-effect", "models.a.engine.sleep_idle_seconds", 1)]
    common = "models: {a: {name: a.gguf, unload_after_seconds: 5}, b: {name: b.gguf}}\nengine: {sleep_idle_seconds: 9}"
    assert told(common) == []  # the common one is that of b


def test_a_model_without_memory_is_told() -> None:
    text = "memory: {host_mib: 0}\nmodels: {a: {name: a.gguf, load: on_demand}}"
    assert told(text) == [("no-memory", "memory.host_mib", 1)]


def test_parameters_by_variable_have_the_type_that_they_look_like() -> None:
    variables = {
        "LLAMA_GGUF__MODELS__CHAT__DEFAULTS__TEMPERATURE": "0.5",
        "LLAMA_GGUF__MODELS__CHAT__DEFAULTS__STOP": '["a"]',
        "LLAMA_GGUF__MODELS__CHAT__DEFAULTS__USER": "me",
    }
    loaded = loads(TWO, FILE, variables)
    assert loaded.settings.models["chat"].defaults == {"temperature": 0.5, "stop": ["a"], "user": "me"}


def test_what_a_model_does_not_set_has_the_origin_of_the_common_setting() -> None:
    loaded = loads(TWO, FILE, {})
    assert str(loaded.origin("models.chat.engine.slots")) == "config.yaml:2"
    assert str(loaded.origin("models.my-embed.engine.task")) == "config.yaml:7"
    assert str(loaded.origin("models.chat.engine.batch_size")) == "default"
