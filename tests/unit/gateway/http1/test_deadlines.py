"""The one timer that looks after everything that may take too long."""

from __future__ import annotations

import asyncio

import pytest

from llama_gguf.gateway.http1.deadlines import DeadlineChecker


async def test_a_defect_in_one_check_does_not_end_the_others(caplog: pytest.LogCaptureFixture) -> None:
    class HasDeadline:
        """Something to look after, which counts the looks."""

        def __init__(self, *, broken: bool) -> None:
            self.broken = broken
            self.looks = 0

        def check(self, now: float) -> None:
            assert now > 0
            self.looks += 1
            if self.broken:
                raise ZeroDivisionError

    good, broken = HasDeadline(broken=False), HasDeadline(broken=True)
    deadlines = DeadlineChecker(tick_seconds=0.01)
    deadlines.add(broken)
    deadlines.add(good)
    deadlines.start()
    await asyncio.sleep(0.05)
    deadlines.discard(broken)
    deadlines.stop()
    deadlines.stop()
    assert good.looks >= 2
    assert "a timeout check failed" in caplog.text
