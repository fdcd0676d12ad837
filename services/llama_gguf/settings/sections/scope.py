"""Scopes of API keys. Separate from `auth`, because keys' records use them without loading pydantic."""

from typing import Literal

Scope = Literal["inference", "metrics", "admin"]
"""Call the engine's routes, read metrics, administer the appliance."""
