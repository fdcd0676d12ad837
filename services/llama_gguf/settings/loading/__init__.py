"""YAML, environment and flags -> one validated value."""
