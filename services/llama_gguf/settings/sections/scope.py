"""What a key may do. Apart from `auth`, because the keys' records name it without needing a model of the settings."""

from typing import Literal

Scope = Literal["inference", "metrics", "admin"]
"""Call the engine's routes, read metrics, administer the appliance."""
