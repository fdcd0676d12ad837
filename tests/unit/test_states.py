from __future__ import annotations

from llama_gguf.states import EngineState, Phase, Residency, ServiceState


def test_the_vocabulary() -> None:
    """They are public: they stand in metrics, in both /health, in `status` and in the log."""
    assert list(EngineState) == ["loading", "ready", "down", "failed", "unloaded"]
    assert list(ServiceState) == ["starting", "ready", "unready", "draining", "failed"]
    assert set(Phase) & {*EngineState, *ServiceState} == {"starting", "loading", "draining", "failed", "unloaded"}
    assert list(Residency) == ["unloaded", "loading", "loaded", "draining", "unloading", "failed"]
