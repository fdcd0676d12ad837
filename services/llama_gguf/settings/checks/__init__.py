"""Checks beyond a single value: between settings, and of this machine."""
