"""What a model's header says about serving it as it is configured."""

from __future__ import annotations

from typing import Any

import pytest

from llama_gguf.errors import Problem
from llama_gguf.settings import parse
from llama_gguf.settings.checks.model_facts import ModelFacts, model_problems

GOOD: dict[str, Any] = {"training_context": 0, "pools": True, "reranks": True, "chats": True, "generates": True}


def told(settings: dict[str, Any], **facts: Any) -> list[Problem]:
    """Return the problems of a model with these facts, and otherwise none."""
    whole = parse({"model": {"name": "tiny.gguf"}} | settings)
    return model_problems(whole, ModelFacts(**GOOD | facts))


@pytest.mark.parametrize(
    ("trained", "context", "wrong"), [(2048, 4096, True), (4096, 4096, False), (0, 4096, False), (2048, 0, False)]
)
def test_context_beyond_training(trained: int, context: int, *, wrong: bool) -> None:
    problems = told({"engine": {"context_per_slot": context, "slots": 2}}, training_context=trained)
    assert [problem.code for problem in problems] == (["context-over-training"] if wrong else [])
    if wrong:
        assert "8192 tokens of memory" in problems[0].message


@pytest.mark.parametrize(
    ("engine", "facts", "codes"),
    [
        ({"task": "embed"}, {"pools": False}, ["no-pooling"]),
        ({"task": "embed"}, {}, []),
        ({"task": "embed"}, {"generates": False}, []),
        ({"task": "embed", "pooling": "none"}, {"pools": False}, []),
        ({"task": "embed", "pooling": "mean"}, {"pools": False}, []),
        ({"task": "rerank"}, {"reranks": False}, ["no-reranker"]),
        ({"task": "rerank"}, {"generates": False}, []),
        ({}, {"pools": False, "reranks": False}, []),
    ],
)
def test_a_model_that_does_not_suit_its_task(engine: dict[str, Any], facts: dict[str, Any], codes: list[str]) -> None:
    problems = told({"engine": engine}, **facts)
    assert [problem.code for problem in problems] == codes
    assert all(problem.severity == "warning" and problem.hint for problem in problems)


def test_an_encoder_that_is_asked_to_chat() -> None:
    (problem,) = told({}, generates=False, chats=False)
    assert (problem.code, problem.path, problem.severity) == ("model-task", "model", "error")
    assert "set engine.task to embed" in problem.hint


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({}, True),
        ({"gateway": {"routes": ["messages", "completions"]}}, True),
        ({"gateway": {"routes": ["responses"]}}, True),
        ({"gateway": {"routes": ["completions", "infill", "tokenize", "models"]}}, False),  # nothing writes a chat
        ({"engine": {"task": "embed", "pooling": "mean"}}, False),
        ({"engine": {"task": "rerank"}}, False),
        ({"model": {"name": "m", "chat_template": "/t.jinja"}}, False),
    ],
)
def test_a_model_without_a_chat_template(settings: dict[str, Any], *, wrong: bool) -> None:
    problems = told(settings, chats=False)
    assert [problem.code for problem in problems] == (["no-chat-template"] if wrong else [])
    if wrong:
        assert "the model has no chat template: chat responses will be poor" in problems[0].message
        assert "set model.chat_template" in problems[0].hint
        assert (problems[0].path, problems[0].severity) == ("model.chat_template", "warning")


@pytest.mark.parametrize(
    ("rope", "wrong"),
    [
        ({"scaling": "yarn", "scale": 4.0}, False),
        ({"scaling": "yarn", "scale": 3.0}, True),
        ({"scaling": "yarn", "scale": 2.0, "yarn_original_context": 4096}, False),
        ({"scaling": "linear", "scale": 4.0}, True),  # llama-server still gives a slot the trained context
    ],
)
def test_yarn_lengthens_the_trained_context(rope: dict[str, Any], *, wrong: bool) -> None:
    problems = told({"engine": {"context_per_slot": 8192, "rope": rope}}, training_context=2048)
    assert [problem.code for problem in problems] == (["context-over-training"] if wrong else [])


@pytest.mark.parametrize(
    ("engine", "able", "wrong"),
    [
        ({"speculative": {"types": ["draft-mtp"]}}, False, [("bad-speculation", "error")]),
        ({"speculative": {"types": ["draft-mtp"]}}, True, []),
        ({"speculative": {"types": ["ngram-simple"]}}, False, []),
        ({"cpu_moe_layers": 4}, False, [("no-effect", "warning")]),
        ({"cpu_moe_layers": "all"}, True, []),
    ],
)
def test_what_only_some_models_can(engine: dict[str, Any], *, able: bool, wrong: list[tuple[str, str]]) -> None:
    problems = told({"engine": engine}, has_experts=able, has_mtp_layers=able)
    assert [(problem.code, problem.severity) for problem in problems] == wrong
