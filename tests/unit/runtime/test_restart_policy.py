from __future__ import annotations

import pytest

from llama_gguf.rundir.crashes import Crash
from llama_gguf.rundir.exits import ExitStatus
from llama_gguf.runtime.restart_policy import reason_to_give_up
from llama_gguf.settings.sections.supervisor import Supervisor

RULES = Supervisor(start_retries=2, max_restarts=3, restart_window_seconds=100.0)


def crashes(program: str, *times: float) -> list[Crash]:
    return [Crash(program, number, at, 1, None) for number, at in enumerate(times)]


@pytest.mark.parametrize(
    ("event", "program", "ended", "times", "was_ready", "expected"),
    [
        ("BACKOFF", "gateway", ExitStatus(1, None), (), False, None),
        ("BACKOFF", "gateway", ExitStatus(78, None), (), True, "refused to start"),
        ("EXITED", "engine", ExitStatus(78, None), (1000,), True, "refused to start"),
        ("FATAL", "gateway", ExitStatus(None, "SIGSEGV"), (), False, "terminated by SIGSEGV, 3 times in a row"),
        ("EXITED", "gateway", ExitStatus(1, None), (990, 995, 1000), False, None),
        ("EXITED", "gateway", ExitStatus(1, None), (985, 990, 995, 1000), True, "keeps crashing: 4 times in 100 s"),
        ("EXITED", "gateway", ExitStatus(1, None), (800, 850, 899, 1000), True, None),  # outside the window
        ("EXITED", "engine", ExitStatus(1, None), (990, 1000), False, None),
        ("EXITED", "engine", ExitStatus(1, None), (980, 990, 1000), False, "never became ready"),
        ("EXITED", "engine", ExitStatus(1, None), (980, 990, 1000), True, None),
    ],
)
def test_reason_to_give_up(  # noqa: PLR0917 - one column of the table each
    event: str, program: str, ended: ExitStatus, times: tuple[float, ...], was_ready: bool, expected: str | None
) -> None:
    others = crashes("health", 991, 992, 993, 994, 995, 996)
    found = reason_to_give_up(
        event, program, ended, [*others, *crashes(program, *times)], RULES, was_ready=was_ready, now=1000.0
    )
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert expected in found


def test_healed_ends_do_not_count() -> None:
    mitigated = [Crash("engine", number, 999.0, None, "SIGILL", mitigated=True) for number in range(20)]
    ended = ExitStatus(1, None)
    for was_ready in (False, True):
        assert reason_to_give_up("EXITED", "engine", ended, mitigated, RULES, was_ready=was_ready, now=1000.0) is None
