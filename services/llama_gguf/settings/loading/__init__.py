"""From YAML, environment and flags to one validated value."""
