"""What the tests of request bodies share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from llama_gguf.api_errors import GatewayError

Refused = Callable[[Callable[[], object]], str]


@pytest.fixture
def refused() -> Refused:
    """Return what calls something that must be refused, and returns the path that the client is told."""

    def call(check: Callable[[], object]) -> str:
        with pytest.raises(GatewayError) as caught:
            check()
        error: Any = caught.value
        assert error.status == 400
        assert error.param is not None
        assert "\n" not in error.message
        return str(error.param)

    return call
