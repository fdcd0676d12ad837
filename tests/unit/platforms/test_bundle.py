"""The problems of one rendering."""

from __future__ import annotations

import pytest

from llama_gguf.errors import ConfigError
from llama_gguf.platforms.bundle import Findings


def test_all_errors_are_raised_together() -> None:
    findings = Findings("Somewhere")
    findings.warn("loopback-host", "gateway.host", "w")
    findings.error("bad-name", "", "e1", "h1")
    findings.error("no-pool", "", "e2", "h2")
    findings.error("no-pool", "", "e2", "h2")
    with pytest.raises(ConfigError, match="Somewhere cannot express 2 things") as caught:
        findings.finish({})
    assert [problem.code for problem in caught.value.problems] == ["loopback-host", "bad-name", "no-pool"]
    assert caught.value.hint == "h1"
    assert caught.value.exit_code == 78
