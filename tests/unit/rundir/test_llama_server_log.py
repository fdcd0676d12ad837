"""What llama-server prints cannot look like another program's line, and quotes no request."""

from __future__ import annotations

import json
import random
from typing import Literal

import pytest

from llama_gguf.logs import is_own_line
from llama_gguf.rundir.llama_server_log import FOLLOWS, MAX_LINE_BYTES, TEXT_MARK, LlamaServerLog

OWN = b"2026-01-02T03:04:05.678Z | INFO | engine | starting llama-server | argv=[]\n"
SECRET = "hunter2"


def rendered(*chunks: bytes, log_format: Literal["text", "json"] = "text") -> str:
    log = LlamaServerLog(log_format, clock=lambda: 0.0)
    log.feed(OWN + FOLLOWS + b"\n")
    return (b"".join(log.feed(chunk) for chunk in chunks) + log.end()).decode()


def message(text: str, level: str = "info") -> bytes:
    return json.dumps({"type": "log", "time": 0, "level": level, "msg": text}, ensure_ascii=False).encode() + b"\n"


def test_our_own_lines_come_before_and_stay() -> None:
    log = LlamaServerLog("text")
    assert log.feed(OWN[:20]) == b""
    assert log.feed(OWN[20:] + FOLLOWS + b"\n" + OWN) == OWN + b"llama-server | " + OWN


def test_a_message_is_one_marked_line() -> None:
    assert rendered(message("srv load_model: loading\n")) == "llama-server | I srv load_model: loading\n"
    line = rendered(message("slow\n", "warn"), log_format="json")
    assert json.loads(line) == {
        "ts": "1970-01-01T00:00:00.000Z",
        "level": "warning",
        "program": "engine",
        "source": "llama-server",
        "event": "slow",
    }


FORGED = [
    '{"ts":"2026-01-01T00:00:00Z","level":"error","program":"gateway","event":"forged"}',
    "2026-01-02T03:04:05.678Z | ERROR | gateway | forged",
    "error: forged",
    "hint: forged",
    "\x1b[2J\x07\r2026-01-02T03:04:05.678Z | ERROR | gateway | forged",
    "\u202eforged\u2028error: forged",
    FOLLOWS.decode(),
]


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize("line", FORGED)
def test_nothing_looks_like_another_programs_line(line: str, log_format: Literal["text", "json"]) -> None:
    for raw in (line.encode() + b"\n", message(line + "\n"), message("x\n" + line), line.encode("latin-1", "replace")):
        out = rendered(raw, log_format=log_format)
        assert out.endswith("\n")
        for found in out.splitlines():  # which splits at more characters than \n
            assert not is_own_line(found)
            assert found.isprintable()
            if log_format == "json":
                assert json.loads(found)["program"] == "engine"
            else:
                assert found.startswith(TEXT_MARK)


@pytest.mark.parametrize(
    "text",
    [
        f"operator(): got exception: {SECRET}\n",
        f"srv  send_error: task id = 3, error: {SECRET}\n",
        f"Tool call mismatch: prev='{SECRET}' new=''\n",
        f"common_chat_parse: unparsed peg-native output: {SECRET}\n",
        f"common_sampler_init: error initializing grammar sampler for grammar:\n{SECRET}\n\nGeneration prompt:\n''\n",
        f"anthropic string not as expected: {SECRET}",
        f"two lines\n{SECRET}\n",
    ],
)
def test_a_message_that_quotes_a_request_is_cut(text: str) -> None:
    for raw in (message(text, "error"), text.encode() if "two lines" not in text else b""):
        out = rendered(raw)
        assert SECRET not in out
    assert "withheld" in rendered(message(text, "error"))


def test_a_grammar_printed_past_the_logger_is_withheld_but_not_why_the_process_ends() -> None:
    grammar = f'root ::= "{SECRET}"\nerror: {SECRET}\n\n'
    out = rendered(
        b"parse: error parsing grammar: expecting name at " + SECRET.encode() + b"\n\n" + grammar.encode(),
        message("srv operator(): next\n"),
        b"/x/ggml.c:3: GGML_ASSERT(n > 0) failed\n",
    )
    assert SECRET not in out
    assert out.splitlines() == [
        "llama-server | parse: error parsing grammar: (withheld: from a request)",
        "llama-server | I srv operator(): next",
        "llama-server | /x/ggml.c:3: GGML_ASSERT(n > 0) failed",
    ]


def test_a_line_without_end_is_bounded_and_told() -> None:
    log = LlamaServerLog("text")
    log.feed(FOLLOWS + b"\n")
    out = b"".join(log.feed(b"x" * 65_536) for _ in range(64)) + log.feed(b"tail\nnext\n") + log.end()
    assert out.count(b"\n") == 2
    assert len(out) < 2 * MAX_LINE_BYTES
    assert out.endswith(b"...\nllama-server | next\n")


def test_the_last_words_of_a_process_are_kept_without_a_newline() -> None:
    assert rendered(b"terminate called") == "llama-server | terminate called\n"


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_whatever_the_bytes_are_and_wherever_they_are_cut(log_format: Literal["text", "json"]) -> None:
    dice = random.Random(11)
    pieces = [
        b"\n",
        b"\x00",
        b"\xff",
        b'{"msg":',
        b"{" * 3000,
        b"[" * 100_000,
        FOLLOWS,
        b"\xe2\x80\xa8",
        b"\\ud800",
        b"x",
    ]
    for _ in range(50):
        data = b"".join(dice.choice(pieces) for _ in range(40))
        data += b'\n{"level":"info","msg":"\\ud800\\u0000"}\n'
        cuts = sorted(dice.randrange(len(data)) for _ in range(5))
        chunks = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
        out = rendered(*chunks, log_format=log_format)
        assert out == rendered(data, log_format=log_format) or len(data) > MAX_LINE_BYTES
        assert all(line.isprintable() for line in out.splitlines())
