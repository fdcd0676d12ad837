"""Speed and time left, and their lines in the log."""

from __future__ import annotations

import pytest

from llama_gguf.models.progress import LoggedProgress, Meter, Progress
from llama_gguf.states import Phase
from support.model_box import Remembering

MIB = 1 << 20


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("done", "total", "rate", "text"),
    [
        (0, None, 0.0, "0 MiB"),
        (42 * MIB, 100 * MIB, 0.0, "42%"),
        (42 * MIB, 100 * MIB, 1.5 * MIB, "42%, 1.5 MiB/s, 39 s left"),
        (5 * MIB, 50_000 * MIB, 118.4 * MIB, "0%, 118 MiB/s, 7 min left"),
        (5 * MIB, 50_000 * MIB, MIB, "0%, 1.0 MiB/s, 13.9 h left"),
        (5 * MIB, None, 2 * MIB, "5 MiB, 2.0 MiB/s"),
        (7, 0, 1.0, "0 MiB, 0.0 MiB/s, 0 s left"),
        (100 * MIB, 100 * MIB, MIB, "100%, 1.0 MiB/s, 0 s left"),
    ],
)
def test_for_people(done: int, total: int | None, rate: float, text: str) -> None:
    assert str(Progress(done, total, rate)) == text
    assert len(text) < 34  # a line on a terminal of 80 columns


def test_speed_is_that_of_the_last_seconds_and_of_this_step() -> None:
    clock = Clock()
    meter = Meter(clock)
    rates = []
    for second in range(100):  # 1 MiB/s, then 10, after 500 MiB of an earlier process
        clock.now = 100.0 + second
        done = 500 + (second if second < 40 else 40 + 10 * (second - 40))
        rates.append(meter.measure(done * MIB, 2000 * MIB).bytes_per_second / MIB)
    assert rates[0] == 0
    assert rates[1] == rates[39] == pytest.approx(1)
    assert 1 < rates[50] < 10
    assert rates[99] == pytest.approx(10)
    assert meter.measure(5, None).bytes_per_second == 0  # begun again
    meter.restart()
    assert meter.measure(2000 * MIB, None).bytes_per_second == 0


def test_a_report_many_times_a_second_costs_no_memory_and_no_accuracy() -> None:
    clock = Clock()
    meter = Meter(clock)
    for step in range(10_000):
        clock.now = 100.0 + step / 1000
        found = meter.measure(step * 1000, None)
    assert found.bytes_per_second == pytest.approx(1_000_000, rel=0.01)


def test_the_log_has_a_line_every_few_seconds(caplog: pytest.LogCaptureFixture) -> None:
    clock, inner = Clock(), Remembering()
    reporter = LoggedProgress(inner, tick=clock)
    with caplog.at_level("INFO"):
        reporter.progress(0, 1)  # before any step
        reporter.phase(Phase.RESOLVING, "a/b")
        reporter.phase(Phase.DOWNLOADING, "a/b/c.gguf@main")
        for tenth in range(121):
            clock.now = 100 + tenth / 10
            reporter.progress(tenth * MIB, 200 * MIB)
        reporter.phase(Phase.STARTING, "x")
        clock.now += 60
        reporter.progress(1, 2)
    assert [record.message for record in caplog.records] == [
        "downloading",
        "25%, 10 MiB/s, 15 s left",
        "50%, 10 MiB/s, 10 s left",
    ]
    assert vars(caplog.records[1])["fields"] == {
        "phase": "downloading",
        "source": "a/b/c.gguf@main",
        "bytes_done": 50 * MIB,
        "bytes_total": 200 * MIB,
        "bytes_per_second": 10 * MIB,
        "seconds_left": 15,
    }
    assert len(inner.steps) == 123
    assert inner.kinds() == ["resolving", "downloading", "starting"]
