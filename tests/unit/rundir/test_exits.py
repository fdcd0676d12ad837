from __future__ import annotations

from pathlib import Path

import pytest

from llama_gguf.rundir.exits import ExitStatus, ProcessExit, process_exits, read_supervisord_log
from llama_gguf.settings import RunDir

LOG = """\
2026-11-22 21:46:53,482 INFO supervisord started with pid 8040
2026-11-22 21:46:53,492 INFO spawned: 'engine' with pid 8042
2026-11-22 21:46:53,493 INFO spawned: 'gateway' with pid 8043
2026-11-22 21:46:54,595 WARN exited: engine (exit status 1; not expected)
2026-11-22 21:46:55,595 WARN exited: gateway (terminated by SIGKILL; not expected)
2026-11-22 21:46:55,600 INFO spawned: 'engine' with pid 8050
2026-11-22 21:46:56,595 WARN exited: health (terminated by SIGSEGV (core dumped); not expected)
2026-11-22 21:46:57,595 INFO exited: other (exit status 0; expected)
2026-11-22 21:46:58,595 WARN exited: engine (exit status 78; not expected)
2026-11-22 21:46:59,595 WARN exited: odd (unknown termination cause 0x137f; not expected)
2026-11-22 21:47:00,595 INFO gave up: engine entered FATAL state, too many start retries too quickly
2026-11-22 21:47:01,000 INFO spawned: 'engine' with pid 8060
2026-11-22 21:47:01,500 WARN exited: engine (terminated by SIGILL (core dumped); not expected)
2026-11-22 21:47:01,600 INFO spawned: 'engine' with pid 8061
2026-11-22 21:47:02,000 WARN stopped: engine (terminated by SIGILL)
"""


@pytest.mark.parametrize(
    ("program", "expected", "words"),
    [
        ("engine", ProcessExit(8060, ExitStatus(None, "SIGILL")), "terminated by SIGILL"),
        ("gateway", ProcessExit(8043, ExitStatus(None, "SIGKILL")), "terminated by SIGKILL"),
        (
            "health",
            ProcessExit(0, ExitStatus(None, "SIGSEGV")),
            "terminated by SIGSEGV",
        ),  # its start is no longer there
        ("other", ProcessExit(0, ExitStatus(0, None)), "exit status 0"),
        ("odd", ProcessExit(0, ExitStatus(None, None)), "exited, cause unknown"),
    ],
)
def test_the_last_end(program: str, expected: ProcessExit, words: str) -> None:
    found = process_exits(LOG, program)[-1]
    assert found == expected
    assert str(found.status) == words


def test_all_ends_that_nobody_asked_for_with_their_pids() -> None:
    assert [(end.pid, end.status.code) for end in process_exits(LOG, "engine")] == [(8042, 1), (8050, 78), (8060, None)]
    assert process_exits(LOG, "absent") == []
    assert process_exits("", "engine") == []


def test_a_start_belongs_to_one_end() -> None:
    """Lines lost in between must not give one process's pid to another's end."""
    text = "spawned: 'engine' with pid 7\n" + "exited: engine (terminated by SIGILL; not expected)\n" * 2
    assert [end.pid for end in process_exits(text, "engine")] == [7, 0]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (ExitStatus(None, "SIGILL"), True),
        (ExitStatus(132, None), True),  # a shell in between
        (ExitStatus(4, None), False),
        (ExitStatus(None, "SIGSEGV"), False),
        (ExitStatus(None, None), False),
    ],
)
def test_what_an_illegal_instruction_is(found: ExitStatus, *, expected: bool) -> None:
    assert found.illegal_instruction is expected


def test_the_log_is_read_through_its_rotation(tmp_path: Path) -> None:
    run = RunDir(root=tmp_path)
    assert read_supervisord_log(run) == ""
    (tmp_path / "supervisord.log.1").write_bytes(b"x" * 1_000_000 + b"\nspawned: 'engine' with pid 9\n\xff\n")
    run.supervisord_log.write_text("exited: engine (terminated by SIGILL; not expected)\n")
    assert process_exits(read_supervisord_log(run), "engine") == [ProcessExit(9, ExitStatus(None, "SIGILL"))]
